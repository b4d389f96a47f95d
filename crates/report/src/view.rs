//! What a report has to say, whatever the format.

use serde::Serialize;

use crate::paste::Fix;

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
    pub(crate) title: &'static str,
    pub(crate) entries: Vec<Entry>,
}

/// One of them.
pub(crate) struct Entry {
    pub(crate) text: String,
    pub(crate) fixes: Vec<Fix>,
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
    ExceptionUndocumented,
    ExceptionExpired,
    ExceptionDrift,
}

impl Rule {
    pub(crate) const ALL: [Self; 9] = [
        Self::PlaintextClient,
        Self::TlsClient,
        Self::NotObserved,
        Self::Unreachable,
        Self::LosesAccess,
        Self::NotDecided,
        Self::ExceptionUndocumented,
        Self::ExceptionExpired,
        Self::ExceptionDrift,
    ];

    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::PlaintextClient => "plaintext-client",
            Self::TlsClient => "tls-client",
            Self::NotObserved => "not-observed",
            Self::Unreachable => "sidecar-unreachable",
            Self::LosesAccess => "loses-access",
            Self::NotDecided => "not-decided",
            Self::ExceptionUndocumented => "exception-undocumented",
            Self::ExceptionExpired => "exception-expired",
            Self::ExceptionDrift => "exception-drift",
        }
    }

    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::PlaintextClient => "A client without mTLS, which STRICT would refuse.",
            Self::TlsClient => "A client with TLS of its own, which STRICT would ask for a certificate of the mesh.",
            Self::NotObserved => "Too little was observed to say who would be refused.",
            Self::Unreachable => "A sidecar did not answer, so it is not known who its clients are.",
            Self::LosesAccess => "A client that was let through would be refused under the new policies.",
            Self::NotDecided => {
                "A rule compares what was not recorded, so it is not known whether a client would be refused."
            }
            Self::ExceptionUndocumented => "An exception from mTLS without owner, reason or end.",
            Self::ExceptionExpired => "An exception from mTLS that has passed its end.",
            Self::ExceptionDrift => "The exceptions from mTLS are not those of the saved baseline.",
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
