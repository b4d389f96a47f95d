//! For a pull request.

use std::fmt::Write as _;

use crate::paste::Paste;
use crate::view::{Entry, View};

pub(super) fn render(report: &impl View) -> String {
    let mut text = format!("### {}\n\n", escaped(&report.title()));
    let table = report.table(false);
    if !table.rows.is_empty() {
        let _infallible = writeln!(text, "| {} |", table.header.join(" | "));
        let _infallible = writeln!(text, "|{}", "---|".repeat(table.header.len()));
        for row in &table.rows {
            let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
            let _infallible = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    for line in report.summary() {
        let _infallible = writeln!(text, "{}\n", escaped(&line));
    }
    for section in report.sections().iter().filter(|section| !section.entries.is_empty()) {
        let _infallible = writeln!(text, "#### {}\n", section.title);
        for Entry { text: line, fixes } in &section.entries {
            let _infallible = writeln!(text, "- {}", escaped(line));
            for fix in fixes {
                let (language, code) = match &fix.paste {
                    Paste::Command(code) => ("sh", code),
                    Paste::Yaml(code) => ("yaml", code),
                };
                let fence = fence(code);
                let _infallible = writeln!(text, "\n  {}:\n\n  {fence}{language}", escaped(&fix.what));
                for line in code.lines() {
                    let _infallible = writeln!(text, "  {line}");
                }
                let _infallible = writeln!(text, "  {fence}");
            }
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Text that means nothing to Markdown, nor to a forge: no HTML, emphasis, code, link, mention or reference.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '@' | '#' | '|' | '`' | '*' | '_' | '[' | ']' | '~' | '\\' | '!' | '$' => {
                let _infallible = write!(safe, "&#{};", u32::from(c));
            }
            _ => safe.push(c),
        }
    }
    // What would become a link by itself.
    safe.replace("://", "&#58;//").replace("www.", "www&#46;")
}

/// Longer than any that is in the code.
fn fence(code: &str) -> String {
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_nothing_to_markdown() {
        let hostile = "<img src=x>|`a`[b](c)*d*_e_@org/team #1 https://x www.y";
        let safe = escaped(hostile);
        assert!(!safe.contains(['<', '>', '|', '`', '[', ']', '*', '_', '@']), "{safe}");
        assert!(!safe.contains("://") && !safe.contains("www.") && !safe.contains(" #1"), "{safe}");
    }

    #[test]
    fn a_fence_cannot_be_closed_from_within() {
        assert_eq!((fence("a").as_str(), fence("a: ```\n````").as_str()), ("```", "`````"));
    }
}
