//! How sure it is that all clients of a port were seen.

use portcullis_api::{Timestamp, Transport};
use serde::Serialize;

use crate::merge::{Peer, PeerKey, PeerTraffic, Workload};
use crate::text::{ago, length};
use crate::window::Window;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Below this many connections hardly anything was seen.
const FEW: u64 = 10;
/// How many clients that call rarely are named.
const NAMED: usize = 3;

/// How sure it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Much may be missing.
    Low,
    /// Something may be missing.
    Medium,
    /// The whole window was observed, and every client called often in it.
    High,
}

impl Level {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
        }
    }
}

/// A level, and every reason why it is not higher.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Confidence {
    /// The level.
    pub level: Level,
    /// What keeps it from being higher, the gravest first.
    pub reasons: Vec<String>,
    #[serde(skip)]
    doubts: Vec<(Level, String)>,
}

impl Confidence {
    /// Lowers it.
    pub(super) fn doubt(&mut self, at_most: Level, why: String) {
        self.level = self.level.min(at_most);
        self.doubts.push((at_most, why));
        self.doubts.sort_by_key(|(level, _)| *level);
        self.reasons = self.doubts.iter().map(|(_, why)| why.clone()).collect();
    }
}

/// What the confidence is computed from.
pub(super) struct Evidence<'a> {
    pub(super) workload: &'a Workload,
    pub(super) traffic: &'a [(PeerKey, PeerTraffic)],
    pub(super) connections: u64,
    pub(super) window: Window,
    pub(super) as_of: Timestamp,
}

impl Evidence<'_> {
    pub(super) fn weigh(&self, called: impl Fn(&Peer, Timestamp) -> String) -> Confidence {
        let mut confidence = Confidence { level: Level::High, reasons: Vec::new(), doubts: Vec::new() };
        self.weigh_time(&mut confidence);
        if self.connections < FEW {
            let seen = crate::text::count(self.connections, "connection");
            confidence.doubt(Level::Low, format!("only {seen} in the window"));
        }
        let evicted = self.workload.sidecars.iter().map(|it| it.evicted).fold(0, u64::saturating_add);
        if evicted > 0 {
            confidence.doubt(Level::Low, format!("{evicted} observations were given up, so the list is not complete"));
        }
        self.weigh_lapsed(&mut confidence, &called);
        self.weigh_rare(&mut confidence, &called);
        if self.workload.sidecars.iter().any(|it| !it.is_persistent) {
            let why = "the ledger is in memory only, so a restart of the sidecar loses it (ledger.folder)";
            confidence.doubt(Level::Medium, why.to_owned());
        }
        confidence
    }

    fn weigh_time(&self, confidence: &mut Confidence) {
        let observed = self.workload.observed();
        let window = self.window.seconds;
        // A restart now and then takes seconds.
        let is_whole = u128::from(observed) * 100 >= u128::from(window) * 99;
        let level = match observed {
            _ if observed < HOUR || observed < window / 2 => Level::Low,
            _ if observed < DAY || !is_whole => Level::Medium,
            _ => return,
        };
        let why = if is_whole {
            format!("a window of {} misses what runs once a day", length(window))
        } else {
            format!("observed for {} of {}", length(observed), length(window))
        };
        confidence.doubt(level, why);
    }

    /// Clients that sent something else than mTLS before the window, and may come back: as far as it is known how often they call.
    fn weigh_lapsed(&self, confidence: &mut Confidence, called: impl Fn(&Peer, Timestamp) -> String) {
        let is_lapsed = |(key, seen): &&(PeerKey, PeerTraffic)| {
            let gone = self.as_of.seconds_since(seen.last);
            let may_return = seen.longest_gap().is_none_or(|interval| interval.saturating_mul(2) >= gone);
            key.transport != Transport::Mtls && seen.total_allowed > 0 && seen.window.allowed == 0 && may_return
        };
        for (key, seen) in self.traffic.iter().filter(is_lapsed).take(NAMED) {
            let often = seen
                .interval()
                .map_or_else(|| "once".to_owned(), |interval| format!("about every {}", length(interval)));
            let why = format!(
                "{} came without mTLS {often}, last {}, which is before the window",
                called(&key.peer, seen.last),
                ago(seen.last, self.as_of)
            );
            confidence.doubt(Level::Low, why);
        }
    }

    /// Clients that call so rarely that the window holds few of their calls: another one like them may not be in it at all.
    fn weigh_rare(&self, confidence: &mut Confidence, called: impl Fn(&Peer, Timestamp) -> String) {
        let mut rare: Vec<(u64, &Peer, Timestamp)> = Vec::new();
        for (key, seen) in self.traffic.iter().filter(|(_, seen)| seen.window.allowed > 0) {
            if let Some(interval) =
                seen.longest_gap().filter(|interval| interval.saturating_mul(3) > self.window.seconds)
            {
                rare.push((interval, &key.peer, seen.last));
            }
        }
        rare.sort_by(|one, other| other.cmp(one));
        for (interval, peer, at) in rare.into_iter().take(NAMED) {
            let why = format!("{} calls about every {} only", called(peer, at), length(interval));
            confidence.doubt(Level::Medium, why);
        }
    }
}
