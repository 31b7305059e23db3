//! Rules about sockets: two things on one machine never want the same one, and what others connect to can be reached by them.
//!
//! Nodes whose peer addresses share an IP address are taken for one machine, as in the demo and in tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hotwarm_core::ids::NodeId;

use super::super::diagnostic::{Findings, Span};
use super::super::draft::Draft;
use super::super::model::Engine;
use crate::codes::Code;

pub(super) fn judge(draft: &Draft<'_>, findings: &mut Findings) {
    reachable(draft, findings);
    at_home(draft, findings);
    let mut machines: BTreeMap<IpAddr, Vec<&NodeId>> = BTreeMap::new();
    for (node, at) in &draft.nodes {
        if let Some(address) = at.address {
            machines.entry(address.ip().to_canonical()).or_default().push(node);
        }
    }
    // One listener for all nodes is told of once.
    let mut told = Vec::new();
    for (ip, nodes) in &machines {
        collisions(&sockets(draft, *ip, nodes), &mut told, findings);
    }
}

/// One socket that will be opened on a machine.
struct Socket {
    address: SocketAddr,
    owner: String,
    span: Span,
}

fn sockets(draft: &Draft<'_>, machine: IpAddr, nodes: &[&NodeId]) -> Vec<Socket> {
    let mut sockets = Vec::new();
    let mut add = |address: SocketAddr, owner: String, span: &Span| sockets.push(Socket { address, owner, span: span.clone() });
    for node in nodes {
        let peer = &draft.nodes[*node];
        if let Some(address) = peer.address.filter(|address| !address.ip().is_unspecified()) {
            add(address, format!("node {node} for its peers"), &peer.span);
        }
        if let Some(api) = draft.apis.get(*node) {
            add(api.value, format!("the API of node {node}"), &api.span);
        }
    }
    for group in &draft.groups {
        for node in nodes {
            if let Some(listen) = group.listen.get(*node) {
                add(listen.value, format!("the listener of group {} on node {node}", group.name), &listen.span);
            }
        }
        let external = !matches!(group.engine, Some(Engine::Process(_)));
        for (member, at) in group.members.iter().filter(|(_, at)| nodes.contains(&&at.value.node)) {
            let ip = at.value.address.ip().to_canonical();
            // What hotwarm does not start may live on another machine.
            if !ip.is_unspecified() && (!external || ip == machine || ip.is_loopback()) {
                add(at.value.address, format!("member {member}"), &at.span);
            }
        }
    }
    sockets
}

fn collisions(sockets: &[Socket], told: &mut Vec<Span>, findings: &mut Findings) {
    for (n, second) in sockets.iter().enumerate() {
        if told.contains(&second.span) {
            continue;
        }
        if let Some(first) = sockets[..n].iter().find(|first| collide(first.address, second.address)) {
            told.push(second.span.clone());
            findings
                .error(Code::ADDRESS_IN_USE, &second.span, format!("{} and {} both want {}", first.owner, second.owner, second.address))
                .expected("an address of its own")
                .hint(match first.address == second.address {
                    true => "change one of the ports".to_owned(),
                    false => {
                        format!("{} covers every address of the machine; change one of the ports", wildcard(first.address, second.address))
                    }
                });
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let (left, right) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port() && (left == right || left.is_unspecified() || right.is_unspecified())
}

fn wildcard(a: SocketAddr, b: SocketAddr) -> SocketAddr {
    if a.ip().is_unspecified() { a } else { b }
}

/// Peers and members are connected to from other machines.
fn reachable(draft: &Draft<'_>, findings: &mut Findings) {
    let loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    let peers: Vec<SocketAddr> = draft.nodes.values().filter_map(|node| node.address).collect();
    let spread = peers.iter().any(|peer| !loopback(*peer));
    for (node, at) in &draft.nodes {
        let Some(address) = at.address else { continue };
        if let Some(what) = nobodys(address) {
            unreachable(&at.span, format!("node {node} cannot be reached at {address}{what}"), findings);
        } else if spread && loopback(address) {
            unreachable(&at.span, format!("the other nodes cannot reach node {node} at {address}"), findings);
        }
    }
    for (member, at) in draft.groups.iter().flat_map(|group| &group.members) {
        let address = at.value.address;
        if let Some(what) = nobodys(address) {
            unreachable(&at.span, format!("member {member} cannot be reached at {address}{what}"), findings);
        } else if spread && peers.len() > 1 && loopback(address) {
            unreachable(&at.span, format!("the routers of other nodes cannot reach member {member} at {address}"), findings);
        }
    }
    // One listener for all nodes is told of once.
    let mut told = Vec::new();
    for (group, at) in draft.groups.iter().flat_map(|group| group.listen.values().map(move |at| (group, at))) {
        if let Some(what) = nobodys(at.value).filter(|_| !at.value.ip().is_unspecified() && !told.contains(&&at.span)) {
            told.push(&at.span);
            findings
                .error(Code::UNREACHABLE_ADDRESS, &at.span, format!("clients cannot reach group {} at {}{what}", group.name, at.value))
                .expected(format!("\"0.0.0.0:{}\", or an address of the machine", at.value.port()));
        }
    }
    for group in draft.groups.iter().filter(|group| group.table.address("listen").is_some() && group.listen.len() > 1) {
        one_address(draft, group.listen.values().next().map(|at| (at.value, &at.span)), findings);
    }
}

/// Why no machine answers at the address; the words follow it. `Some("")` where the address says so itself.
fn nobodys(address: SocketAddr) -> Option<&'static str> {
    let ip = address.ip().to_canonical();
    match ip {
        _ if ip.is_unspecified() => Some(""),
        _ if ip.is_multicast() => Some(", a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some(", the broadcast address"),
        _ => None,
    }
}

/// A member runs, or is looked after, on its own node: at another node's address its life would be tied to the wrong machine.
fn at_home(draft: &Draft<'_>, findings: &mut Findings) {
    let ips: Vec<(&NodeId, IpAddr)> =
        draft.nodes.iter().filter_map(|(node, at)| at.address.map(|address| (node, address.ip().to_canonical()))).collect();
    for (member, at) in draft.groups.iter().flat_map(|group| &group.members) {
        let (node, ip) = (&at.value.node, at.value.address.ip().to_canonical());
        let Some((_, home)) = ips.iter().find(|(name, _)| *name == node).filter(|(_, home)| *home != ip && !ip.is_loopback()) else {
            continue;
        };
        if let Some((other, _)) = ips.iter().find(|(_, other)| *other == ip && !ip.is_unspecified()) {
            findings
                .error(
                    Code::OTHER_NODES_ADDRESS,
                    &at.span,
                    format!("member {member} is on node {node} and has the address of node {other}"),
                )
                .expected(format!("an address of node {node}, such as \"{}\"", SocketAddr::new(*home, at.value.address.port())))
                .hint(format!("or give the member to that node: {{ node = \"{other}\", address = \"{}\" }}", at.value.address));
        }
    }
}

fn unreachable(span: &Span, message: String, findings: &mut Findings) {
    findings.error(Code::UNREACHABLE_ADDRESS, span, message).expected("the machine's own address, as the others see it");
}

/// A listener for all nodes at an address that one of them has.
fn one_address(draft: &Draft<'_>, listen: Option<(SocketAddr, &Span)>, findings: &mut Findings) {
    let Some((address, span)) = listen else { return };
    let ip = address.ip().to_canonical();
    let elsewhere = draft.nodes.values().filter_map(|node| node.address).any(|peer| peer.ip().to_canonical() != ip);
    if !ip.is_unspecified() && !ip.is_loopback() && elsewhere {
        findings
            .warn(Code::ONE_ADDRESS, span, format!("{address} would be opened on every node, and one node at most has it"))
            .expected(format!("\"0.0.0.0:{}\", or an address per node", address.port()))
            .hint("fine if it is a virtual IP that moves and the system lets programs bind it everywhere");
    }
}
