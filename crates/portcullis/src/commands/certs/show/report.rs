//! Certificates as a table, JSON or YAML.

use std::fmt::Write as _;

use anyhow::Context as _;
use portcullis_identity::{Constraints, SvidError, Usages};
use portcullis_report::length;
use portcullis_tls::utc;
use serde::Serialize;

use super::shown::{CertKind, Expiry, Shown};
use crate::output::{Cell, Table};

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// With uses, issuer and serial number.
    Wide,
    /// For programs: stable.
    Json,
    /// The same in YAML.
    Yaml,
}

/// How the chain verifies.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainLine {
    root: Option<String>,
    root_fingerprint: Option<String>,
    pub(super) error: Option<Unfit>,
}

#[derive(Serialize)]
pub(super) struct Unfit {
    class: String,
    message: String,
}

impl ChainLine {
    pub(super) const fn verified(fingerprint: String, root: String) -> Self {
        Self { root: Some(root), root_fingerprint: Some(fingerprint), error: None }
    }

    pub(super) fn refused(class: &str, error: &dyn std::fmt::Display) -> Self {
        let error = Unfit { class: class.to_owned(), message: error.to_string() };
        Self { root: None, root_fingerprint: None, error: Some(error) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    api_version: &'static str,
    kind: &'static str,
    source: String,
    /// `null` unless it was asked for.
    chain: Option<ChainLine>,
    items: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    kind: &'static str,
    subject: String,
    issuer: String,
    uris: Vec<String>,
    key: String,
    serial: String,
    not_before: Option<String>,
    not_after: Option<String>,
    /// Until its end; negative since then.
    seconds_left: Option<i64>,
    status: &'static str,
    key_usage: Option<Uses>,
    extended_key_usage: Option<Uses>,
    basic_constraints: Option<Basic>,
    unfit: Option<Unfit>,
}

#[derive(Serialize)]
struct Uses {
    critical: bool,
    uses: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Basic {
    ca: bool,
    path_len: Option<u32>,
}

impl From<&Usages> for Uses {
    fn from(usages: &Usages) -> Self {
        Self { critical: usages.critical, uses: usages.uses.clone() }
    }
}

impl From<Constraints> for Basic {
    fn from(Constraints { ca, path_len }: Constraints) -> Self {
        Self { ca, path_len }
    }
}

fn unfit(error: &SvidError) -> Unfit {
    Unfit { class: error.class().to_owned(), message: error.to_string() }
}

impl Item {
    fn new(shown: &Shown, now: i64) -> Self {
        let known = shown.details.as_ref();
        let summary = known.ok().map(|known| &known.summary);
        Self {
            kind: match shown.kind {
                CertKind::Leaf => "leaf",
                CertKind::Intermediate => "intermediate",
                CertKind::Root => "root",
                CertKind::Unreadable => "unreadable",
            },
            subject: summary.map(|it| it.subject.clone()).unwrap_or_default(),
            issuer: summary.map(|it| it.issuer.clone()).unwrap_or_default(),
            uris: known.map(|known| known.uris.clone()).unwrap_or_default(),
            key: known.map(|known| known.key.clone()).unwrap_or_default(),
            serial: summary.map(|it| it.serial_hex.clone()).unwrap_or_default(),
            not_before: summary.map(|it| utc(it.not_before_unix)),
            not_after: summary.map(|it| utc(it.not_after_unix)),
            seconds_left: summary.map(|it| it.not_after_unix.saturating_sub(now)),
            status: match (shown.kind, shown.expiry) {
                (CertKind::Unreadable, _) => "unreadable",
                (_, Expiry::Valid) => "valid",
                (_, Expiry::AboutToExpire) => "about-to-expire",
                (_, Expiry::Expired) => "expired",
                (_, Expiry::NotYetValid) => "not-yet-valid",
            },
            key_usage: known.ok().and_then(|known| known.key_usage.as_ref()).map(Uses::from),
            extended_key_usage: known.ok().and_then(|known| known.extended_key_usage.as_ref()).map(Uses::from),
            basic_constraints: known.ok().and_then(|known| known.basic_constraints).map(Basic::from),
            unfit: shown.details.as_ref().err().or(shown.unfit.as_ref()).map(unfit),
        }
    }

    /// Its identity, else its subject.
    fn name(&self) -> String {
        match self.uris.as_slice() {
            [] if self.subject.is_empty() => "-".to_owned(),
            [] => self.subject.clone(),
            uris => uris.join(","),
        }
    }

    fn left(&self) -> String {
        self.seconds_left.map_or_else(|| "-".to_owned(), duration)
    }

    fn wide(&self) -> [String; 6] {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let uses = |uses: Option<&Uses>| {
            uses.map_or_else(
                || "-".to_owned(),
                |uses| format!("{}{}", if uses.critical { "critical:" } else { "" }, uses.uses.join(",")),
            )
        };
        let basic = self.basic_constraints.as_ref().map_or_else(
            || "-".to_owned(),
            |basic| {
                let length = basic.path_len.map(|length| format!(",pathlen:{length}")).unwrap_or_default();
                format!("CA:{}{length}", if basic.ca { "TRUE" } else { "FALSE" })
            },
        );
        [
            dash(&self.serial),
            dash(&self.issuer),
            self.not_before.clone().unwrap_or_else(|| "-".to_owned()),
            uses(self.key_usage.as_ref()),
            uses(self.extended_key_usage.as_ref()),
            basic,
        ]
    }
}

/// As every command shortens a length of time, with a minus sign for the past.
fn duration(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    format!("{sign}{}", length(seconds.unsigned_abs()))
}

impl Report {
    pub(super) fn new(source: String, shown: &[Shown], chain: Option<ChainLine>, now: i64) -> Self {
        let items = shown.iter().map(|shown| Item::new(shown, now)).collect();
        Self { api_version: "portcullis/v1", kind: "CertificateList", source, chain, items }
    }

    pub(super) fn render(&self, format: Format) -> anyhow::Result<String> {
        Ok(match format {
            Format::Table => self.table(false),
            Format::Wide => self.table(true),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(self).context("JSON")?),
            Format::Yaml => crate::output::as_yaml(self).context("YAML")?,
        })
    }

    fn table(&self, wide: bool) -> String {
        let head = ["#", "KIND", "NAME", "KEY", "NOT AFTER", "LEFT", "STATUS"];
        let more = ["SERIAL NUMBER", "ISSUER", "NOT BEFORE", "KEY USAGE", "EXTENDED KEY USAGE", "BASIC CONSTRAINTS"];
        let mut table = Table::new(head);
        if wide {
            table = table.extend(more);
        }
        for (index, item) in self.items.iter().enumerate() {
            let status = if item.unfit.is_some() && item.status == "valid" { "unfit" } else { item.status };
            let mut row = vec![
                index.to_string(),
                item.kind.to_owned(),
                item.name(),
                item.key.clone(),
                item.not_after.clone().unwrap_or_else(|| "-".to_owned()),
                item.left(),
                status.to_owned(),
            ];
            if wide {
                row.extend(item.wide());
            }
            table.push(row.into_iter().map(Cell::from));
        }
        let mut text = table.render(true, false);
        for (index, item) in self.items.iter().enumerate() {
            if let Some(Unfit { class, message }) = &item.unfit {
                let _infallible = writeln!(text, "{index}: not usable in the mesh: {message} [{class}]");
            }
        }
        match &self.chain {
            None => {}
            Some(ChainLine { error: Some(Unfit { class, message }), .. }) => {
                let _infallible = writeln!(text, "chain: NOT verified: {message} [{class}]");
            }
            Some(ChainLine { root, root_fingerprint, .. }) => {
                let (root, print) = (root.as_deref().unwrap_or("-"), root_fingerprint.as_deref().unwrap_or("-"));
                let _infallible = writeln!(text, "chain: verified, to {root} (SHA-256 {print})");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn time_that_has_passed_has_a_sign() {
        for (seconds, text) in
            [(0, "0s"), (303, "5m3s"), (-3600, "-1h"), (-90_000, "-1d1h"), (i64::MIN, "-106751991167300d")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
