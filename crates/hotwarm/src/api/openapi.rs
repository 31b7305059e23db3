//! The OpenAPI document and the manual's page, both made from the table of routes and the table of types below.
//!
//! A test asks a real node for every route and holds each answer against this description, field by field, in both directions.

use serde_json::{Map, Value, json};

use super::gate;
use super::routes::{Route, TABLE};

/// A type: its name, what it is, and its fields: name, notation, meaning.
///
/// Notation: `string`, `integer`, `boolean`, `any`; `a|b` one of these words; `Name` another type; `[X]` a list; `{X}` a table from names to X; `X?` or null;
/// `~X` may be left out.
type Type = (&'static str, &'static str, &'static [(&'static str, &'static str, &'static str)]);

const TYPES: &[Type] = &[
    (
        "Health",
        "Whether this node and the groups it knows are in order.",
        &[
            ("status", "UP|DOWN", ""),
            ("node", "string", "The node that answers."),
            ("reasons", "[string]", "Why it is down; empty when it is up."),
            ("warnings", "[string]", "What a person should know although it is up."),
        ],
    ),
    (
        "Status",
        "Everything at a glance, as the answering node sees it.",
        &[
            ("cluster", "ClusterStatus", ""),
            ("node", "SelfStatus", "The node that answers."),
            ("nodes", "[NodeStatus]", ""),
            ("problems", "[Problem]", "Of the cluster, and of the node that answers; a group's are with it."),
            ("groups", "[GroupStatus]", ""),
        ],
    ),
    (
        "ClusterStatus",
        "What all nodes share.",
        &[
            ("name", "string", ""),
            ("id", "string", "32 hexadecimal digits; zeros before the cluster is founded."),
            ("leader", "string?", ""),
            ("term", "integer", ""),
            ("revision", "integer", "Of the configuration in force; counts from 1."),
            ("behaviour", "integer", "Version of behaviour in force."),
            ("lease_ms", "integer", ""),
            ("quorum", "Quorum", ""),
        ],
    ),
    (
        "Quorum",
        "The voters of the control log, as the answering node sees them.",
        &[
            ("voters", "[string]", ""),
            ("needed", "integer", "How many must agree."),
            ("reached", "integer", "How many the answering node hears, itself included."),
        ],
    ),
    (
        "SelfStatus",
        "The node that answers.",
        &[
            ("name", "string", ""),
            ("version", "string", "Of the program."),
            ("pid", "integer", "Of the node's process."),
            ("leads", "boolean", ""),
            ("lease_left_ms", "integer", "0 if it holds no lease."),
            ("cut_off_ms", "integer?", "Since when it holds no lease and reaches no quorum: what it tells of others is that old."),
            ("no_lease_ms", "integer?", "Since when it holds no lease, whatever it hears: nothing of exclusive groups is served here."),
            ("cannot_found", "boolean", "No cluster is founded as far as it knows, and it has no right to found one."),
            ("grade", "well|slow|stalled", "How it finds itself."),
            ("ailment", "string?", "What the grade rests on."),
            ("applied", "integer", "Index of the control log."),
            ("commit", "integer", "Index of the control log."),
            ("certificate", "CertificateStatus?", ""),
            ("disk", "DiskStatus?", "Of the data directory."),
        ],
    ),
    (
        "DiskStatus",
        "The disk of a node's data directory.",
        &[
            ("free_bytes", "integer", "What is left."),
            ("floor_bytes", "integer", "Below this there is little left."),
            ("low", "boolean", "From below the floor until it is exceeded by a quarter."),
        ],
    ),
    (
        "CertificateStatus",
        "A node's certificate.",
        &[
            ("not_after_unix_seconds", "integer", ""),
            ("days_left", "integer", "Negative once it has expired."),
            ("serial", "string", "Hexadecimal."),
        ],
    ),
    (
        "NodeStatus",
        "One node.",
        &[
            ("name", "string", ""),
            ("address", "string", "For other nodes."),
            ("zone", "string", ""),
            ("role", "voter|witness|edge", ""),
            ("joined", "boolean", "It has come to the cluster at least once."),
            ("votes", "boolean", "It is among the voters now."),
            ("leads", "boolean", ""),
            ("leased", "boolean", "The leader answers its renewals."),
            ("silent", "boolean", "The leader hears nothing of it."),
            ("drained", "boolean", ""),
            ("heard", "boolean", "The answering node hears it, or is it."),
        ],
    ),
    (
        "GroupStatus",
        "One group.",
        &[
            ("name", "string", ""),
            ("mode", "hot-hot|hot-warm|hot-spare|mixed", ""),
            ("exclusive", "boolean", "One of several serves at a time."),
            ("want", "Counts", "As configured."),
            ("have", "Counts", "Hot and serving, warm and able to take over, spare."),
            ("epoch", "integer", ""),
            (
                "state",
                "serving|draining|changing|parked|no-lease",
                "`no-lease`: exclusive, and not served here: the answering node holds none.",
            ),
            ("last_state", "string?", "What it was when the answering node last knew; only where it holds no lease."),
            ("pause", "no|paused|resuming", ""),
            ("transition", "Transition?", ""),
            ("refusal", "Reason?", "The refusal that holds now."),
            ("restart", "Restarting?", "A restart of members that was asked for, and is not over."),
            ("problems", "[Problem]", "Worst first."),
            ("failovers_last_hour", "integer", "Unplanned, of live members."),
            ("failovers_per_hour", "integer", "After so many of live members a person is asked."),
            ("listen", "{string}", "Where clients come, by node."),
            ("members", "[MemberStatus]", ""),
        ],
    ),
    (
        "Restarting",
        "A restart of members that was asked for.",
        &[
            ("member", "string?", "Whose turn it is."),
            ("left", "[string]", "Who is still to be restarted, the one whose turn it is among them, in this order."),
            ("stopped", "boolean", "It ended before all were restarted: nothing more is done."),
            ("text", "string", "What it is doing, or why it does nothing."),
        ],
    ),
    ("Counts", "Members by role.", &[("hot", "integer", ""), ("warm", "integer", ""), ("spare", "integer", "")]),
    (
        "Transition",
        "A change of the hot member that is under way.",
        &[
            ("attempt", "integer", ""),
            ("why", "Reason", ""),
            ("from", "string?", ""),
            ("to", "string?", ""),
            ("planned", "boolean", ""),
            ("phase", "draining|fencing|choosing|promoting", ""),
        ],
    ),
    (
        "Problem",
        "What is wrong, with a group or beyond the groups.",
        &[
            ("code", "string", ""),
            ("severity", "down|bare|notice", "Requests are not served; the next loss is not survived; a person should look."),
            ("title", "string", ""),
            ("advice", "string", ""),
        ],
    ),
    (
        "MemberStatus",
        "One member.",
        &[
            ("name", "string", "GROUP/MEMBER"),
            ("node", "string", ""),
            ("address", "string", "Where it serves."),
            ("role", "hot|warm|spare", ""),
            ("serving", "boolean", "It takes requests."),
            ("life", "running|stopped|unknown", ""),
            ("stopped", "string?", "Why it stopped."),
            ("ready", "boolean", "Its own node's probe is answered."),
            ("why_unready", "string", ""),
            ("drained", "boolean", "By itself; its node may be drained too."),
            ("unfit", "Unfit?", "Why it could not serve now."),
            ("held_down_ms", "integer?", "It failed lately: for so long another is preferred."),
            (
                "former_engine",
                "boolean",
                "It started before its engine's configuration changed; told of the answering node's members only.",
            ),
            ("pid", "integer?", "Of its program, where it runs on the answering node."),
            ("incarnation", "integer", "The number of its life."),
            ("priority", "integer", ""),
            ("weight", "integer", ""),
        ],
    ),
    ("Unfit", "Why a member cannot become hot.", &[("code", "string", ""), ("text", "string", "")]),
    (
        "Reason",
        "Why something was decided or refused.",
        &[
            ("code", "string", "For programs; its page is docs/reference/reasons/CODE.md."),
            ("text", "string", "For people."),
            ("refusal", "boolean", "A rule forbade something."),
            (
                "rules",
                "[string]",
                "The safety rules by which it is as it is, as docs/internals/safety.md numbers them; empty where none of them governs it.",
            ),
            ("member", "string?", ""),
            ("node", "string?", ""),
            ("epoch", "integer?", ""),
            ("pause", "Phases?", "How long requests waited, with the code `opened`."),
        ],
    ),
    (
        "Phases",
        "The parts of a change of the hot member.",
        &[
            ("pause_ms", "integer", "All of it."),
            ("detect_ms", "integer", ""),
            ("fence_ms", "integer", ""),
            ("choose_ms", "integer", ""),
            ("promote_ms", "integer", ""),
        ],
    ),
    (
        "Event",
        "What happened, as the answering node recorded it.",
        &[
            ("number", "integer", "Counts the answering node's records since its start; 0 in answers to writes."),
            (
                "time",
                "string",
                "RFC 3339, UTC: when it was decided, by the clock of the node that led then; of `here-...`, and in answers to writes, by the answering node's.",
            ),
            ("at_ms", "integer", "Log time."),
            ("group", "string?", ""),
            (
                "kind",
                "string",
                "`because` for a reason; else what was done: `open`, `close`, `promote`, `node-silent` and so on. `here-no-lease`, `here-leased`, `here-leader`, `here-ended`, `here-parked`, `here-5xx`, `here-5xx-over`: what the answering node saw of itself.",
            ),
            ("text", "string", ""),
            ("reason", "Reason?", ""),
        ],
    ),
    ("Events", "Oldest first.", &[("events", "[Event]", ""), ("newest", "integer", "The number of the newest event there is.")]),
    (
        "Why",
        "Why a group is as it is.",
        &[
            ("group", "string", ""),
            ("node", "string", "The answering node."),
            ("cut_off_ms", "integer?", "As in the node's status: what it tells is that old."),
            ("no_lease_ms", "integer?", "As in the node's status."),
            ("epoch", "integer", ""),
            ("now", "string", "What holds now."),
            ("transition", "string?", "The change under way and what it waits for."),
            ("refusal", "Reason?", ""),
            ("restart", "string?", "What a restart of members is doing, or why it does nothing."),
            ("problems", "[Problem]", ""),
            ("members", "[Standing]", ""),
            ("if_died", "[WhatIf]", "What would follow each death, by the same rules; empty on a node that holds no lease."),
        ],
    ),
    (
        "Standing",
        "A member's chances.",
        &[("member", "string", ""), ("role", "hot|warm|spare", ""), ("unfit", "Unfit?", "Null if it could be hot, or is.")],
    ),
    ("WhatIf", "One death and what follows.", &[("event", "string", ""), ("outcome", "string", ""), ("reasons", "[Reason]", "")]),
    (
        "Traffic",
        "What the answering node's router has counted since its start.",
        &[("node", "string", ""), ("at_ms", "integer", "Of the node's monotonic clock, for rates."), ("groups", "[GroupTraffic]", "")],
    ),
    (
        "GroupTraffic",
        "One group's.",
        &[
            ("group", "string", ""),
            ("epoch", "integer", ""),
            ("connections", "integer", ""),
            ("connections_now", "integer", ""),
            ("requests", "integer", "With tcp: connections that were given to a member."),
            ("retried", "integer", ""),
            ("parked", "integer", ""),
            ("parked_now", "integer", ""),
            ("parked_bytes_now", "integer", ""),
            ("failed", "{integer}", "Requests without a whole reply, by cause."),
            ("members", "[MemberTraffic]", ""),
        ],
    ),
    (
        "MemberTraffic",
        "One member's.",
        &[
            ("member", "string", ""),
            ("requests", "integer", ""),
            ("failed", "integer", ""),
            ("retried", "integer", ""),
            ("connects", "integer", ""),
            ("sent_bytes", "integer", "To the member."),
            ("received_bytes", "integer", "From the member."),
            ("in_flight", "integer", ""),
            ("replies", "{integer}", "By class of status, `1xx` to `5xx`, as the member answered; with tcp all 0."),
            ("ejected", "boolean", "Left out by this router for now: it is down, or answers 5xx."),
            ("first_byte_us", "any", "List of [upper bound in microseconds or null, count]; empty buckets are left out."),
            ("first_byte_sum_us", "integer", ""),
        ],
    ),
    ("Configuration", "The configuration in force.", &[("revision", "integer", ""), ("text", "string", "The file as it was applied.")]),
    (
        "Apply",
        "A configuration to judge, and to put into force.",
        &[
            ("text", "string", "The whole file."),
            ("revision", "integer", "The one it was made from; another one in force refuses it."),
            ("dry_run", "~boolean", "Judge it and change nothing; default false."),
        ],
    ),
    (
        "Applied",
        "What was judged, or came into force.",
        &[
            ("revision", "integer", "In force now."),
            ("dry_run", "boolean", ""),
            ("changes", "[string]", "What it does, a sentence each."),
            ("warnings", "[string]", "About the text."),
        ],
    ),
    ("Switchover", "A switchover.", &[("to", "~string?", "MEMBER or GROUP/MEMBER; default the best candidate.")]),
    (
        "Restart",
        "A restart of members, one after the other.",
        &[
            (
                "incarnations",
                "~{integer}?",
                "Which lives are to end, by member; default those of all that run. One that has ended is not ended again.",
            ),
            ("cancel", "~boolean", "Call off what is left of one instead; default false."),
        ],
    ),
    ("Resume", "The end of a pause.", &[("force", "~boolean", "You vouch that nodes which do not answer are stopped; default false.")]),
    ("Done", "What the entry in the log did at once; what follows comes as events.", &[("events", "[Event]", "")]),
    ("Reloaded", "Certificates in force.", &[("certificate", "CertificateStatus", "")]),
    ("Logs", "A member's output.", &[("member", "string", ""), ("lines", "[string]", "Oldest first.")]),
    ("LogLine", "One line of `logs` with `follow`.", &[("line", "string", "")]),
    (
        "Error",
        "Every answer that is not 2xx, but that of /health.",
        &[
            ("code", "string", "Such as HW0401."),
            ("error", "string", "For people."),
            ("hint", "string?", "What to do."),
            ("page", "string", "The code's page in the manual."),
            ("reason", "Reason?", "The rule that refused."),
            ("errors", "~[any]", "What is wrong with a configuration: code, severity, message, place, expected, hint of each."),
        ],
    ),
];

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in TABLE {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(route);
    }
    let schemas: Map<String, Value> = TYPES.iter().map(|ty| (ty.0.to_owned(), schema(ty))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "hotwarm", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The operator's API of one node. Reads answer on every node; writes on any, forwarded through the log.",
        },
        "servers": [{ "url": "http://127.0.0.1:7401" }],
        // Either the token, or nothing where the node's configuration names none.
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "What the file holds that `[node] api_token` names." },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split(['{', '}']).skip(1).step_by(2);
    let path = in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let query =
        route.query.iter().map(|(name, ty, what)| json!({ "name": name, "in": "query", "description": what, "schema": { "type": ty } }));
    let answer = match route.answer {
        "text" => json!({ "text/plain": { "schema": { "type": "string" } } }),
        name => json!({ "application/json": { "schema": notation(name) } }),
    };
    let mut responses = json!({ "200": { "description": "Done.", "content": answer } });
    for status in route.others {
        let name = if route.path == "/health" { "Health" } else { "Error" };
        let content = json!({ "application/json": { "schema": notation(name) } });
        responses[status.to_string()] = json!({ "description": meaning(*status), "content": content });
    }
    let is_open = route.path == gate::OPEN;
    if !is_open {
        let content = json!({ "application/json": { "schema": notation("Error") } });
        responses["401"] = json!({ "description": meaning(401), "content": content });
    }
    let name = route.path.trim_start_matches("/api/v1/").replace(['/', '-', '.'], "_").replace(['{', '}'], "");
    let mut operation = json!({
        "operationId": format!("{}_{}", route.method, name.trim_start_matches('_')),
        "summary": route.summary, "parameters": path.chain(query).collect::<Vec<_>>(), "responses": responses,
    });
    if is_open {
        operation["security"] = json!([]);
    }
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": notation(body) } } });
    }
    operation
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is not understood.",
        401 => "The node asks for its API's token.",
        404 => "There is no such thing.",
        409 => "A rule refuses it; nothing was changed.",
        413 => "The body is too long.",
        421 => "Only another node can tell.",
        422 => "The configuration is wrong.",
        503 => "Not now: down, no leader, or too much at once.",
        504 => "It is not known whether it was done.",
        _ => "Another status.",
    }
}

fn schema((_, what, fields): &Type) -> Value {
    let property = |(name, ty, what): &(&str, &str, &str)| {
        let mut schema = notation(ty.trim_start_matches('~'));
        if !what.is_empty() {
            schema["description"] = json!(what);
        }
        ((*name).to_owned(), schema)
    };
    let properties: Map<String, Value> = fields.iter().map(property).collect();
    let required: Vec<&str> = fields.iter().filter(|(_, ty, _)| !ty.starts_with('~')).map(|(name, ..)| *name).collect();
    json!({ "type": "object", "description": what, "properties": properties, "required": required, "additionalProperties": false })
}

fn notation(ty: &str) -> Value {
    let inside = |open: char, close: char| ty.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(ty) = ty.strip_suffix('?') {
        return json!({ "anyOf": [notation(ty), { "type": "null" }] });
    }
    if let Some(item) = inside('[', ']') {
        return json!({ "type": "array", "items": notation(item) });
    }
    if let Some(item) = inside('{', '}') {
        return json!({ "type": "object", "additionalProperties": notation(item) });
    }
    match ty {
        "any" => json!({}),
        "string" | "integer" | "boolean" => json!({ "type": ty }),
        words if words.contains('|') => json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

/// docs/reference/api.md.
#[cfg(test)]
fn page() -> String {
    let mut out = String::from(include_str!("page.md"));
    out.push_str("\n## Requests\n");
    for route in TABLE {
        out.push_str(&format!("\n### {} {}\n\n{}\n", route.method.to_uppercase(), route.path, route.summary));
        let mut facts = Vec::new();
        facts.extend(route.query.iter().map(|(name, ty, what)| format!("`?{name}` ({ty}): {what}")));
        facts.extend(route.body.map(|body| format!("Body: {}.", linked(body))));
        facts.push(format!("Answer: {}.", linked(route.answer)));
        if !route.others.is_empty() {
            let others: Vec<String> = route.others.iter().map(ToString::to_string).collect();
            facts.push(format!("Other statuses: {}.", others.join(", ")));
        }
        out.push('\n');
        facts.iter().for_each(|fact| out.push_str(&format!("- {fact}\n")));
    }
    out.push_str("\n## Types\n");
    for (name, what, fields) in TYPES {
        out.push_str(&format!("\n### {name}\n\n{what}\n\n| field | type | meaning |\n|---|---|---|\n"));
        for (field, ty, what) in *fields {
            out.push_str(&format!("| `{field}` | {} | {what} |\n", linked(ty)));
        }
    }
    out
}

#[cfg(test)]
fn linked(ty: &str) -> String {
    let name = ty.trim_matches(['[', ']', '{', '}', '?', '~']);
    let what = match name {
        words if words.contains('|') => words.split('|').map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        name if name.starts_with(char::is_uppercase) => format!("[{name}](#{})", name.to_lowercase()),
        "text" => "text".to_owned(),
        "any" => "any JSON".to_owned(),
        name => name.to_owned(),
    };
    let what = match ty.trim_start_matches('~').trim_end_matches('?') {
        ty if ty.starts_with('[') => format!("list of {what}"),
        ty if ty.starts_with('{') => format!("table of {what}"),
        _ => what,
    };
    let null = if ty.ends_with('?') { ", or null" } else { "" };
    let absent = if ty.starts_with('~') { ", may be left out" } else { "" };
    format!("{what}{null}{absent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(|name| name.rsplit('/').next().unwrap().to_owned()));
                fields.values().for_each(|value| names_in(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| names_in(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_type_named_is_described_and_every_one_described_is_named() {
        let document = document();
        let mut named = Vec::new();
        names_in(&document, &mut named);
        named.push("LogLine".to_owned());
        named.sort();
        named.dedup();
        let mut described: Vec<String> = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        described.sort();
        assert_eq!(named, described);
        let mut ids: Vec<_> = document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values()).collect();
        ids.sort_by_key(|operation| operation["operationId"].to_string());
        ids.dedup_by_key(|operation| operation["operationId"].to_string());
        assert_eq!(ids.len(), TABLE.len(), "two operations share an id");
    }

    #[test]
    fn the_manual_is_the_description() {
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/api.md");
        if std::env::var_os("HOTWARM_REGENERATE").is_some_and(|value| value == "1") {
            std::fs::write(&path, page()).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap_or_default() == page(), "docs/reference/api.md differs; run scripts/fix");
    }
}
