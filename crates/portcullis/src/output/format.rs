//! The forms in which commands write: one list of words, of which each command takes those that it has.

use clap::ValueEnum as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use portcullis_report::Form;

/// A form of output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns, or lines, for people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// More columns, and everything that can be done.
    Wide,
    /// For programs: stable.
    Json,
    /// The same as YAML.
    Yaml,
    /// Only names, one a line.
    Name,
    /// For a pull request.
    Markdown,
    /// JUnit XML, for CI.
    Junit,
    /// SARIF 2.1.0, for code review.
    Sarif,
    /// For spreadsheets.
    Csv,
    /// One finding on a line.
    Log,
}

use OutputFormat::{Csv, Json, Junit, Log, Markdown, Name, Sarif, Table, Wide, Yaml};

/// Of lists.
pub(crate) const LIST: &[OutputFormat] = &[Table, Wide, Json, Yaml, Name];
/// Of reports.
pub(crate) const REPORT: &[OutputFormat] = &[Table, Wide, Json, Yaml, Markdown, Junit, Sarif, Csv];
/// Of reports about things that have names.
pub(crate) const NAMED_REPORT: &[OutputFormat] = &[Table, Wide, Json, Yaml, Name, Markdown, Junit, Sarif, Csv];
/// Of findings.
pub(crate) const FINDINGS: &[OutputFormat] = &[Log, Json, Sarif];

impl OutputFormat {
    /// Takes some of them.
    pub(crate) fn one_of(some: &'static [Self]) -> impl TypedValueParser<Value = Self> {
        let words = some.iter().filter_map(Self::to_possible_value);
        PossibleValuesParser::new(words).try_map(|word| Self::from_str(&word, false))
    }

    /// As reports name it; none if it is no form of a report.
    pub(crate) const fn form(self) -> Option<Form> {
        Some(match self {
            Self::Table => Form::Table,
            Self::Wide => Form::Wide,
            Self::Json => Form::Json,
            Self::Yaml => Form::Yaml,
            Self::Markdown => Form::Markdown,
            Self::Junit => Form::Junit,
            Self::Sarif => Form::Sarif,
            Self::Csv => Form::Csv,
            Self::Name | Self::Log => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_report_is_one_and_the_others_are_not() {
        assert!(REPORT.iter().all(|format| format.form().is_some()));
        assert_eq!(REPORT.len(), Form::ALL.len());
        assert!(LIST.iter().chain(FINDINGS).all(|format| OutputFormat::value_variants().contains(format)));
        assert_eq!((Name.form(), Log.form()), (None, None));
    }
}
