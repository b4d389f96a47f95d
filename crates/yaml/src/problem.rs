//! What is wrong with a text, and where.

use core::fmt;

use crate::limits::MAX_PROBLEMS;

/// A position in a text. Both numbers count from 1; the column counts characters, not bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Position {
    /// The first character of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The reason codes that this crate gives. Callers add their own through [`Cursor::report`](crate::Cursor::report).
pub mod reason {
    /// The text is not YAML, or uses a part of YAML that is refused.
    pub const YAML_SYNTAX: &str = "yaml-syntax";
    /// A key occurs twice in one mapping.
    pub const DUPLICATE_KEY: &str = "duplicate-key";
    /// A value has another type than the one that belongs there.
    pub const WRONG_TYPE: &str = "wrong-type";
    /// A field that the schema does not know.
    pub const UNKNOWN_FIELD: &str = "unknown-field";
    /// A required field is missing.
    pub const MISSING_FIELD: &str = "missing-field";
    /// A number is of the right type but not in the allowed range.
    pub const OUT_OF_RANGE: &str = "out-of-range";
    /// The text is longer than [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES).
    pub const FILE_TOO_LARGE: &str = "file-too-large";
}

/// One mistake in a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where it is.
    pub position: Position,
    /// The path of the field, e.g. `spec.portLevelMtls[8080].mode`; empty when it concerns the whole document.
    pub field: String,
    /// A stable code.
    pub reason: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.position)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} [{}]", self.message, self.reason)
    }
}

/// Collects problems, at most [`MAX_PROBLEMS`] of them.
///
/// A broken generator can make tens of thousands of equal mistakes; they must not fill memory.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    kept: Vec<Problem>,
    more: Option<Problem>,
}

impl Problems {
    /// An empty collection.
    #[must_use]
    pub const fn new() -> Self {
        Self { kept: Vec::new(), more: None }
    }

    /// Adds a problem, or notes that there was one more than are kept.
    pub fn push(&mut self, problem: Problem) {
        if self.kept.len() < MAX_PROBLEMS {
            self.kept.push(problem);
        } else if self.more.is_none() {
            let message = format!("more problems not shown: only the first {MAX_PROBLEMS} of a file are");
            self.more = Some(Problem { message, field: String::new(), ..problem });
        }
    }

    /// Adds all of `problems`.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        for problem in problems {
            self.push(problem);
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How many are kept, at most [`MAX_PROBLEMS`].
    #[must_use]
    pub const fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether some were dropped because there were too many.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.more.is_some()
    }

    /// The problems by position; if some were dropped, a last one says so, at the position of the first dropped one.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        let mut all = self.kept;
        all.sort_by_key(|problem| problem.position);
        all.extend(self.more);
        all
    }
}
