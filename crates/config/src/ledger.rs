//! `ledger`: what is remembered of connections, and where.

use std::path::PathBuf;

use portcullis_yaml::{Cursor, Problems};

use crate::defaults;
use crate::fields::{SectionReader, section};

/// `ledger`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerSettings {
    /// `folder`: where it outlives a restart; without it, it is kept in memory.
    pub folder: Option<PathBuf>,
    /// `maxPairs`: observations that are kept.
    pub max_pairs: usize,
    /// `reverseDns`: ask DNS for the names of addresses.
    pub reverse_dns: bool,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self { folder: None, max_pairs: defaults::LEDGER_PAIRS, reverse_dns: defaults::LEDGER_REVERSE_DNS }
    }
}

impl SectionReader<'_> {
    pub(crate) fn ledger(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<LedgerSettings> {
        let fields = at.fields(&["folder", "maxPairs", "reverseDns"], problems)?;
        let folder = section(&fields, "folder", None, problems, |at, p| self.path(at, p).map(Some));
        let max_pairs = section(&fields, "maxPairs", defaults::LEDGER_PAIRS, problems, |at, p| {
            at.integer(100, 1_000_000, p).and_then(|number| usize::try_from(number).ok())
        });
        let reverse_dns = section(&fields, "reverseDns", defaults::LEDGER_REVERSE_DNS, problems, |at, p| at.boolean(p));
        Some(LedgerSettings { folder: folder?, max_pairs: max_pairs?, reverse_dns: reverse_dns? })
    }
}
