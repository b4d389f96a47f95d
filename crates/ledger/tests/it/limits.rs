//! Floods: what is given up, and what is not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::support::{id, ledger, of_address, plain, refuse, verified};

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

#[test]
fn a_scan_of_all_ports_takes_the_room_of_one_client() {
    let (ledger, _clock) = ledger(10_000);
    for port in 1..=u16::MAX {
        refuse(&ledger, &plain(address(1), port), "plaintext_in_strict");
    }
    assert_eq!(ledger.observation_count(), 128);
    assert_eq!(ledger.evicted(), 65_535 - 128);
    let ports: BTreeSet<u16> = ledger.observations().iter().map(|seen| seen.port).collect();
    assert_eq!(ports.len(), 128);
}

#[test]
fn an_ipv6_network_is_one_client_to_the_limits_and_each_address_is_told() {
    let (ledger, clock) = ledger(10_000);
    let of_network = |n: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 7, 0, 0, 0, n));
    for n in 0..100 {
        drop(ledger.allow(&plain(of_network(n), 80)));
    }
    assert_eq!(ledger.observation_count(), 100, "the containers of a network share its /64");
    let _other = ledger.allow(&plain(Ipv6Addr::new(0xfd00, 0, 0, 8, 0, 0, 0, 1).into(), 80));
    for n in 100..20_000 {
        clock.advance(1);
        refuse(&ledger, &plain(of_network(n), 80), "plaintext_in_strict");
    }
    assert_eq!(ledger.observation_count(), 129);
    assert_eq!(of_address(&ledger, of_network(19_999)).len(), 1, "the newest");
}

#[test]
fn a_flood_of_new_clients_takes_nothing_from_identities_and_known_clients() {
    let (ledger, clock) = ledger(1000);
    let ids: Vec<_> = (0..500).map(|n| id(&format!("w{n}"))).collect();
    let known = || (0..250).map(|n| plain(address(n), 80));
    for seen in known() {
        drop(ledger.allow(&seen));
    }
    clock.advance(3600);
    for seen in known() {
        drop(ledger.allow(&seen));
    }
    for id in &ids {
        drop(ledger.allow(&verified(id, 80)));
    }
    // All of them are less recent than each client of the flood.
    for n in 0..50_000 {
        if n % 10 == 0 {
            clock.advance(1);
        }
        refuse(&ledger, &plain(address(100_000 + n), 80), "plaintext_in_strict");
    }
    assert_eq!(ledger.observation_count(), 1000);
    let all = ledger.observations();
    assert_eq!(all.iter().filter(|seen| seen.peer.identity.is_some()).count(), 500);
    let is_known =
        |n: u32| all.iter().any(|seen| seen.peer.address == Some(address(n)) && seen.peer.identity.is_none());
    assert!((0..250).all(is_known));
    assert_eq!(ledger.evicted(), 50_000 - 250);
}

#[test]
fn many_identities_leave_room_for_a_client_without_one() {
    let (ledger, clock) = ledger(1000);
    let ids: Vec<_> = (0..2000).map(|n| id(&format!("w{n}"))).collect();
    for id in &ids {
        clock.advance(1);
        drop(ledger.allow(&verified(id, 80)));
    }
    assert_eq!(ledger.observation_count(), 1000, "nobody else needs the room");
    drop(ledger.allow(&plain(address(1), 80)));
    for id in &ids {
        clock.advance(1);
        drop(ledger.allow(&verified(id, 80)));
    }
    assert_eq!(of_address(&ledger, address(1)).len(), 1, "readiness must not miss it");
}

#[test]
fn the_least_recently_seen_is_given_up_exactly() {
    let (ledger, clock) = ledger(400);
    let ids: Vec<_> = (0..600).map(|n| id(&format!("w{n}"))).collect();
    for id in &ids[..400] {
        clock.advance(1);
        drop(ledger.allow(&verified(id, 80)));
    }
    // Every third one is seen again, some of them after the first eviction.
    for (n, id) in ids[..400].iter().enumerate().filter(|(n, _)| n % 3 == 0) {
        clock.advance(1);
        drop(ledger.allow(&verified(id, 80)));
        if n == 150 {
            clock.advance(1);
            drop(ledger.allow(&verified(&ids[400], 80)));
        }
    }
    for id in &ids[401..600] {
        clock.advance(1);
        drop(ledger.allow(&verified(id, 80)));
    }
    let kept: BTreeSet<String> = ledger.observations().into_iter().filter_map(|seen| seen.peer.identity).collect();
    // 200 were given up: the first 200 of those that were not seen again.
    let gone: Vec<usize> = (0..600).filter(|n| !kept.contains(ids[*n].as_str())).collect();
    let expected: Vec<usize> = (0..400).filter(|n| n % 3 != 0).take(200).collect();
    assert_eq!(gone, expected);
}

#[test]
fn what_was_given_up_is_counted_anew_when_it_comes_again() {
    let (ledger, clock) = ledger(100);
    let old = ledger.allow(&verified(&id("old"), 80));
    for n in 0..200 {
        clock.advance(1);
        drop(ledger.allow(&verified(&id(&format!("w{n}")), 80)));
    }
    // Its connection is still open.
    old.moved(5, 5);
    assert_eq!(ledger.observation_count(), 100);
    drop(ledger.allow(&verified(&id("old"), 80)));
    let again =
        ledger.observations().into_iter().find(|seen| seen.peer.identity.as_deref() == Some(id("old").as_str()));
    assert_eq!(again.map(|seen| (seen.allowed, seen.bytes_sent)), Some((1, 0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Whoever comes in whatever order, the limit holds, and half of the table is safe for identities.
    #[test]
    fn the_limit_holds_and_nothing_is_lost_uncounted(
        steps in prop::collection::vec((0_u8..3, 0_u32..400, 0_u64..2000), 1..1500), max in 100_usize..200,
    ) {
        let (ledger, clock) = ledger(max);
        let mut identities = BTreeSet::new();
        for (kind, n, wait) in steps {
            clock.advance(wait);
            match kind {
                0 if identities.len() < max / 2 || identities.contains(&n) => {
                    identities.insert(n);
                    drop(ledger.allow(&verified(&id(&format!("w{n}")), 80)));
                }
                1 => refuse(&ledger, &plain(address(n), 80), "plaintext_in_strict"),
                _ => drop(ledger.allow(&plain(address(n), 81))),
            }
            prop_assert!(ledger.observation_count() <= max);
        }
        let found = ledger.observations();
        prop_assert_eq!(found.len(), ledger.observation_count());
        prop_assert_eq!(found.iter().filter(|seen| seen.peer.identity.is_some()).count(), identities.len());
    }
}
