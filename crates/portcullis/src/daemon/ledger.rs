//! What is remembered of connections: the folder, and the thread that writes it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use portcullis_config::Settings;
use portcullis_ledger::{Ledger, LedgerFile, SystemClock, Writer};
use portcullis_telemetry::Metrics;

/// Only the sidecar may look into a folder that it makes.
const MODE: u32 = 0o700;

/// Makes the folder, which the sandbox would forbid. A failure shows when the file is written.
pub(super) fn make_folder(settings: &Settings) {
    let copy = settings.kubernetes.as_ref().and_then(|kubernetes| kubernetes.copy_folder.as_ref());
    for folder in settings.ledger.folder.iter().chain(copy) {
        let _missing = DirBuilder::new().recursive(true).mode(MODE).create(folder);
    }
}

pub(super) fn new(settings: &Settings) -> Ledger {
    Ledger::new(settings.ledger.max_pairs, Arc::new(SystemClock::starting_now()))
}

/// Reads what is there, and keeps it up to date until it is finished. `None` if it is kept in memory.
pub(super) fn write(settings: &Settings, metrics: &Metrics) -> Option<Writer> {
    let folder = settings.ledger.folder.as_deref()?;
    let place = LedgerFile { folder, namespace: &settings.workload.namespace, name: &settings.workload.name };
    let of_open = metrics.clone();
    Some(Writer::start(&metrics.ledger, place, move || of_open.flush_bytes()))
}

#[cfg(test)]
mod tests {
    use portcullis_config::defaults;
    use portcullis_ledger::Ledger;

    /// The ledger does not know the configuration, and has the same default for those who use it without one.
    #[test]
    fn the_ledger_and_the_configuration_have_one_default() {
        assert_eq!(Ledger::DEFAULT_MAX, defaults::LEDGER_PAIRS);
    }
}
