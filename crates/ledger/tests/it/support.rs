//! A clock that is moved by hand, and short ways to say who was seen.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use portcullis_api::{Direction, Observation, Transport};
use portcullis_identity::SpiffeId;
use portcullis_ledger::{Clock, ConnAttributes, Ledger, RefusalCause};

/// 2026-11-30T00:53:20Z.
pub(crate) const START: i64 = 1_796_000_000;

#[derive(Default)]
pub(crate) struct ManualClock {
    now: AtomicI64,
    running: AtomicU64,
}

impl ManualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { now: AtomicI64::new(START), running: AtomicU64::new(0) })
    }

    /// Time passes.
    pub(crate) fn advance(&self, seconds: u64) {
        self.now.fetch_add(i64::try_from(seconds).unwrap(), Ordering::Relaxed);
        self.running.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Time passes while no process runs.
    pub(crate) fn pause(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
        self.running.store(0, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }
}

impl Clock for ManualClock {
    fn now_unix(&self) -> i64 {
        self.now()
    }

    fn running(&self) -> Duration {
        Duration::from_secs(self.running.load(Ordering::Relaxed))
    }
}

pub(crate) fn ledger(max: usize) -> (Ledger, Arc<ManualClock>) {
    let clock = ManualClock::new();
    (Ledger::new(max, Arc::<ManualClock>::clone(&clock)), clock)
}

pub(crate) fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
}

/// A client without an identity.
pub(crate) fn plain(address: IpAddr, port: u16) -> ConnAttributes<'static> {
    ConnAttributes {
        direction: Direction::Inbound,
        port,
        transport: Transport::Plaintext,
        identity: None,
        address: Some(address),
        dialled: None,
        service: None,
        server_name: None,
    }
}

/// A client with an identity.
pub(crate) fn verified(id: &SpiffeId, port: u16) -> ConnAttributes<'_> {
    ConnAttributes { transport: Transport::Mtls, identity: Some(id), ..plain([10, 0, 0, 1].into(), port) }
}

pub(crate) fn refuse(ledger: &Ledger, seen: &ConnAttributes<'_>, reason: &'static str) {
    ledger.refuse(seen, &RefusalCause { reason, policy: &"shop/strict".into() });
}

pub(crate) fn of_address(ledger: &Ledger, address: IpAddr) -> Vec<Observation> {
    let all = ledger.observations().into_iter();
    all.filter(|seen| seen.peer.identity.is_none() && seen.peer.address == Some(address)).collect()
}
