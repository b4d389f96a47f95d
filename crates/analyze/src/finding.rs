//! One finding, and what it is about.

use std::fmt;

use crate::code::Code;

/// What a finding is about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// The kind of the resource; `None`: a file as a whole.
    pub kind: Option<String>,
    /// Its namespace; empty where there is none.
    pub namespace: String,
    /// Its name; empty where there is none.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its line, from 1; 0: the file as a whole.
    pub line: u32,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What was found.
    pub code: Code,
    /// About what.
    pub subject: Subject,
    /// In words.
    pub text: String,
}

impl Finding {
    pub(crate) fn order(&self) -> (&str, u32, Code, &str) {
        (&self.subject.file, self.subject.line, self.code, &self.text)
    }
}

/// `Kind ns/name file:line`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = &self.kind {
            write!(f, "{kind} {}/{} ", self.namespace, self.name)?;
        }
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// As istioctl prints it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] ({}) {}", self.code.level(), self.code.id(), self.subject, self.text)
    }
}
