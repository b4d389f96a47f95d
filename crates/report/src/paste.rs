//! What to do about something: a command or a YAML document to paste.

use serde::Serialize;

/// What to do about a client.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// What it does, and when it is the right one.
    pub what: String,
    /// What to paste.
    #[serde(flatten)]
    pub paste: Paste,
}

/// What to paste.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Paste {
    /// Into a shell.
    Command(String),
    /// Into a file.
    Yaml(String),
}
