//! JUnit XML, as Jenkins, GitLab and GitHub's actions read it.

use std::fmt::Write as _;

use crate::view::{Case, Outcome, View};

pub(super) fn render(report: &impl View) -> String {
    let cases = report.cases();
    let number = |of: fn(&Outcome) -> bool| cases.iter().filter(|case| of(&case.outcome)).count();
    let failures = number(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let errors = number(|outcome| matches!(outcome, Outcome::Error { .. }));
    let (title, tests) = (escaped(&report.title()), cases.len());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"");
    let _infallible = writeln!(text, "<testsuites name=\"portcullis\" {counts}>");
    let _infallible = writeln!(text, "  <testsuite name=\"{title}\" {counts} skipped=\"0\" time=\"0\">");
    for case in &cases {
        write_case(&mut text, case);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn write_case(text: &mut String, Case { class, name, outcome }: &Case) {
    let (class, name) = (escaped(class), escaped(name));
    let _infallible = match outcome {
        Outcome::Passed => writeln!(text, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"0\"/>"),
        Outcome::Failed { kind, message, details } => writeln!(
            text,
            "    <testcase classname=\"{class}\" name=\"{name}\" time=\"0\">\n      <failure type=\"{kind}\" message=\"{}\">{}</failure>\n    \
             </testcase>",
            escaped(message),
            escaped(details)
        ),
        Outcome::Error { kind, message } => writeln!(
            text,
            "    <testcase classname=\"{class}\" name=\"{name}\" time=\"0\">\n      <error type=\"{kind}\" message=\"{}\"/>\n    </testcase>",
            escaped(message)
        ),
    };
}

/// For text and for values of attributes. What XML 1.0 has no characters for is replaced.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn no_text_ends_an_element_or_an_attribute() {
        assert_eq!(escaped("a\"'<]]>&\u{1}\u{ffff}"), "a&quot;&apos;&lt;]]&gt;&amp;\u{fffd}\u{fffd}");
    }
}
