//! The bit of each port.

use portcullis_api::Transport;
use portcullis_ledger::ConnAttributes;

use crate::support::{id, ledger, plain, refuse, verified};

const DAY: u64 = 86_400;

#[test]
fn a_port_is_ready_seven_days_after_the_last_client_that_strict_would_refuse() {
    let (ledger, clock) = ledger(1000);
    assert!(ledger.readiness().is_empty(), "nothing was seen");
    drop(ledger.allow(&verified(&id("web"), 80)));
    refuse(&ledger, &plain([10, 0, 0, 2].into(), 81), "plaintext_in_strict");
    assert_eq!(ledger.readiness().into_iter().collect::<Vec<_>>(), [(80, true), (81, true)]);
    for transport in [Transport::Plaintext, Transport::Tls, Transport::Unknown] {
        drop(ledger.allow(&ConnAttributes { transport, ..plain([10, 0, 0, 2].into(), 80) }));
        assert!(!ledger.readiness()[&80], "{transport:?}");
        clock.advance(7 * DAY - 1);
        assert!(!ledger.readiness()[&80], "{transport:?}");
        // Days are counted whole.
        clock.advance(DAY + 1);
        assert!(ledger.readiness()[&80], "{transport:?}");
        // That it is refused now makes the port no less ready.
        refuse(&ledger, &ConnAttributes { transport, ..plain([10, 0, 0, 2].into(), 80) }, "plaintext_in_strict");
        assert!(ledger.readiness()[&80], "{transport:?}");
    }
}

#[test]
fn a_connection_that_was_opened_long_ago_and_is_used_still_counts() {
    let (ledger, clock) = ledger(1000);
    let open = ledger.allow(&plain([10, 0, 0, 2].into(), 80));
    clock.advance(30 * DAY);
    assert!(ledger.readiness()[&80]);
    open.moved(1, 0);
    assert!(!ledger.readiness()[&80]);
}
