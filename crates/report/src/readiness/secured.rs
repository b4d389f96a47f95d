//! Since when clients speak mTLS: a client that has got its sidecar needs no advice to get one.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{Direction, Observations, Timestamp, Transport};

use crate::address_book::shown_identity;
use crate::input::WorkloadName;
use crate::merge::workload_key;
use crate::text::clean;

/// A port of a workload: its namespace, its name, and the port.
type Called = (String, String, u16);

/// The first connection over mTLS that was let through, by the name of the client.
#[derive(Debug, Default)]
pub(super) struct Secured {
    anywhere: BTreeMap<String, Timestamp>,
    at: BTreeMap<(String, Called), Timestamp>,
}

impl Secured {
    /// From what all sidecars saw of clients.
    pub(super) fn new(answers: &[&Observations]) -> Self {
        let mut secured = Self::default();
        // A client without a sidecar has the name of its container or service, which its workload has afterwards.
        let mut workloads: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for proxy in answers.iter().map(|answer| &answer.proxy) {
            workloads.entry(shown_identity(&proxy.identity)).or_default().insert(clean(&proxy.name));
        }
        for answer in answers {
            let (namespace, name) = workload_key(&answer.proxy);
            let mtls = answer.observations.iter().filter(|one| {
                one.direction == Direction::Inbound && one.transport == Transport::Mtls && one.allowed > 0
            });
            for one in mtls {
                let Some(identity) = &one.peer.identity else { continue };
                let shown = shown_identity(identity);
                let account = shown.split_once('.').map(|(account, _)| account.to_owned());
                // Several workloads with one identity cannot be told apart.
                let known = workloads.get(&shown).filter(|names| names.len() == 1).and_then(BTreeSet::first);
                let short = known.cloned().or(account);
                for client in short.into_iter().chain([shown.clone()]) {
                    let called = (namespace.clone(), name.clone(), one.port);
                    earliest(&mut secured.anywhere, client.clone(), one.first_seen);
                    earliest(&mut secured.at, (client, called), one.first_seen);
                }
            }
        }
        secured
    }

    /// Whether the client began to speak mTLS after `last`, its last connection without: to this port, or at all. Who did both before may
    /// do both again.
    pub(super) fn is_after(&self, client: &str, (name, port): (&WorkloadName, u16), last: Timestamp) -> bool {
        let called = (name.namespace.clone(), name.name.clone(), port);
        let here = self.at.get(&(client.to_owned(), called));
        here.into_iter().chain(self.anywhere.get(client)).any(|first| *first > last)
    }
}

fn earliest<K: Ord>(map: &mut BTreeMap<K, Timestamp>, key: K, at: Timestamp) {
    let first = map.entry(key).or_insert(at);
    *first = (*first).min(at);
}
