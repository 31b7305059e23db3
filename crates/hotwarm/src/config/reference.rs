//! The manual's page of the configuration, printed from the schema: what a key is said to be is what is read.

use super::schema::{self, Kind, OneOf, Section, Unset};

const HEAD: &str = "# Configuration

<!-- Generated from the schema in crates/hotwarm/src/config/schema.rs; do not edit. `scripts/fix` writes it anew. -->

One TOML file, the same on every node: `/etc/hotwarm/hotwarm.toml`. `hotwarm check FILE` reports everything that is wrong with it at once and says
which losses the design survives. Unknown keys are errors.

Durations are whole numbers with a unit: `250ms`, `10s`, `2m`, `1h`, `7d`. Sizes are powers of 1024: `512B`, `64KiB`, `16MiB`, `1GiB`. Addresses
are IP addresses with a port; names are 1 to 32 of `a-z`, `0-9`, `-`. Programs are lists, never shell lines.
";

/// What `engine::place::environment` puts there; a test of it compares the two.
const ENVIRONMENT: &str = "
## Environment of members and hooks

A member's program, its hooks (`command`, `on_role_change.command`, `fence`) and a `check.command` are started in the directory `/` (a program in its `directory`)
with this environment, and nothing else of hotwarm's own:

- `HOTWARM_GROUP`: the group, such as `ledger`.
- `HOTWARM_MEMBER`: the member with its group, such as `ledger/a`.
- `HOTWARM_ROLE`: `hot` or `warm`; what the member is to be from now on. A program that runs on is told of a change by `on_role_change`; a `check.command` should not rely on it.
- `HOTWARM_EPOCH`: the epoch of that role; it only ever grows within a group. For a fence: no older epoch may serve any more.
- `HOTWARM_LISTEN`: the member's address, such as `10.0.0.1:9100`: where its program has to listen.
- `HOTWARM_INCARNATION`: the number of the member's life, new at each start.
- `PATH` (where hotwarm has none, the usual one), `LANG`, `LC_ALL`, `TZ`, `HOME`, `TMPDIR`: hotwarm's own, if it has them.
- What the engine's `env` says; it wins over the line before, and cannot set `HOTWARM_...`.
";

/// The page as Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(HEAD);
    for section in [&schema::CLUSTER, &schema::NODE, &schema::GROUP] {
        with_tables(section, &mut page);
    }
    page.push_str(ENVIRONMENT);
    page
}

/// A table and then those inside it.
fn with_tables(section: &'static Section, page: &mut String) {
    section_page(section, page);
    let mut inside = Vec::new();
    for kind in section.keys.iter().map(|key| &key.kind).chain(section.rest.iter().map(|rest| &rest.kind)) {
        tables(kind, &mut inside);
    }
    inside.into_iter().for_each(|section| with_tables(section, page));
}

/// The tables that a value may be, in the order in which they are mentioned.
fn tables(kind: &'static Kind, waiting: &mut Vec<&'static Section>) {
    match kind {
        Kind::Table(section) => waiting.push(section),
        Kind::Map(rest) => tables(&rest.kind, waiting),
        Kind::List(item) => tables(item, waiting),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| tables(kind, waiting)),
        _ => {}
    }
}

fn section_page(section: &Section, page: &mut String) {
    let title = if section.title.starts_with('[') { format!("`{}`", section.title) } else { format!("`{} = {{ ... }}`", section.title) };
    page.push_str(&format!("\n## {title}\n\n{}\n", section.doc));
    match section.one_of {
        OneOf::Free => {}
        OneOf::Exactly(names) => page.push_str(&format!("\nExactly one of {} is given.\n", quoted(names))),
        OneOf::AtMost(names) => page.push_str(&format!("\nAt most one of {} is given.\n", quoted(names))),
    }
    page.push_str("\n| key | is | default | meaning | example |\n|---|---|---|---|---|\n");
    for key in section.keys {
        let default = match key.default {
            Unset::Required => "required".to_owned(),
            Unset::Is("{}") if matches!(key.kind, Kind::Table(_)) => "its own defaults".to_owned(),
            Unset::Is("{}" | "[]") => "none".to_owned(),
            Unset::Is(text) => format!("`{text}`"),
            Unset::Absent(text) => text.to_owned(),
        };
        let cells = [format!("`{}`", key.name), words(&key.kind), default, key.doc.to_owned(), format!("`{}`", key.example)];
        page.push_str(&format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Like the words of an error, with a table named by its heading.
fn words(kind: &Kind) -> String {
    match kind {
        Kind::Table(section) => format!("a table, see `{}`", section.title),
        Kind::Map(rest) => format!("a table: {} = {}", rest.names, words(&rest.kind)),
        Kind::List(item) => format!("a list, each {}", words(item)),
        Kind::Either(kinds) => kinds.iter().map(words).collect::<Vec<_>>().join("; or "),
        _ => kind.words(),
    }
}
