//! One report in several formats: for a terminal, a pull request, programs, and CI systems.
//!
//! A report says what it has to say as rows, sentences, test cases and findings ([`View`]); each format arranges them. Text in a report is
//! free of control characters already; what means something in a format is escaped by that format.

mod junit;
mod markdown;
mod sarif;
mod table;

use std::fmt;

use serde::Serialize;

use crate::readiness::Fix;

/// A format.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Form {
    /// For a terminal.
    #[default]
    Table,
    /// With more columns, and every fix.
    Wide,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// For a pull request.
    Markdown,
    /// For CI systems: one test case for each row.
    Junit,
    /// SARIF 2.1.0, for code review: findings at the policy that decides.
    Sarif,
}

impl Form {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Table, Self::Wide, Self::Json, Self::Yaml, Self::Markdown, Self::Junit, Self::Sarif];
}

/// A report could not be written as JSON or YAML.
#[derive(Debug)]
pub struct RenderError(String);

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the report cannot be written: {}", self.0)
    }
}

impl std::error::Error for RenderError {}

impl From<serde_json::Error> for RenderError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_yaml::Error> for RenderError {
    fn from(error: serde_yaml::Error) -> Self {
        Self(error.to_string())
    }
}

/// What a report has to say.
pub(crate) trait View: Serialize {
    /// `kind` in JSON and YAML.
    fn kind(&self) -> &'static str;
    /// A heading.
    fn title(&self) -> String;
    /// The rows.
    fn table(&self, is_wide: bool) -> Table;
    /// What it comes to, in sentences; the first one is the most important.
    fn summary(&self) -> Vec<String>;
    /// Details, with what to do.
    fn sections(&self) -> Vec<Section>;
    /// As test cases.
    fn cases(&self) -> Vec<Case>;
    /// As findings of an analysis.
    fn findings(&self) -> Vec<Finding>;
}

/// Columns and rows of the same length.
pub(crate) struct Table {
    pub(crate) header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A list of details.
pub(crate) struct Section {
    title: &'static str,
    entries: Vec<Entry>,
}

struct Entry {
    text: String,
    fixes: Vec<Fix>,
}

/// A test case.
pub(crate) struct Case {
    pub(crate) class: String,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// How a test case ended.
pub(crate) enum Outcome {
    Passed,
    /// The answer is no.
    Failed {
        kind: &'static str,
        message: String,
        details: String,
    },
    /// There is no answer.
    Error {
        kind: &'static str,
        message: String,
    },
}

/// A finding of an analysis.
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) level: Level,
    pub(crate) message: String,
    /// File and line.
    pub(crate) location: Option<(String, u32)>,
    /// What it is about.
    pub(crate) subject: String,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    Error,
    Warning,
}

/// What kind of finding it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    PlaintextClient,
    TlsClient,
    NotObserved,
    Unreachable,
    LosesAccess,
    NotDecided,
}

impl Rule {
    const ALL: [Self; 6] = [
        Self::PlaintextClient,
        Self::TlsClient,
        Self::NotObserved,
        Self::Unreachable,
        Self::LosesAccess,
        Self::NotDecided,
    ];

    const fn id(self) -> &'static str {
        match self {
            Self::PlaintextClient => "plaintext-client",
            Self::TlsClient => "tls-client",
            Self::NotObserved => "not-observed",
            Self::Unreachable => "sidecar-unreachable",
            Self::LosesAccess => "loses-access",
            Self::NotDecided => "not-decided",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::PlaintextClient => "A client without mTLS, which STRICT would refuse.",
            Self::TlsClient => "A client with TLS of its own, which STRICT would ask for a certificate of the mesh.",
            Self::NotObserved => "Too little was observed to say who would be refused.",
            Self::Unreachable => "A sidecar did not answer, so it is not known who its clients are.",
            Self::LosesAccess => "A client that was let through would be refused under the new policies.",
            Self::NotDecided => {
                "A rule compares what was not recorded, so it is not known whether a client would be refused."
            }
        }
    }
}

impl Section {
    pub(crate) const fn new(title: &'static str) -> Self {
        Self { title, entries: Vec::new() }
    }

    pub(crate) fn add(&mut self, text: String, fixes: Vec<Fix>) {
        self.entries.push(Entry { text, fixes });
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, V: Serialize> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    report: &'a V,
}

/// The report in a format; it ends with a newline.
pub(crate) fn render<V: View>(report: &V, form: Form) -> Result<String, RenderError> {
    let envelope = || Envelope { api_version: "portcullis/v1", kind: report.kind(), report };
    Ok(match form {
        Form::Table => table::render(report, false),
        Form::Wide => table::render(report, true),
        Form::Json => serde_json::to_string_pretty(&envelope())? + "\n",
        Form::Yaml => serde_yaml::to_string(&envelope())?,
        Form::Markdown => markdown::render(report),
        Form::Junit => junit::render(report),
        Form::Sarif => serde_json::to_string_pretty(&sarif::log(report))? + "\n",
    })
}
