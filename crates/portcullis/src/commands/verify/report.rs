//! The result as a table, JSON or JUnit's XML.

use std::fmt::Write as _;

use portcullis_identity::SpiffeId;
use portcullis_policy::Mode;
use portcullis_verify::{ProbeVerdict, Row, ServerOutcome};
use serde::Serialize;

use crate::output::{Cell, Table};

/// The form of the result.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: stable.
    Json,
    /// For CI systems.
    Junit,
}

/// What was verified.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subject {
    pub(super) target: String,
    pub(super) mode: Mode,
    pub(super) decided_by: String,
}

#[derive(Serialize)]
struct Line {
    attempt: &'static str,
    expected: String,
    got: String,
    verdict: &'static str,
    seen: String,
    #[serde(skip)]
    is_failure: bool,
    #[serde(skip)]
    is_skipped: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    subject: Subject,
    as_expected: bool,
    items: Vec<Line>,
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        Self {
            attempt: row.attempt.name(),
            expected: row.expected.to_string(),
            got: row.outcome.name().to_owned(),
            verdict: row.verdict.name(),
            seen: row.seen,
            is_failure: row.verdict.is_failure(),
            is_skipped: row.verdict == ProbeVerdict::NotTried,
        }
    }
}

impl Line {
    /// The row about who the server is.
    fn server(outcome: &ServerOutcome, wanted: Option<&SpiffeId>) -> Self {
        let (got, seen, verdict) = match outcome {
            ServerOutcome::Expected { id, verified: true } => {
                (id.to_string(), "its chain leads to a root of the bundle".to_owned(), ProbeVerdict::AsExpected)
            }
            ServerOutcome::Expected { id, verified: false } => (
                id.to_string(),
                "its chain was not verified: name the roots with --ca".to_owned(),
                ProbeVerdict::AsExpected,
            ),
            ServerOutcome::Other(id) => {
                (id.to_string(), "another workload answers".to_owned(), ProbeVerdict::Different)
            }
            ServerOutcome::NoIdentity(error) => ("no identity".to_owned(), error.to_string(), ProbeVerdict::Different),
            ServerOutcome::Untrusted(error) => ("untrusted".to_owned(), error.to_string(), ProbeVerdict::Different),
            ServerOutcome::NoCertificate => {
                ("none".to_owned(), "no attempt was shown a certificate".to_owned(), ProbeVerdict::Different)
            }
        };
        Self {
            attempt: "server-identity",
            expected: wanted.map_or_else(|| "trusted".to_owned(), ToString::to_string),
            got,
            verdict: verdict.name(),
            seen,
            is_failure: verdict.is_failure(),
            is_skipped: false,
        }
    }
}

impl Report {
    pub(super) fn new(
        subject: Subject,
        rows: Vec<Row>,
        server: Option<ServerOutcome>,
        wanted: Option<&SpiffeId>,
    ) -> Self {
        let server = server.map(|outcome| Line::server(&outcome, wanted));
        let items: Vec<Line> = server.into_iter().chain(rows.into_iter().map(Line::from)).collect();
        let as_expected = !items.iter().any(|line| line.is_failure);
        Self { api_version: "portcullis/v1", kind: "Verification", subject, as_expected, items }
    }

    pub(super) const fn is_as_expected(&self) -> bool {
        self.as_expected
    }

    pub(super) fn render(&self, format: Format) -> anyhow::Result<String> {
        Ok(match format {
            Format::Table => self.table(),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(self)?),
            Format::Junit => self.junit(),
        })
    }

    fn count(&self, which: impl Fn(&Line) -> bool) -> usize {
        self.items.iter().filter(|line| which(line)).count()
    }

    fn table(&self) -> String {
        let mut table = Table::new(["ATTEMPT", "EXPECTED", "GOT", "VERDICT", "SEEN"]);
        for Line { attempt, expected, got, verdict, seen, .. } in &self.items {
            table.push([attempt, expected.as_str(), got.as_str(), verdict, seen.as_str()].map(Cell::from));
        }
        let Subject { target, mode, decided_by } = &self.subject;
        let mut text = format!("{target} should be {mode}, by {decided_by}\n\n");
        text.push_str(&table.render(true, false));
        let (failed, skipped) = (self.count(|line| line.is_failure), self.count(|line| line.is_skipped));
        let all = self.items.len().saturating_sub(skipped);
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
        let _infallible = writeln!(text, "\n{} of {all} as expected{skipped}", all.saturating_sub(failed));
        text
    }

    fn junit(&self) -> String {
        let (failed, skipped) = (self.count(|line| line.is_failure), self.count(|line| line.is_skipped));
        let suite = escape(&format!("portcullis verify {}", self.subject.target));
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{suite}\" tests=\"{}\" \
             failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">\n",
            self.items.len()
        );
        for line in &self.items {
            let Line { attempt, expected, got, seen, .. } = line;
            let says = escape(&format!("expected {expected}, got {got}: {seen}"));
            let inner = if line.is_failure {
                format!("<failure message=\"{says}\"/>")
            } else if line.is_skipped {
                format!("<skipped message=\"{}\"/>", escape(seen))
            } else {
                format!("<system-out>{says}</system-out>")
            };
            let _infallible =
                writeln!(text, "    <testcase classname=\"{suite}\" name=\"{}\">{inner}</testcase>", escape(attempt));
        }
        text.push_str("  </testsuite>\n</testsuites>\n");
        text
    }
}

/// For XML's text and attributes; control characters are not allowed in either.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
