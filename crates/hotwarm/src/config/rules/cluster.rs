//! Rules about nodes, votes, lease and data directories.

use hotwarm_core::ids::NodeId;

use super::super::data::{Unfit, fit, is_system};
use super::super::diagnostic::{Findings, Span};
use super::super::draft::Draft;
use super::super::units::show_duration;
use super::HEARTBEATS_PER_LEASE;
use crate::codes::Code;

pub(super) fn judge(draft: &Draft<'_>, node: Option<&NodeId>, findings: &mut Findings) {
    names(draft, node, findings);
    votes(draft, findings);
    lease(draft, findings);
    data(draft, findings);
}

fn names(draft: &Draft<'_>, node: Option<&NodeId>, findings: &mut Findings) {
    for (name, at) in &draft.nodes {
        if ["name", "data", "api"].contains(&name.as_str()) {
            findings
                .error(Code::BAD_NAME, &at.name_span, format!("a node cannot be called `{name}`"))
                .expected("another name")
                .hint(format!("[node.{name}] would mean a key of [node]"));
        }
    }
    let known: Vec<&str> = draft.nodes.keys().map(NodeId::as_str).collect();
    let hint = || format!("the cluster's nodes are {}", known.join(", "));
    match (node, draft.own_name()) {
        (Some(node), _) if !draft.nodes.contains_key(node) => {
            findings.error(Code::UNKNOWN_NODE, &draft.nodes_span, format!("this node, `{node}`, is not among them")).hint(hint());
        }
        (None, Some(own)) if !draft.nodes.contains_key(&own.value) => {
            findings.error(Code::UNKNOWN_NODE, &own.span, format!("the cluster has no node `{}`", own.value)).hint(hint());
        }
        _ => {}
    }
    for (name, span) in &draft.edge {
        if draft.witness.contains_key(name) {
            findings
                .error(Code::CHOOSE_ONE, span, format!("`{name}` is both witness and edge"))
                .expected("a witness votes, an edge node does not: keep one");
        }
    }
}

fn votes(draft: &Draft<'_>, findings: &mut Findings) {
    let voters = draft.voters().len();
    let span: &Span = &draft.nodes_span;
    if voters > 0
        && draft.voters().iter().all(|voter| draft.witness.contains_key(voter))
        && let Some(witness) = draft.witness.values().min_by_key(|span| span.start)
    {
        findings
            .error(Code::NO_HOST, witness, "every voter is a witness, and a witness holds no member")
            .expected("at least one voter that is not in witness")
            .hint("two machines and one witness are the smallest cluster that survives the loss of one");
    }
    match (draft.nodes.len(), voters) {
        (_, 0) => {
            findings
                .error(Code::NO_VOTER, span, "no node votes")
                .expected("at least one node that is not in edge")
                .hint("three voters survive the loss of one");
        }
        (1, _) => {
            findings
                .warn(Code::ONE_NODE, span, "one node: the loss of the machine is not covered")
                .hint("fine for development; for more, two machines and a witness are the smallest cluster that survives the loss of one");
        }
        (_, 2) => {
            findings
                .warn(Code::TWO_NODES, span, "two voters: the loss of either stops every decision, so no loss is survived automatically")
                .expected("a third voter")
                .hint("add a witness: any small machine, also far away; it votes and hosts nothing");
        }
        (_, voters) if voters.is_multiple_of(2) => {
            let survives = (voters - 1) / 2;
            findings
                .warn(Code::EVEN_VOTERS, span, format!("{voters} voters survive the loss of {survives}, no more than {} would", voters - 1))
                .expected("an odd number of voters")
                .hint("add a witness, or list one node in edge");
        }
        _ => {}
    }
}

fn data(draft: &Draft<'_>, findings: &mut Findings) {
    for (_, at) in draft.data.iter().filter(|(_, at)| is_system(&at.value)) {
        no_data(&at.span, &Unfit::System { path: at.value.clone() }, findings);
    }
}

/// What this machine's directories say against being data directories.
pub(super) fn data_here(draft: &Draft<'_>, here: Option<&NodeId>, findings: &mut Findings) {
    let own = draft.own_name().map(|own| own.value);
    let here = here.or(own.as_ref());
    let has_own = here.is_some_and(|here| draft.data.iter().any(|(node, _)| node.as_ref() == Some(here)));
    for (node, at) in &draft.data {
        let meant = here.is_none() || if has_own { node.as_ref() == here } else { node.is_none() };
        if !meant || is_system(&at.value) {
            continue;
        }
        match fit(&at.value) {
            // Who may not look there cannot tell.
            Ok(()) | Err(Unfit::Unreadable { .. }) => {}
            Err(unfit) => no_data(&at.span, &unfit, findings),
        }
    }
}

fn no_data(span: &Span, unfit: &Unfit, findings: &mut Findings) {
    let finding = findings.error(Code::DATA_DIRECTORY, span, unfit.to_string());
    finding.expected("a directory that is new, empty or hotwarm's already, at least two names deep").hint(match unfit {
        Unfit::System { .. } | Unfit::Unreadable { .. } => "\"/var/lib/hotwarm\" is the usual one",
        Unfit::NotADirectory { .. } => "move the file away, or give another path",
        Unfit::Foreign { .. } => "hotwarm closes its directory to everyone else (mode 0700): give it one of its own",
    });
}

fn lease(draft: &Draft<'_>, findings: &mut Findings) {
    let (lease, heartbeat) = (&draft.lease, &draft.heartbeat);
    if lease.value < heartbeat.value * HEARTBEATS_PER_LEASE {
        findings
            .error(
                Code::LEASE_TOO_SHORT,
                &lease.span,
                format!(
                    "a lease of {} with heartbeats every {} would end by one lost packet",
                    show_duration(lease.value),
                    show_duration(heartbeat.value)
                ),
            )
            .expected(format!("lease of at least {}", show_duration(heartbeat.value * HEARTBEATS_PER_LEASE)))
            .hint("lengthen lease or shorten heartbeat in [cluster]");
    }
}
