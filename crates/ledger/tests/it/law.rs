//! What the ledger says is a plain recount of what happened.

use std::net::IpAddr;

use portcullis_api::{Direction, Timestamp, Transport};
use portcullis_ledger::{ConnAttributes, RefusalCause};
use proptest::prelude::*;

use crate::support::{id, ledger};

const REASONS: [&str; 3] = ["plaintext_in_strict", "unknown_ca", "authorization_denied"];
const POLICIES: [&str; 2] = ["shop/strict", "shop/allow-web"];

#[derive(Clone, Debug, Eq, PartialEq)]
struct Pair {
    inbound: bool,
    port: u16,
    transport: Transport,
    /// The first three have an identity.
    peer: u8,
}

#[derive(Clone, Debug)]
enum Event {
    Allow(Pair),
    Refuse(Pair, usize, usize),
    /// Of the connections so far, the one at this place (modulo their number).
    Move(usize, u64, u64),
    Cut(usize, usize),
    Wait(u64),
}

fn pair() -> impl Strategy<Value = Pair> {
    let transport =
        prop::sample::select(vec![Transport::Mtls, Transport::Tls, Transport::Plaintext, Transport::Unknown]);
    (any::<bool>(), 80_u16..83, transport, 0_u8..6).prop_map(|(inbound, port, transport, peer)| Pair {
        inbound,
        port,
        transport,
        peer,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => pair().prop_map(Event::Allow),
        2 => (pair(), 0_usize..3, 0_usize..2).prop_map(|(pair, reason, policy)| Event::Refuse(pair, reason, policy)),
        2 => (any::<usize>(), 0_u64..5000, 0_u64..5000).prop_map(|(at, received, sent)| Event::Move(at, received, sent)),
        1 => (any::<usize>(), 0_usize..3).prop_map(|(at, reason)| Event::Cut(at, reason)),
        2 => prop_oneof![0_u64..3, 0_u64..300_000].prop_map(Event::Wait),
    ]
}

/// What happened to one pair, and when.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Allowed,
    Refused(&'static str, &'static str),
    Moved(u64, u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_ledger_says_what_a_recount_of_the_events_says(events in prop::collection::vec(event(), 1..120)) {
        let (ledger, clock) = ledger(10_000);
        let ids = ["web", "cart", "cron"].map(id);
        let address = |peer: u8| IpAddr::from([10, 0, 0, peer]);
        let mut open = Vec::new();
        let mut facts: Vec<(Pair, i64, Fact)> = Vec::new();
        let policies = POLICIES.map(std::sync::Arc::<str>::from);
        for event in events {
            let seen = |pair: &Pair| ConnAttributes {
                direction: if pair.inbound { Direction::Inbound } else { Direction::Outbound },
                port: pair.port,
                transport: pair.transport,
                identity: ids.get(usize::from(pair.peer)),
                address: Some(address(pair.peer)),
                dialled: None,
                service: None,
                server_name: None,
            };
            match event {
                Event::Allow(pair) => {
                    open.push((pair.clone(), ledger.allow(&seen(&pair))));
                    facts.push((pair, clock.now(), Fact::Allowed));
                }
                Event::Refuse(pair, reason, policy) => {
                    ledger.refuse(&seen(&pair), &RefusalCause { reason: REASONS[reason], policy: &policies[policy] });
                    facts.push((pair, clock.now(), Fact::Refused(REASONS[reason], POLICIES[policy])));
                }
                Event::Move(at, received, sent) if !open.is_empty() => {
                    let (pair, observed) = &open[at % open.len()];
                    observed.moved(received, sent);
                    facts.push((pair.clone(), clock.now(), Fact::Moved(received, sent)));
                }
                Event::Cut(at, reason) if !open.is_empty() => {
                    let (pair, observed) = open.swap_remove(at % open.len());
                    observed.cut(&RefusalCause { reason: REASONS[reason], policy: &policies[0] });
                    facts.push((pair, clock.now(), Fact::Refused(REASONS[reason], POLICIES[0])));
                }
                Event::Wait(seconds) => clock.advance(seconds),
                Event::Move(..) | Event::Cut(..) => {}
            }
        }
        let today = Timestamp::from_unix(clock.now()).day();
        let observations = ledger.observations();
        let pairs: Vec<&Pair> = facts.iter().enumerate()
            .filter(|(at, (pair, ..))| facts[..*at].iter().all(|(earlier, ..)| earlier != pair))
            .map(|(_, (pair, ..))| pair).collect();
        prop_assert_eq!(observations.len(), pairs.len());
        for pair in pairs {
            let own: Vec<(i64, Fact)> =
                facts.iter().filter(|(other, ..)| other == pair).map(|(_, at, fact)| (*at, *fact)).collect();
            let found: Vec<_> = observations.iter().filter(|seen| {
                let is_peer = match ids.get(usize::from(pair.peer)) {
                    Some(id) => seen.peer.identity.as_deref() == Some(id.as_str()),
                    None => seen.peer.identity.is_none() && seen.peer.address == Some(address(pair.peer)),
                };
                is_peer && seen.port == pair.port && seen.transport == pair.transport
                    && (seen.direction == Direction::Inbound) == pair.inbound
            }).collect();
            prop_assert_eq!(found.len(), 1);
            let seen = found[0];
            let count = |wanted: fn(&Fact) -> bool| u64::try_from(own.iter().filter(|(_, fact)| wanted(fact)).count()).unwrap();
            prop_assert_eq!(seen.allowed, count(|fact| matches!(fact, Fact::Allowed)));
            prop_assert_eq!(seen.refused, count(|fact| matches!(fact, Fact::Refused(..))));
            let moved = own.iter().fold((0, 0), |sum, (_, fact)| match fact {
                Fact::Moved(received, sent) => (sum.0 + received, sum.1 + sent),
                _ => sum,
            });
            prop_assert_eq!((seen.bytes_received, seen.bytes_sent), moved);
            prop_assert_eq!(seen.first_seen.unix(), own[0].0);
            let visible = |fact: &Fact| !matches!(fact, Fact::Moved(0, 0));
            prop_assert_eq!(Some(seen.last_seen.unix()), own.iter().rev().find(|(_, fact)| visible(fact)).map(|(at, _)| *at));
            let last = own.iter().rev().find_map(|(at, fact)| match fact {
                Fact::Refused(reason, policy) => Some((*reason, *policy, *at)),
                _ => None,
            });
            let shown = seen.last_refusal.as_ref().map(|last| (last.reason.as_str(), last.policy.as_str(), last.at.unix()));
            prop_assert_eq!(shown, last);
            for day in today - 7..=today {
                let of_day = |wanted: fn(&Fact) -> bool| own.iter()
                    .filter(|(at, fact)| Timestamp::from_unix(*at).day() == day && wanted(fact)).count() as u64;
                let shown = seen.days.iter().find(|count| count.day == day).map_or((0, 0), |count| (count.allowed, count.refused));
                prop_assert_eq!(
                    shown,
                    (of_day(|fact| matches!(fact, Fact::Allowed)), of_day(|fact| matches!(fact, Fact::Refused(..))))
                );
            }
            prop_assert!(seen.days.len() <= 8 && seen.days.is_sorted_by_key(|count| count.day));
        }
    }
}
