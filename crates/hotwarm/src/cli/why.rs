//! `hotwarm why`: why a group is as it is.
//!
//! What holds now, the change under way and what it waits for, the refusal, what each member lacks, what a death would bring.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Global;
use super::failure::{Failure, print};
use super::remote::{client, part, print_json};
use super::status::unleased;
use super::table::{Table, Tone, colour, paint, plain};
use crate::api::types::{Reason, Why};

/// Explain a group: what holds its state, which rule refuses what, what if a member died now
#[derive(Debug, Args)]
pub struct WhyArgs {
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
}

pub(super) fn why(args: &WhyArgs, global: &Global) -> Result<(), Failure> {
    let why: Why = client(global)?.get(&format!("/api/v1/groups/{}/why", part(&args.group)))?;
    if global.json {
        return print_json(&why);
    }
    print(&text(&why, colour()))
}

fn text(why: &Why, colour: bool) -> String {
    let mut out = String::new();
    if let Some(first) = unleased(&why.node, why.cut_off_ms, why.no_lease_ms) {
        out.push_str(&format!("{}\n", paint(&first, Tone::Bad, colour)));
    }
    out.push_str(&format!("{}: {}\n", paint(&why.group, Tone::Strong, colour), why.now));
    if let Some(transition) = &why.transition {
        out.push_str(&format!("change   {transition}\n"));
    }
    if let Some(restart) = &why.restart {
        out.push_str(&format!("restart  {restart}\n"));
    }
    if let Some(refusal) = &why.refusal {
        out.push_str(&refused(refusal));
    }
    for problem in &why.problems {
        out.push_str(&format!("{:<7}  {}\n", problem.severity, problem.title));
        if !problem.advice.is_empty() {
            out.push_str(&format!("         {}\n", problem.advice));
        }
    }
    let knows = why.no_lease_ms.is_none();
    let mut members =
        Table::new(if knows { &["MEMBER", "ROLE", "COULD IT BE HOT"] } else { &["MEMBER", "ROLE", "COULD IT, WHEN LAST KNOWN"] });
    for standing in &why.members {
        let could = match &standing.unfit {
            None if standing.role == "hot" => (if knows { "it is" } else { "it was" }.to_owned(), Tone::Good),
            None => ("yes".to_owned(), Tone::Good),
            Some(unfit) if unfit.code == "spare" => ("once it is started: it is a spare".to_owned(), Tone::Plain),
            Some(unfit) => (format!("no: {}", unfit.text), Tone::Doubtful),
        };
        members.row([plain(&standing.member), plain(&standing.role), could]);
    }
    out.push('\n');
    out.push_str(&members.text(colour));
    if !why.if_died.is_empty() {
        let mut what_if = Table::new(&["IF", "THEN"]);
        for case in &why.if_died {
            what_if.row([plain(&case.event), plain(&case.outcome)]);
        }
        out.push('\n');
        out.push_str(&what_if.text(colour));
    }
    out
}

/// The code has a page, the rules a table in docs/internals/safety.md.
fn refused(why: &Reason) -> String {
    let rules: String = why.rules.iter().map(|rule| format!(", {rule}")).collect();
    format!("refused  {} ({}{rules})\n", why.text, why.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_names_its_rules() {
        let told = serde_json::json!({ "code": "fence-waits", "text": "nobody", "refusal": true, "rules": ["S6", "S8"] });
        assert_eq!(refused(&serde_json::from_value(told).unwrap()), "refused  nobody (fence-waits, S6, S8)\n");
        let of_an_older_node = serde_json::json!({ "code": "last-one", "text": "one", "refusal": true });
        assert_eq!(refused(&serde_json::from_value(of_an_older_node).unwrap()), "refused  one (last-one)\n");
    }
}
