//! The one table of what the API answers: the server mounts it, the OpenAPI document is made from it, and a test asks for every row.

use axum::routing::{MethodRouter, get, post};

use super::{App, read, write};

/// One row.
pub(super) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub summary: &'static str,
    /// Name, type (`integer`, `string`, `boolean`), meaning.
    pub query: &'static [(&'static str, &'static str, &'static str)],
    /// The schema of the body, if it takes one.
    pub body: Option<&'static str>,
    /// The schema of the answer; `[Name]` is a list; `text` is plain text; `any` is free JSON.
    pub answer: &'static str,
    /// Statuses beside 200 that it may answer with.
    pub others: &'static [u16],
    pub handler: fn() -> MethodRouter<App>,
}

const FOLLOW: (&str, &str, &str) = ("follow", "boolean", "Go on: one JSON object a line (application/x-ndjson); empty lines mean nothing.");

const READ: Route =
    Route { method: "get", path: "", summary: "", query: &[], body: None, answer: "", others: &[], handler: || get(read::health) };
const WRITE: Route = Route { method: "post", others: &[400, 404, 409, 503, 504], answer: "Done", ..READ };

/// The methods of a path of the table, for the header `Allow` (RFC 9110, 15.5.6).
pub(super) fn allowed(path: &str) -> String {
    let methods = TABLE.iter().filter(|route| route.path == path).map(|route| if route.method == "get" { "GET, HEAD" } else { "POST" });
    methods.collect::<Vec<_>>().join(", ")
}

/// Every row there is.
pub(super) const TABLE: &[Route] = &[
    Route {
        path: "/health",
        summary: "200 UP or 503 DOWN, with the reasons: a leader, a lease, the node's own health, every group served.",
        answer: "Health",
        others: &[503],
        ..READ
    },
    Route { path: "/metrics", summary: "Metrics in Prometheus's text format.", answer: "text", handler: || get(read::prometheus), ..READ },
    Route { path: "/api/v1/openapi.json", summary: "This description.", answer: "any", handler: || get(read::described), ..READ },
    Route {
        path: "/api/v1/status",
        summary: "Cluster, nodes, groups, members and problems, as this node sees them.",
        answer: "Status",
        handler: || get(read::status),
        ..READ
    },
    Route { path: "/api/v1/nodes", summary: "The nodes.", answer: "[NodeStatus]", handler: || get(read::nodes), ..READ },
    Route { path: "/api/v1/groups", summary: "The groups.", answer: "[GroupStatus]", handler: || get(read::groups), ..READ },
    Route {
        path: "/api/v1/groups/{group}",
        summary: "One group.",
        answer: "GroupStatus",
        others: &[404],
        handler: || get(read::group),
        ..READ
    },
    Route {
        path: "/api/v1/groups/{group}/why",
        summary: "Why the group is as it is, and what would follow if a member died now.",
        answer: "Why",
        others: &[404],
        handler: || get(read::why),
        ..READ
    },
    Route {
        path: "/api/v1/events",
        summary: "What happened, oldest first, as this node recorded it; without `after` the newest.",
        query: &[
            ("after", "integer", "Only events with a larger number. Numbers count from the node's start."),
            ("limit", "integer", "At most so many of the past; default 50, at most 1000."),
            ("group", "string", "Only this group's."),
            FOLLOW,
        ],
        answer: "Events",
        others: &[400],
        handler: || get(read::events),
        ..READ
    },
    Route {
        path: "/api/v1/traffic",
        summary: "What this node's router has counted since its start.",
        answer: "Traffic",
        handler: || get(read::traffic),
        ..READ
    },
    Route {
        path: "/api/v1/members/{group}/{member}/logs",
        summary: "What a member of this node printed, oldest line first. 421 on any other node than the member's own.",
        query: &[("lines", "integer", "At most so many; default 100, at most 10000."), FOLLOW],
        answer: "Logs",
        others: &[400, 404, 421],
        handler: || get(read::logs),
        ..READ
    },
    Route {
        path: "/api/v1/config",
        summary: "The configuration in force.",
        answer: "Configuration",
        handler: || get(read::config),
        ..READ
    },
    Route {
        path: "/api/v1/config",
        summary: "Judge a configuration and put it into force. 422: it is wrong. 409: the cluster refuses it as it is now.",
        body: Some("Apply"),
        answer: "Applied",
        others: &[400, 409, 413, 422, 503, 504],
        handler: || post(write::configure),
        ..WRITE
    },
    Route {
        path: "/api/v1/groups/{group}/switchover",
        summary: "Make another member hot, without losing a request. Answered when it has begun; events tell the rest.",
        body: Some("Switchover"),
        handler: || post(write::switchover),
        ..WRITE
    },
    Route {
        path: "/api/v1/groups/{group}/restart",
        summary: "Restart members one after the other, a hot one only when others serve. Answered when it is in the log; events tell the rest.",
        body: Some("Restart"),
        handler: || post(write::restart_group),
        ..WRITE
    },
    Route {
        path: "/api/v1/groups/{group}/pause",
        summary: "Suspend automation for the group: no promotion, no lease expiry.",
        handler: || post(write::pause),
        ..WRITE
    },
    Route {
        path: "/api/v1/groups/{group}/resume",
        summary: "End the pause.",
        body: Some("Resume"),
        handler: || post(write::resume),
        ..WRITE
    },
    Route {
        path: "/api/v1/members/{group}/{member}/restart",
        summary: "Restart a member: it hands over or drains first, and ends only when all others are well.",
        handler: || post(write::restart_member),
        ..WRITE
    },
    Route {
        path: "/api/v1/members/{group}/{member}/drain",
        summary: "Take a member out of service, gently.",
        handler: || post(write::drain_member),
        ..WRITE
    },
    Route {
        path: "/api/v1/members/{group}/{member}/undrain",
        summary: "Let it serve again.",
        handler: || post(write::undrain_member),
        ..WRITE
    },
    Route {
        path: "/api/v1/nodes/{node}/drain",
        summary: "Take every member of a node out of service, gently.",
        handler: || post(write::drain_node),
        ..WRITE
    },
    Route { path: "/api/v1/nodes/{node}/undrain", summary: "Let them serve again.", handler: || post(write::undrain_node), ..WRITE },
    Route {
        path: "/api/v1/certificates/reload",
        summary: "Read this node's installed certificates again; nothing is interrupted.",
        answer: "Reloaded",
        others: &[400, 409],
        handler: || post(write::reload_certificates),
        ..WRITE
    },
];
