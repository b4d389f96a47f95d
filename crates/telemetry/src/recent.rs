//! The connections that ended last.
//!
//! [`MAX`] of them, and of those before the last [`MAX_DENIED`] that were refused or failed, so that traffic does not push them out.
//! Nothing is formatted until somebody asks.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_api::{self as api, EndedConnection, Timestamp};
use portcullis_identity::SpiffeId;

use crate::connection::Direction;
use crate::facts::RuleIndex;
use crate::outcome::{Decision, ResponseFlag};
use crate::printable::printable;

/// Connections that are kept.
const MAX: usize = 1024;
/// Those before them that are kept because they were refused or failed.
const MAX_DENIED: usize = 256;

/// Which of the connections to show.
#[derive(Clone, Debug, Default)]
pub struct RecentFilter {
    /// Those that ended after this one, the first first; without it, the newest.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only those that were refused or failed.
    pub denied: bool,
    /// Only this one, by its number in logs.
    pub conn: Option<u64>,
    /// Only those of this peer: its SPIFFE ID, an address of either side, or a service.
    pub peer: Option<String>,
}

/// Connections that ended, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct EndedConnections {
    /// Ask for those after this one next.
    pub newest: u64,
    /// How many ended after the requested one and are not kept any more.
    pub missed: u64,
    /// The connections.
    pub connections: Vec<EndedConnection>,
}

#[derive(Default)]
pub(crate) struct RecentConnections(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// How many have ended.
    count: u64,
    latest: VecDeque<Ended>,
    /// Older ones that were refused or failed.
    denied: VecDeque<Ended>,
}

/// One that ended.
#[derive(Clone)]
pub(crate) struct Ended {
    /// Set when it is kept.
    pub(crate) sequence: u64,
    pub(crate) id: u64,
    pub(crate) at: i64,
    pub(crate) duration_ms: u64,
    pub(crate) direction: Direction,
    pub(crate) src: SocketAddr,
    pub(crate) dst: Option<SocketAddr>,
    pub(crate) peer: Option<SpiffeId>,
    pub(crate) service: Option<Arc<str>>,
    pub(crate) port: Option<u16>,
    pub(crate) mode: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) decision: Decision,
    pub(crate) flag: ResponseFlag,
    pub(crate) reason: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) error: Option<Box<str>>,
    pub(crate) policy: Arc<str>,
    pub(crate) rule: Option<RuleIndex>,
    pub(crate) tls: Option<[&'static str; 3]>,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl RecentConnections {
    pub(crate) fn push(&self, mut ended: Ended) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count = kept.count.saturating_add(1);
        ended.sequence = kept.count;
        if kept.latest.len() >= MAX
            && let Some(oldest) = kept.latest.pop_front()
            && oldest.is_denied()
        {
            if kept.denied.len() >= MAX_DENIED {
                kept.denied.pop_front();
            }
            kept.denied.push_back(oldest);
        }
        kept.latest.push_back(ended);
    }

    pub(crate) fn list(&self, filter: &RecentFilter) -> EndedConnections {
        let peer = filter.peer.as_deref().map(PeerFilter::new);
        let after = filter.after.unwrap_or(0);
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let later: Vec<&Ended> =
            kept.denied.iter().chain(&kept.latest).filter(|ended| ended.sequence > after).collect();
        let known = u64::try_from(later.len()).unwrap_or(u64::MAX);
        let missed = if filter.after.is_some() { kept.count.saturating_sub(after).saturating_sub(known) } else { 0 };
        let mut found: Vec<Ended> = later
            .into_iter()
            .filter(|ended| !filter.denied || ended.is_denied())
            .filter(|ended| filter.conn.is_none_or(|conn| ended.id == conn))
            .filter(|ended| peer.as_ref().is_none_or(|peer| peer.matches(ended)))
            .cloned()
            .collect();
        let mut newest = kept.count;
        drop(kept);
        let limit = filter.limit.unwrap_or(usize::MAX);
        if found.len() > limit {
            if filter.after.is_some() {
                found.truncate(limit);
                newest = found.last().map_or(after, |last| last.sequence);
            } else {
                found.drain(..found.len() - limit);
            }
        }
        EndedConnections { newest, missed, connections: found.into_iter().map(Ended::show).collect() }
    }
}

/// A peer that is asked for.
enum PeerFilter<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl<'a> PeerFilter<'a> {
    fn new(text: &'a str) -> Self {
        text.parse().map_or(Self::Name(text), |address: IpAddr| Self::Address(address.to_canonical()))
    }

    fn matches(&self, ended: &Ended) -> bool {
        match self {
            Self::Address(address) => {
                [Some(ended.src), ended.dst].into_iter().flatten().any(|side| side.ip() == *address)
            }
            Self::Name(name) => {
                ended.peer.as_ref().is_some_and(|peer| peer.as_str() == *name)
                    || ended.service.as_deref() == Some(*name)
            }
        }
    }
}

impl Ended {
    fn is_denied(&self) -> bool {
        self.decision == Decision::Deny && self.flag != ResponseFlag::Abandoned
    }

    fn show(self) -> EndedConnection {
        let tls = |[version, group, cipher]: [&str; 3]| api::Tls {
            version: version.to_owned(),
            group: group.to_owned(),
            cipher: cipher.to_owned(),
        };
        EndedConnection {
            sequence: self.sequence,
            conn_id: self.id,
            ended_at: Timestamp::from_unix(self.at),
            duration_ms: self.duration_ms,
            direction: self.direction.into(),
            source: self.src.to_string(),
            destination: self.dst.map(|address| address.to_string()),
            peer: self.peer.map(|peer| peer.as_str().to_owned()),
            service: self.service.map(|service| service.to_string()),
            port: self.port,
            mode: self.mode.to_owned(),
            transport: transport(self.transport),
            decision: self.decision.as_str().to_owned(),
            reason: self.reason.to_owned(),
            hint: self.hint.to_owned(),
            error: self.error.map(|error| printable(&error).into_owned()),
            policy: self.policy.to_string(),
            rule: self.rule.map(RuleIndex::get),
            tls: self.tls.map(tls),
            server_name: self.server_name.map(String::from),
            bytes_received: self.received,
            bytes_sent: self.sent,
        }
    }
}

/// The word of a record.
pub(crate) fn transport(word: &str) -> api::Transport {
    let all = [api::Transport::Mtls, api::Transport::Tls, api::Transport::Plaintext];
    all.into_iter().find(|transport| transport.as_str() == word).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: u64, decision: Decision, flag: ResponseFlag) -> Ended {
        Ended {
            sequence: 0,
            id,
            at: 1_796_000_000,
            duration_ms: 5,
            direction: Direction::Inbound,
            src: "10.0.0.2:4000".parse().unwrap(),
            dst: Some("10.0.0.1:80".parse().unwrap()),
            peer: Some(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()),
            service: Some("cart.shop".into()),
            port: Some(80),
            mode: "STRICT",
            transport: "mtls",
            decision,
            flag,
            reason: "x",
            hint: "",
            error: Some("a\u{202e}b".into()),
            policy: "shop/default".into(),
            rule: RuleIndex::new(2),
            tls: Some(["TLSv1.3", "X25519", "TLS13_AES_128_GCM_SHA256"]),
            server_name: None,
            received: 1,
            sent: 2,
        }
    }

    fn sequences(kept: &RecentConnections, filter: &RecentFilter) -> Vec<u64> {
        kept.list(filter).connections.iter().map(|ended| ended.sequence).collect()
    }

    #[test]
    fn traffic_does_not_push_out_what_was_refused() {
        let kept = RecentConnections::default();
        for n in 1..=5000_u64 {
            // The first 300 are refused, and one of those that follow each hundred.
            let is_denied = n <= 300 || n % 100 == 0;
            let decision = if is_denied { Decision::Deny } else { Decision::Allow };
            kept.push(ended(n, decision, if is_denied { ResponseFlag::Deny } else { ResponseFlag::None }));
        }
        let all = sequences(&kept, &RecentFilter::default());
        assert_eq!(all.len(), MAX + MAX_DENIED);
        assert!(all.is_sorted() && all.ends_with(&[4999, 5000]));
        let denied = sequences(&kept, &RecentFilter { denied: true, ..RecentFilter::default() });
        // The last 256 of those up to 3976, then those in the last 1024.
        let expected: Vec<u64> = (1..=300).chain((4..=50).map(|n| n * 100)).collect();
        assert_eq!(denied, expected[expected.len() - 11 - MAX_DENIED..]);
    }

    #[test]
    fn a_reader_that_follows_is_told_each_one_once_or_how_many_it_missed() {
        let kept = RecentConnections::default();
        let (mut after, mut seen, mut missed) = (0, Vec::new(), 0);
        for n in 1..=9000_u64 {
            kept.push(ended(n, Decision::Allow, ResponseFlag::None));
            if n % 1500 == 0 || n % 700 == 0 {
                loop {
                    let found =
                        kept.list(&RecentFilter { after: Some(after), limit: Some(100), ..RecentFilter::default() });
                    missed += found.missed;
                    seen.extend(found.connections.iter().map(|ended| ended.sequence));
                    if found.newest == after {
                        break;
                    }
                    after = found.newest;
                }
            }
        }
        assert!(seen.is_sorted_by(|one, next| one < next));
        assert_eq!(after, 9000);
        assert_eq!(u64::try_from(seen.len()).unwrap() + missed, 9000);
    }

    #[test]
    fn one_is_found_by_its_number_and_by_either_side() {
        let kept = RecentConnections::default();
        kept.push(ended(7, Decision::Allow, ResponseFlag::None));
        kept.push(Ended { peer: None, service: None, ..ended(8, Decision::Deny, ResponseFlag::Abandoned) });
        let of = |filter: RecentFilter| sequences(&kept, &filter);
        let peer = |text: &str| RecentFilter { peer: Some(text.to_owned()), ..RecentFilter::default() };
        assert_eq!(of(RecentFilter { conn: Some(8), ..RecentFilter::default() }), [2]);
        assert_eq!(of(peer("spiffe://cluster.local/ns/shop/sa/web")), [1]);
        assert_eq!(
            (of(peer("cart.shop")), of(peer("10.0.0.1")), of(peer("::ffff:10.0.0.2"))),
            (vec![1], vec![1, 2], vec![1, 2])
        );
        assert_eq!((of(peer("10.0.0.3")), of(peer("web"))), (vec![], vec![]));
        assert_eq!(
            of(RecentFilter { denied: true, ..RecentFilter::default() }),
            Vec::<u64>::new(),
            "who went away was not refused"
        );
        let shown = kept.list(&RecentFilter::default()).connections.remove(0);
        assert_eq!((shown.error.as_deref(), shown.rule), (Some("a\\u{202e}b"), Some(2)));
    }

    /// The bound that the documentation names.
    #[test]
    fn the_memory_of_all_of_them_is_bounded() {
        let bytes = (MAX + MAX_DENIED) * size_of::<Ended>();
        assert!(bytes < 450_000, "{bytes}");
    }
}
