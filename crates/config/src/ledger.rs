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
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self { folder: None, max_pairs: defaults::LEDGER_PAIRS }
    }
}

impl SectionReader<'_> {
    pub(crate) fn ledger(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<LedgerSettings> {
        let fields = at.fields(&["folder", "maxPairs"], problems)?;
        let folder = section(&fields, "folder", None, problems, |at, p| self.path(at, p).map(Some));
        let max_pairs = section(&fields, "maxPairs", defaults::LEDGER_PAIRS, problems, |at, p| {
            at.integer(100, 1_000_000, p).and_then(|number| usize::try_from(number).ok())
        });
        Some(LedgerSettings { folder: folder?, max_pairs: max_pairs? })
    }
}
