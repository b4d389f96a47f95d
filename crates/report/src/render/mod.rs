//! One report in several formats: for a terminal, a pull request, programs, and CI systems.
//!
//! A report says what it has to say as rows, sentences, test cases and findings ([`View`]); each format arranges them. Text in a report is
//! free of control characters already; what means something in a format is escaped by that format.

mod csv;
mod junit;
mod markdown;
mod sarif;
mod table;

use std::fmt;

use serde::Serialize;

use crate::view::View;

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
    /// For spreadsheets: every column.
    Csv,
}

impl Form {
    /// Every format.
    pub const ALL: [Self; 8] =
        [Self::Table, Self::Wide, Self::Json, Self::Yaml, Self::Markdown, Self::Junit, Self::Sarif, Self::Csv];
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, V: Serialize> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    report: &'a V,
}

/// A JSON text as YAML, with its keys in the same order. JSON and YAML of a type are then one piece of code.
///
/// # Errors
/// If it is no JSON, or has characters that YAML has only as escapes.
pub fn yaml_of_json(json: &str) -> Result<String, serde_yaml::Error> {
    let value: serde_yaml::Value = serde_yaml::from_str(json)?;
    serde_yaml::to_string(&value)
}

/// The report in a format; it ends with a newline.
pub(crate) fn render<V: View>(report: &V, form: Form) -> Result<String, RenderError> {
    let envelope = || Envelope { api_version: "portcullis/v1", kind: report.kind(), report };
    Ok(match form {
        Form::Table => table::render(report, false),
        Form::Wide => table::render(report, true),
        Form::Json => serde_json::to_string_pretty(&envelope())? + "\n",
        Form::Yaml => yaml_of_json(&serde_json::to_string(&envelope())?)?,
        Form::Markdown => markdown::render(report),
        Form::Junit => junit::render(report),
        Form::Csv => csv::render(report),
        Form::Sarif => serde_json::to_string_pretty(&sarif::log(report))? + "\n",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_says_what_json_says_in_the_same_order() {
        let value = serde_json::json!({
            "text": "a: \"b\" #c\n\u{e9}\u{1f512}", "none": null, "list": [1, -2, 1.5, 18_446_744_073_709_551_615_u64, true],
            "looks like": ["true", "1", "null", "~", "2026-01-01", "0x1f", "1e3", ""], "empty": {}, "nothing": []
        });
        let text = format!("{{\"z\": 1, \"a\": {value}}}");
        let yaml = yaml_of_json(&text).unwrap();
        assert!(yaml.starts_with("z: 1\na:\n"), "{yaml}");
        let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::from_str::<serde_json::Value>(&text).unwrap());
    }
}
