//! The checks as linkerd prints them.

use std::fmt::Write as _;

use portcullis_report::check::{Check, CheckResult, Finding, Id, State, overall};

use crate::output::{Style, clean};

/// More findings of a check are counted.
const MOST_FINDINGS: usize = 50;
/// More proxies are counted.
const MOST_PROXIES: usize = 8;

/// Headings, a line for each check, and what is to be told of it.
pub(super) fn render(checks: &[Check], wide: bool, colour: bool) -> String {
    let mut text = String::new();
    let mut heading = "";
    let silent = checks.iter().any(|check| check.id == Id::ProxyAnswers && check.state == State::Failed);
    for check in checks {
        if check.category != heading {
            let gap = if heading.is_empty() { "" } else { "\n" };
            heading = check.category;
            let _infallible = writeln!(text, "{gap}{heading}\n{}", "-".repeat(heading.len()));
        }
        // What is said of every proxy is not known of those that do not answer.
        let of_some = silent && check.id > Id::ProxyAnswers && check.id != Id::ContainersSidecars;
        write_check(&mut text, check, if of_some { " (of those that answer)" } else { "" }, wide, colour);
    }
    let (state, words) = match overall(checks) {
        CheckResult::Well => (State::Passed, "nothing is wrong"),
        CheckResult::Warnings => (State::Passed, "nothing is wrong; the warnings are worth a look"),
        CheckResult::Unchecked => (State::Unchecked, "something could not be checked"),
        CheckResult::Unanswered => (State::Failed, "a proxy does not answer"),
        CheckResult::Expired => (State::Failed, "a certificate has expired, or is about to"),
        CheckResult::Failed => (State::Failed, "something is wrong"),
    };
    let _infallible = writeln!(text, "\nStatus check results are {}: {words}", mark(state, colour));
    text
}

fn write_check(text: &mut String, check: &Check, whose: &str, wide: bool, colour: bool) {
    let mark = mark(check.state, colour);
    // Of no proxy, and nothing to do about it here: why there is nothing to say.
    let is_about_none = |finding: &&Finding| finding.proxies.is_empty() && finding.remedy.is_none();
    if let (State::Skipped | State::Unchecked, Some(finding)) =
        (check.state, check.findings.first().filter(is_about_none))
    {
        let _infallible = writeln!(text, "{mark} {} ({})", check.title, clean(&finding.message));
        return;
    }
    let _infallible = writeln!(text, "{mark} {}{whose}", check.title);
    let told: Vec<&Finding> = check.findings.iter().filter(|finding| wide || finding.state >= State::Warning).collect();
    for finding in told.iter().take(MOST_FINDINGS) {
        write_finding(text, finding, check.state, colour);
    }
    if let more @ 1.. = told.len().saturating_sub(MOST_FINDINGS) {
        let _infallible = writeln!(text, "    and {more} more; -o json has all of them");
    }
    if check.state >= State::Warning {
        let _infallible = writeln!(text, "    see {} for hints", check.documentation);
    }
}

fn write_finding(text: &mut String, finding: &Finding, of_check: State, colour: bool) {
    let who = proxies(&finding.proxies);
    let gap = if who.is_empty() { "" } else { ": " };
    // The mark is repeated where it is another one than that of the check.
    let mark = if finding.state == of_check { String::new() } else { format!("{} ", mark(finding.state, colour)) };
    let _infallible = writeln!(text, "    {mark}{}{gap}{}", clean(&who), clean(&finding.message));
    for why in &finding.why {
        let _infallible = writeln!(text, "        {}", clean(why));
    }
    if let Some(remedy) = &finding.remedy {
        let _infallible = writeln!(text, "      fix: {}", clean(remedy));
    }
}

fn proxies(names: &[String]) -> String {
    let shown = names.iter().take(MOST_PROXIES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_PROXIES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The marks of linkerd, and two of our own.
fn mark(state: State, colour: bool) -> String {
    let (mark, style) = match state {
        State::Skipped => ("-", Style::Plain),
        State::Passed => ("√", Style::Good),
        State::Warning => ("‼", Style::Warn),
        State::Unchecked => ("?", Style::Warn),
        State::Failed => ("×", Style::Bad),
    };
    style.paint(mark, colour)
}
