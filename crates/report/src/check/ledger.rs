//! What is remembered of connections: `readiness` answers from it.

use super::facts::Known;
use super::model::Finding;

pub(super) fn written(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        let ledger = &status.ledger;
        match (&ledger.folder, ledger.is_persistent) {
            (None, _) => {
                Finding::warning(Some(known), "its ledger is in memory: a restart forgets who was seen".to_owned())
                    .remedy("set `ledger.folder` in its configuration, on a volume".to_owned())
            }
            (Some(folder), true) => Finding::passed(Some(known), format!("written to {folder}")),
            (Some(folder), false) => {
                let failures = ledger.write_failures;
                let message = format!("its ledger cannot be written to {folder}; attempts that failed: {failures}");
                Finding::failed(Some(known), message)
                    .remedy(format!(
                        "see its log; {folder} must exist, belong to the user of the proxy, and be of this proxy alone"
                    ))
                    .at(Some(folder.clone()))
            }
        }
    };
    known.iter().map(of).collect()
}

pub(super) fn complete(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        let ledger = &status.ledger;
        if ledger.evicted == 0 {
            return Finding::passed(Some(known), format!("observations: {}", ledger.observations));
        }
        let message = format!("observations given up: {}; it holds {}", ledger.evicted, ledger.observations);
        Finding::warning(Some(known), message)
            .why(["`readiness` cannot be sure of clients that it no longer knows".to_owned()])
            .remedy("raise `ledger.maxPairs`; see docs/reference/ledger.md".to_owned())
    };
    known.iter().map(of).collect()
}
