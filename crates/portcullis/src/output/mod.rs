//! Writing answers: data to standard output, everything else to standard error.
//!
//! A reader that goes away (`portcullis ... | head -1`) is not an error. Any other failed write is: a script that redirects
//! the answer to a full disk must see the failure.
//!
//! What sidecars answer is text of others. Cells of a [`Table`], JSON, YAML and notes let no control character through to a terminal.

mod clean;
mod colour;
pub(crate) mod format;
mod list;
mod table;

use std::io::{self, Write};

use serde::Serialize;

pub(crate) use clean::{clean, clean_lines};
pub(crate) use colour::Style;
pub(crate) use format::OutputFormat;
pub(crate) use list::{List, ListArgs, MissingAnswer};
pub(crate) use table::{Cell, Table};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: stable.
    Json,
}

/// Writes text to standard output as it is.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    ignore_broken_pipe(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes one JSON value and a newline to standard output.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut line = clean::json(&serde_json::to_string_pretty(value).map_err(io::Error::other)?).into_owned();
    line.push('\n');
    text(&line)
}

/// Writes a value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(value).map_err(io::Error::other)?;
    text(&format!("{}\n", clean::json(&line)))
}

/// A value as YAML. By way of its JSON: what is written is the same in both, and each type is serialised by one piece of code only.
pub(crate) fn as_yaml(value: &impl Serialize) -> io::Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    portcullis_report::yaml_of_json(&clean::json(&text)).map_err(io::Error::other)
}

/// Writes a YAML document to standard output.
pub(crate) fn yaml(value: &impl Serialize) -> io::Result<()> {
    let document = as_yaml(value)?;
    if clean::is_clean(&document) {
        return text(&document);
    }
    // YAML writes some of these as they are. JSON is YAML too, and escapes them.
    json(value)
}

/// Writes a line to standard error. If that fails, there is nowhere to report it.
pub(crate) fn note(line: &str) {
    let _unwritable = writeln!(io::stderr().lock(), "{}", clean_lines(line));
}

fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reader_that_went_away_is_ignored() {
        assert!(ignore_broken_pipe(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(ignore_broken_pipe(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
