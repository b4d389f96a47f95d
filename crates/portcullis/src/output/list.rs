//! The forms in which a command lists things.

use std::io;

use serde::Serialize;

use super::colour::Colour;
use super::format::{LIST, OutputFormat};
use super::{Table, json, text, yaml};

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct ListArgs {
    /// Output format
    #[arg(short, long, value_parser = OutputFormat::one_of(LIST), default_value = "table")]
    pub(crate) output: OutputFormat,
    /// Leave out the line with the names of the columns
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// When to colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
}

/// A proxy without an answer, in JSON.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MissingAnswer {
    pub(crate) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// A word of a closed set.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What programs read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [T],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unanswered: &'a [MissingAnswer],
}

/// A list to write.
pub(crate) struct List<'a, T> {
    /// What it is a list of, for programs: `ProxyStatusList`.
    pub(crate) kind: &'static str,
    pub(crate) items: &'a [T],
    pub(crate) unanswered: &'a [MissingAnswer],
}

impl ListArgs {
    /// Whether there are more columns.
    pub(crate) fn is_wide(self) -> bool {
        self.output == OutputFormat::Wide
    }

    /// Whether text is coloured.
    pub(crate) fn is_coloured(self) -> bool {
        self.color.is_on()
    }

    /// The lines of a table.
    pub(crate) fn table(self, table: &Table) -> String {
        table.render(!self.no_headers, self.is_coloured())
    }

    /// Writes a list. `shown` is its text for people, `name` what an item is called.
    pub(crate) fn print<T: Serialize>(
        self,
        list: &List<'_, T>,
        shown: impl FnOnce() -> String,
        name: impl Fn(&T) -> String,
    ) -> io::Result<()> {
        let List { kind, items, unanswered } = *list;
        let document = Document { api_version: "portcullis/v1", kind, items, unanswered };
        match self.output {
            OutputFormat::Json => json(&document),
            OutputFormat::Yaml => yaml(&document),
            OutputFormat::Name => {
                let names = items.iter().map(|item| format!("{}\n", super::clean(&name(item))));
                text(&names.collect::<String>())
            }
            _ => text(&shown()),
        }
    }
}
