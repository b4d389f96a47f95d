//! An error or a warning with its file, its position and what would be right.

use std::fmt;

use serde::Serialize;

use crate::problem::{Position, Problem};

/// An error or a warning about a document.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 if the file as a whole is meant, such as one that cannot be read.
    pub line: u32,
    /// Column, from 1; 0 as for the line.
    pub column: u32,
    /// Path of the field, such as `spec.portLevelMtls[8080].mode`; empty for the whole document.
    pub field: String,
    /// Stable reason code.
    pub reason: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Diagnostic {
    /// A problem of `file`.
    #[must_use]
    pub fn new(file: &str, problem: Problem) -> Self {
        let Problem { position, field, reason, message } = problem;
        Self { file: file.to_owned(), line: position.line, column: position.column, field, reason, message }
    }

    /// An error or a warning about a position, without a field.
    #[must_use]
    pub fn at(file: &str, position: Position, reason: &'static str, message: String) -> Self {
        Self::new(file, Problem { position, field: String::new(), reason, message })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A file name may hold control characters; the text must stay on one line.
        for c in self.file.chars() {
            if c.is_control() { write!(f, "{}", c.escape_unicode())? } else { fmt::Write::write_char(f, c)? }
        }
        match self.line {
            0 => f.write_str(": ")?,
            line => write!(f, ":{line}:{}: ", self.column)?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} [{}]", self.message, self.reason)
    }
}
