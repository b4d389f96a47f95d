//! What a lookup found.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::LookupError;

/// How long an answer is valid that says nothing about it: from the hosts file, or "no such name" without a time.
pub(super) const DEFAULT_VALIDITY: Duration = Duration::from_secs(5);

/// What a lookup found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Sorted, without duplicates; IPv4 addresses in their own form, never mapped to IPv6. Empty: there is no such name, or it
    /// has no address.
    pub addresses: Vec<IpAddr>,
    /// How long the answer is valid, as the servers say.
    pub valid_for: Duration,
    /// Set if one of the two questions (A and AAAA) failed, so that addresses may be missing.
    pub incomplete: Option<LookupError>,
}

impl Answer {
    /// A complete answer that no server gave.
    pub(super) fn local(addresses: Vec<IpAddr>) -> Self {
        Self { addresses: normalized(addresses), valid_for: DEFAULT_VALIDITY, incomplete: None }
    }
}

/// Sorted, canonical and without duplicates.
pub(super) fn normalized(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = addresses.into_iter().map(|address| address.to_canonical()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
