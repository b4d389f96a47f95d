//! YAML text to a tree that knows the line, column and style of every key and value.
//!
//! A policy or configuration file decides who may talk to whom, so a reader that guesses is a hole: a repeated key that
//! wins silently, an alias that multiplies, an unquoted `no` that turns into `false`. This crate reads a small, plain
//! subset of YAML and records where everything is, so that a caller can report every mistake of a file in one run.
//!
//! It guarantees:
//! - [`parse`] never panics, always ends, and needs memory in proportion to the text. A file over [`MAX_FILE_BYTES`],
//!   nesting beyond [`MAX_DEPTH`] and more than [`MAX_PROBLEMS`] problems are cut off.
//! - A document counts only once its end was reached; after a syntax error reading goes on with the next `---`.
//! - Lines and columns count from 1; columns count characters.
//! - A key that is written twice in one mapping is a problem that names both positions.
//!
//! It refuses, with their position: anchors, aliases, tags, merge keys (`<<`), directives, and keys that are not
//! scalars. It does not interpret the documents.

mod cursor;
mod diagnostic;
mod limits;
mod parse;
mod problem;
mod scalar;
mod suggest;
mod tree;

pub use cursor::{Cursor, Fields, printable};
pub use diagnostic::Diagnostic;
pub use limits::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FOLDER_BYTES, MAX_PROBLEMS};
pub use parse::{Parsed, parse};
pub use problem::{Position, Problem, Problems, reason};
pub use scalar::{Scalar, ScalarKind, Style};
pub use suggest::{by_distance, nearest};
pub use tree::{Content, Document, Entry, Key, Mapping, Node};
