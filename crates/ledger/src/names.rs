//! What addresses are called.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::key::PeerKey;
use crate::ledger::Ledger;

impl Ledger {
    /// The addresses of peers without an identity, those that were seen last first.
    #[must_use]
    pub fn nameless(&self) -> Vec<IpAddr> {
        let mut seen: BTreeMap<IpAddr, i64> = BTreeMap::new();
        for entry in self.entries() {
            if let PeerKey::Address(address) = entry.key.peer {
                let last = seen.entry(address).or_insert(i64::MIN);
                *last = entry.last_seen().max(*last);
            }
        }
        let mut addresses: Vec<_> = seen.into_iter().collect();
        addresses.sort_by_key(|(_, last)| Reverse(*last));
        addresses.into_iter().map(|(address, _)| address).collect()
    }

    /// Keeps what addresses are called now.
    pub fn name(&self, names: &HashMap<IpAddr, Arc<str>>) {
        for entry in self.entries() {
            let PeerKey::Address(address) = entry.key.peer else { continue };
            let Some(name) = names.get(&address) else { continue };
            let mut facts = entry.facts();
            if facts.name.as_ref() != Some(name) {
                facts.name = Some(Arc::clone(name));
                drop(facts);
                self.mark(false);
            }
        }
    }
}
