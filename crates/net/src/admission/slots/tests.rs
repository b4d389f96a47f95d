use std::pin::pin;
use std::task::{Context, Waker};

use super::*;

fn source(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

/// Asks once; an eviction is reported once.
fn is_evicted(slot: &Slot) -> bool {
    pin!(slot.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn evicted(slots: &[Slot]) -> Vec<bool> {
    slots.iter().map(is_evicted).collect()
}

fn sizes(slots: &EvictingSlots) -> (usize, usize, usize) {
    let table = slots.lock();
    (table.entries.len(), table.without_progress.len(), table.held_by_source.values().sum())
}

#[test]
fn the_oldest_without_progress_is_evicted_and_never_the_newest() {
    let slots = EvictingSlots::new(4);
    let held: Vec<Slot> = (0..4).map(|n| slots.acquire(source(n))).collect();
    held[0].made_progress();
    let fifth = slots.acquire(source(4));
    assert_eq!(evicted(&held), [false, true, false, false], "the first one has made progress");
    assert!(!is_evicted(&fifth));
    assert_eq!(sizes(&slots), (4, 3, 4));
}

#[test]
fn where_none_makes_progress_the_oldest_are_evicted_in_order() {
    let slots = EvictingSlots::new(4);
    let held: Vec<Slot> = (0..6).map(|n| slots.acquire(source(n))).collect();
    assert_eq!(evicted(&held), [true, true, false, false, false, false]);
    drop(held);
    assert_eq!(sizes(&slots), (0, 0, 0));
}

#[test]
fn where_all_have_made_progress_the_oldest_is_evicted() {
    let slots = EvictingSlots::new(3);
    let held: Vec<Slot> = (0..3).map(|n| slots.acquire(source(n))).collect();
    held.iter().for_each(Slot::made_progress);
    let late = slots.acquire(source(9));
    assert_eq!(evicted(&held), [true, false, false]);
    assert!(!is_evicted(&late));
}

#[test]
fn a_source_with_half_of_the_slots_loses_its_own() {
    let slots = EvictingSlots::new(8);
    let honest = slots.acquire(source(1));
    let flood: Vec<Slot> = (0..100).map(|_| slots.acquire(source(2))).collect();
    assert!(!is_evicted(&honest));
    let kept: Vec<usize> = (0..100).filter(|n| !is_evicted(&flood[*n])).collect();
    assert_eq!(kept, [96, 97, 98, 99], "its newest");
    let others: Vec<Slot> = (3..6).map(|n| slots.acquire(source(n))).collect();
    assert_eq!(sizes(&slots).0, 8);
    drop((others, flood, honest));
    assert_eq!(sizes(&slots), (0, 0, 0), "nothing stays behind");
}

/// A client with an IPv6 network has 2^64 addresses, so without grouping each of its connections would be another source.
#[test]
fn an_ipv6_network_is_one_source_whatever_addresses_it_uses() {
    let slots = EvictingSlots::new(8);
    let honest: Vec<Slot> = (1..4).map(|n| slots.acquire(source(n))).collect();
    let address = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, n, n, n, n]);
    let flood: Vec<Slot> = (0..100).map(|n| slots.acquire(address(n))).collect();
    assert_eq!(evicted(&honest), [false, false, false]);
    assert_eq!(flood.iter().filter(|slot| !is_evicted(slot)).count(), 4, "half of the slots");
    let neighbour = slots.acquire("2001:db8:0:8::1".parse().unwrap());
    assert_eq!(evicted(&honest), [false, false, false], "there was a free slot for another network");
    assert!(!is_evicted(&neighbour));
}

#[test]
fn a_limit_of_one_still_lets_one_in() {
    let slots = EvictingSlots::new(1);
    let (one, two) = (slots.acquire(source(1)), slots.acquire(source(1)));
    assert!(is_evicted(&one) && !is_evicted(&two));
}

#[test]
fn evicting_the_idle_spares_those_with_progress() {
    let slots = EvictingSlots::new(4);
    let held: Vec<Slot> = (0..2).map(|n| slots.acquire(source(n))).collect();
    held[0].made_progress();
    slots.evict_without_progress();
    slots.evict_without_progress();
    assert_eq!(evicted(&held), [false, true]);
}

#[tokio::test]
async fn a_waiting_connection_learns_of_its_eviction() {
    let slots = EvictingSlots::new(1);
    let first = slots.acquire(source(1));
    let waiting = tokio::spawn(async move { first.evicted().await });
    tokio::task::yield_now().await;
    let _second = slots.acquire(source(2));
    waiting.await.unwrap();
}
