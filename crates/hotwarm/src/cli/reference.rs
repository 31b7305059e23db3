//! The manual's page of the command line: every command's `--help`, as the program prints it.

use super::definition;

/// Columns of the manual; the program itself uses what the terminal has, up to as many.
const WIDTH: usize = 100;

/// The page as Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Commands\n\n<!-- Generated from the definitions in crates/hotwarm/src/cli; do not edit. `scripts/fix` writes it anew. -->\n\n\
         Each section is what `--help` prints.\n",
    );
    let mut root = definition().term_width(WIDTH);
    root.build();
    command(&mut root, &mut page);
    page
}

fn command(definition: &mut clap::Command, page: &mut String) {
    let name = definition.get_bin_name().unwrap_or(definition.get_name()).to_owned();
    let help = definition.render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", lines.join("\n")));
    for sub in definition.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
        command(sub, page);
    }
}
