//! Whether a port could be STRICT, in one bit.

use std::collections::BTreeMap;

use portcullis_api::{Direction, Timestamp, Transport};

use crate::entry::Entry;
use crate::ledger::Ledger;

/// Days in which a client without mutual TLS keeps a port from being ready.
const DAYS: i64 = 7;

impl Ledger {
    /// The ports of the workload at which a connection was seen, and whether none without mutual TLS was let through in the last
    /// seven days.
    #[must_use]
    pub fn readiness(&self) -> BTreeMap<u16, bool> {
        let now = self.clock().now_unix();
        let mut ports = BTreeMap::new();
        for entry in self.entries() {
            if entry.key.direction == Direction::Inbound {
                let is_ready = ports.entry(entry.key.port).or_insert(true);
                *is_ready &= !needs_plaintext(&entry, now);
            }
        }
        ports
    }
}

/// Whether connections of this kind, which STRICT would refuse, were let through lately, or are open.
fn needs_plaintext(entry: &Entry, now: i64) -> bool {
    if entry.key.transport == Transport::Mtls {
        return false;
    }
    let facts = entry.facts();
    let first = Timestamp::from_unix(now).day() - DAYS;
    let was_let_through = facts.days.iter().any(|count| count.day >= first && count.allowed > 0);
    // Bytes of a connection that was opened earlier, and not a refusal since.
    let last_refused = facts.last_refusal.as_ref().map_or(i64::MIN, |refusal| refusal.at);
    let moved = entry.last_seen() > last_refused && entry.last_seen() >= now - DAYS * Timestamp::SECONDS_A_DAY;
    was_let_through || (facts.allowed > 0 && moved)
}
