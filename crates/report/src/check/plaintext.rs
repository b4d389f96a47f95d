//! Plaintext from one sidecar to another: two halves that have not found each other, such as projects with a root each.
//!
//! One sidecar alone cannot know it: plaintext to an address is the same whoever is there. All answers together say who has a sidecar at
//! an address, as the other reports use it; an address that several share is left out.

use std::collections::BTreeSet;

use portcullis_api::{Direction, Mode, Observation, Observations, Timestamp, Transport};

use super::facts::Known;
use super::model::Finding;
use crate::address_book::{AddressBook, shown_proxy};
use crate::input::Names;

/// What was seen longer ago may have been corrected since.
const RECENT_SECONDS: i64 = 3600;

pub(super) fn between(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let answers: Vec<&Observations> = known.iter().filter_map(|known| known.observations.as_ref()).collect();
    let names = Names::default();
    let book = AddressBook::new(&answers, &names);
    known.iter().map(|one| of(one, known, &book, now)).collect()
}

fn of(one: &Known, known: &[&Known], book: &AddressBook<'_>, now: Timestamp) -> Finding {
    let Some(observations) = &one.observations else { return Finding::too_old(one) };
    let own = shown_proxy(&one.proxy);
    let is_recent = |seen: &&Observation| {
        seen.direction == Direction::Outbound
            && seen.transport == Transport::Plaintext
            && seen.allowed > 0
            && now.unix().saturating_sub(seen.last_seen.unix()) <= RECENT_SECONDS
    };
    let mut why = Vec::new();
    let mut is_foreign = false;
    for seen in observations.observations.iter().filter(is_recent) {
        let Some((address, who)) =
            seen.peer.address.and_then(|address| Some((address, book.sidecar(address, seen.last_seen)?)))
        else {
            continue;
        };
        let server = known.iter().find(|other| shown_proxy(&other.proxy) == who);
        if who == own || server.is_some_and(|server| is_disabled(server, seen.port)) {
            continue;
        }
        let foreign = server.is_some_and(|server| share_no_root(one, server));
        is_foreign |= foreign;
        let reason = if foreign { "they trust no common root" } else { "its directory does not say so" };
        why.push(format!("{who} has a sidecar at {address}, port {}, and gets plaintext: {reason}", seen.port));
    }
    if why.is_empty() {
        return Finding::passed(Some(one), "it sent none to another sidecar within the last hour".to_owned());
    }
    let remedy = if is_foreign {
        "let both have one CA: `portcullis compose add --ca HOST:PORT --token-file FILE`, or `portcullis join`; then a ServiceEntry in the policies"
    } else {
        "a ServiceEntry in the policies, whose endpoint names the address and the service account"
    };
    Finding::warning(Some(one), "it sends plaintext to a sidecar".to_owned()).why(why).remedy(remedy.to_owned())
}

/// Whether the port is meant to be plaintext.
fn is_disabled(server: &Known, port: u16) -> bool {
    let ports = server.observations.iter().flat_map(|observations| &observations.ports);
    let mut modes: Vec<_> = ports.filter(|mode| mode.port.is_none_or(|own| own == port)).collect();
    // That of the port before that of every other.
    modes.sort_by_key(|mode| mode.port.is_none());
    modes.first().is_some_and(|mode| mode.mode == Mode::Disable)
}

/// Whether both have roots, and none in common.
fn share_no_root(one: &Known, other: &Known) -> bool {
    let roots = |known: &Known| -> BTreeSet<String> {
        let bundles = known.certs.trust_bundles.iter();
        bundles.flat_map(|bundle| &bundle.root_certs).map(|root| root.pem.clone()).collect()
    };
    let (one, other) = (roots(one), roots(other));
    !one.is_empty() && !other.is_empty() && one.is_disjoint(&other)
}
