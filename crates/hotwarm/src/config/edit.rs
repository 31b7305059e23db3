//! One change to a file's text that leaves everything else, comments too, as it was: taking a node out.
//!
//! The result is judged like any other file; what that finds the user mends by hand. Main path: [`without_node`].

use std::ops::Range;

use hotwarm_core::ids::NodeId;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{Errors, parse};

/// `text` without the node: its address, zone and overrides, its members and listeners.
///
/// # Errors
/// What is wrong with the text before or after.
pub fn without_node(text: &str, node: &NodeId) -> Result<String, Errors> {
    without(text, node, true)
}

/// `text` without what the node does for groups: its members and, where they are given node by node, its listeners.
///
/// # Errors
/// What is wrong with the text before or after.
pub fn without_work_of(text: &str, node: &NodeId) -> Result<String, Errors> {
    without(text, node, false)
}

fn without(text: &str, node: &NodeId, itself: bool) -> Result<String, Errors> {
    let config = parse(text, "the configuration in force", None)?;
    let members: Vec<(&str, &str)> = config
        .groups
        .values()
        .flat_map(|group| group.members.iter().filter(|(_, m)| m.node == *node).map(|(id, _)| (group.name.as_str(), id.name())))
        .collect();
    let (root, _) = DeTable::parse_recoverable(text);
    let mut cuts = Cuts { text, ranges: Vec::new() };
    if let Some(cluster) = table(root.get_ref(), "cluster").filter(|_| itself) {
        cuts.key_of(cluster, "nodes", node.as_str());
        cuts.key_of(cluster, "zones", node.as_str());
        cuts.item_of(cluster, "witness", node.as_str());
        cuts.item_of(cluster, "edge", node.as_str());
    }
    if itself {
        cuts.key_of(root.get_ref(), "node", node.as_str());
    }
    for (name, group) in table(root.get_ref(), "group").into_iter().flat_map(|groups| groups.iter()) {
        let Some(group) = group.get_ref().as_table() else { continue };
        cuts.key_of(group, "listen", node.as_str());
        for (_, member) in members.iter().filter(|(of, _)| *of == name.get_ref().as_ref()) {
            cuts.key_of(group, "members", member);
        }
    }
    let text = cuts.done();
    parse(&text, &format!("the configuration without {node}"), None)?;
    Ok(text)
}

fn table<'a, 't>(of: &'a DeTable<'t>, key: &str) -> Option<&'a DeTable<'t>> {
    of.iter().find(|(name, _)| name.get_ref() == key).and_then(|(_, value)| value.get_ref().as_table())
}

/// Stretches of the text that go.
struct Cuts<'t> {
    text: &'t str,
    ranges: Vec<Range<usize>>,
}

impl Cuts<'_> {
    /// `key` of the table `parent.name`.
    fn key_of(&mut self, parent: &DeTable<'_>, name: &str, key: &str) {
        let entries = table(parent, name).into_iter().flat_map(|inner| inner.iter());
        let found: Vec<_> = entries.filter(|(found, _)| found.get_ref() == key).map(|(key, value)| self.whole(key, value)).collect();
        self.ranges.extend(found);
    }

    /// The item `word` of the list `parent.name`.
    fn item_of(&mut self, parent: &DeTable<'_>, name: &str, word: &str) {
        let list = parent.iter().find(|(key, _)| key.get_ref() == name).and_then(|(_, value)| value.get_ref().as_array());
        let items = list.into_iter().flat_map(|list| list.iter()).filter(|item| item.get_ref().as_str() == Some(word));
        let found: Vec<_> = items.map(|item| self.with_comma(item.span())).collect();
        self.ranges.extend(found);
    }

    /// From a key to its value's end, with what parts it from its neighbours.
    fn whole(&self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
        let (start, end) = (key.span().start, value.span().end.max(key.span().end));
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let before = self.text[line_start..start].trim();
        if before.starts_with('[') {
            // A section: its header and all lines until the next.
            let rest = &self.text[start..];
            let next =
                rest.match_indices('\n').map(|(at, _)| at + 1).find(|at| rest[*at..].trim_start_matches([' ', '\t']).starts_with('['));
            return line_start..next.map_or(self.text.len(), |at| start + at);
        }
        let line_end = self.text[end..].find('\n').map_or(self.text.len(), |at| end + at + 1);
        let after = self.text[end..line_end].trim();
        if before.is_empty() && (after.is_empty() || after.starts_with('#')) {
            return line_start..line_end;
        }
        self.with_comma(start..end)
    }

    /// An item of an inline table or list with the comma after it, or the one before it if it is the last.
    fn with_comma(&self, range: Range<usize>) -> Range<usize> {
        let after = &self.text[range.end..];
        let spaces = after.len() - after.trim_start().len();
        if after[spaces..].starts_with(',') {
            let next = &after[spaces + 1..];
            let gap = next.len() - next.trim_start_matches([' ', '\t']).len();
            return range.start..range.end + spaces + 1 + gap;
        }
        let before = self.text[..range.start].trim_end();
        if before.ends_with(',') { before.len() - 1..range.end } else { range }
    }

    fn done(mut self) -> String {
        self.ranges.sort_by_key(|range| range.start);
        let mut out = String::new();
        let mut at = 0;
        for range in self.ranges {
            // Two cuts may share a comma.
            out.push_str(&self.text[at..range.start.max(at)]);
            at = range.end.max(at);
        }
        out.push_str(&self.text[at..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# ours
[cluster]
name    = "shop"
nodes   = { a = "10.0.0.1:7400", b = "10.0.0.2:7400", c = "10.0.0.3:7400", d = "10.0.0.4:7400" } # four
witness = ["c"]
zones   = { a = "one", d = "two" }

[node.d]
api = "127.0.0.1:7411"   # other port

# the web
[group.web]
mode     = "hot-hot"
protocol = "http"
listen   = { a = "10.0.0.1:80", d = "10.0.0.4:80" }
engine   = { process = ["/bin/web"] }

[group.web.members]
a = "10.0.0.1:9080"
d = "10.0.0.4:9080" # the new one
old = { node = "d", address = "10.0.0.4:9081" }
"#;

    #[test]
    fn a_node_goes_with_all_that_is_its_own_and_nothing_else() {
        parse(TEXT, "f", None).unwrap();
        let text = without_node(TEXT, &"d".into()).unwrap();
        let expected = r#"# ours
[cluster]
name    = "shop"
nodes   = { a = "10.0.0.1:7400", b = "10.0.0.2:7400", c = "10.0.0.3:7400" } # four
witness = ["c"]
zones   = { a = "one" }

[group.web]
mode     = "hot-hot"
protocol = "http"
listen   = { a = "10.0.0.1:80" }
engine   = { process = ["/bin/web"] }

[group.web.members]
a = "10.0.0.1:9080"
"#;
        assert_eq!(text, expected);
        let idle = without_work_of(TEXT, &"d".into()).unwrap();
        assert!(
            idle.contains("d = \"10.0.0.4:7400\"") && idle.contains("[node.d]") && !idle.contains(":9081") && !idle.contains(":80,"),
            "{idle}"
        );
        assert!(without_node(&text, &"c".into()).unwrap().contains("witness = []"));
        assert!(without_node(&text, &"a".into()).is_err(), "the group would have no member");
    }
}
