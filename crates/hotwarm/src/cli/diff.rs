//! The difference of two texts by lines, as `diff -u` shows it: what `apply` asks about.
//!
//! It compares what lies between the common beginning and end; where that is too much to compare line by line, it shows one replaced by
//! the other.

/// Lines shown around a difference.
const CONTEXT: usize = 2;
/// Cells of the comparison's table, at most: 16 MiB.
const CELLS_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Lines that begin with `-`, `+` or a space; empty if the texts are equal.
pub(super) fn unified(old: &str, new: &str) -> String {
    let lines = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let differs: Vec<usize> = lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))).map(|(at, _)| at).collect();
    let mut out = String::new();
    let mut shown = 0;
    for at in differs {
        let (from, to) = (at.saturating_sub(CONTEXT).max(shown), (at + CONTEXT + 1).min(lines.len()));
        if from > shown || shown == 0 {
            let number = |skip: fn(&Line) -> bool| lines[..from].iter().filter(|line| !skip(line)).count() + 1;
            let (gone, new) = (number(|line| matches!(line, Line::New(_))), number(|line| matches!(line, Line::Gone(_))));
            out.push_str(&format!("@@ line {gone}, now {new} @@\n"));
        }
        // What follows a difference may hold the next one, which shows itself.
        let to = lines[at + 1..to].iter().position(|line| !matches!(line, Line::Same(_))).map_or(to, |next| at + 1 + next);
        for line in &lines[from..to] {
            let (sign, text) = match line {
                Line::Same(text) => (' ', text),
                Line::Gone(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            out.push_str(&format!("{sign}{text}\n"));
        }
        shown = to;
    }
    out
}

fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let before = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - after], &new_rest[..new_rest.len() - after]);
    let mut lines: Vec<Line> = old[..before].iter().map(|line| Line::Same(line)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) <= CELLS_MAX {
        longest_common(old_middle, new_middle, &mut lines);
    } else {
        lines.extend(old_middle.iter().map(|line| Line::Gone(line)));
        lines.extend(new_middle.iter().map(|line| Line::New(line)));
    }
    lines.extend(old_rest[old_rest.len() - after..].iter().map(|line| Line::Same(line)));
    lines
}

/// By the longest common subsequence: `length[i][j]` is that of `old[i..]` and `new[j..]`.
fn longest_common<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    let mut length = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            length[i * width + j] = if old[i] == new[j] {
                length[(i + 1) * width + j + 1] + 1
            } else {
                length[(i + 1) * width + j].max(length[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && length[(i + 1) * width + j] >= length[i * width + j + 1]) {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_come_with_their_surroundings() {
        assert_eq!(unified("a\nb\n", "a\nb\n"), "");
        assert_eq!(unified("a\nb\nc\nd\ne\nf\n", "a\nb\nc\nx\ne\nf\n"), "@@ line 2, now 2 @@\n b\n c\n-d\n+x\n e\n f\n");
        assert_eq!(unified("", "a\n"), "@@ line 1, now 1 @@\n+a\n");
        let old: String = (0..20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("3\n", "").replace("17\n", "17\n17b\n");
        let diff = unified(&old, &new);
        assert_eq!(diff.matches("@@").count(), 4, "two places: {diff}");
        assert!(diff.contains("-3\n") && diff.contains("-13\n") && diff.contains("+17b\n"), "{diff}");
    }

    #[test]
    fn the_difference_makes_the_new_of_the_old() {
        let cases = [("a\nb\nc", "c\nb\na"), ("x\nx\nx", "x\ny\nx\nx"), ("1\n2\n3\n4", "0\n2\n4\n5"), ("", ""), ("a", "")];
        for (old, new) in cases {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            let lines = compare(&old, &new);
            let kept = |skip: fn(&Line) -> bool| {
                let kept = lines.iter().filter(|line| !skip(line));
                kept.map(|(Line::Same(text) | Line::Gone(text) | Line::New(text))| *text).collect::<Vec<_>>()
            };
            assert_eq!(kept(|line| matches!(line, Line::New(_))), old);
            assert_eq!(kept(|line| matches!(line, Line::Gone(_))), new);
        }
    }
}
