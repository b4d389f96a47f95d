//! What a connection costs.

use std::hint::black_box;
use std::time::Instant;

use crate::support::{id, ledger, plain, verified};

#[test]
fn a_known_pair_allocates_nothing() {
    let (ledger, _clock) = ledger(10_000);
    let web = id("web");
    let policy = "shop/strict".into();
    let refusal = portcullis_ledger::RefusalCause { reason: "plaintext_in_strict", policy: &policy };
    let once = || {
        ledger.allow(&verified(&web, 80)).moved(100, 100);
        ledger.refuse(&plain([10, 0, 0, 2].into(), 80), &refusal);
    };
    once();
    let counted = allocation_counter::measure(once);
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

/// `cargo test --release -p portcullis-ledger -- --ignored --nocapture cost`
#[test]
#[ignore = "a measurement: to be run alone, with optimisation"]
fn nanoseconds_of_a_connection() {
    let (ledger, _clock) = ledger(10_000);
    let ids: Vec<_> = (0..1000).map(|n| id(&format!("w{n}"))).collect();
    let round = || {
        for id in &ids {
            black_box(ledger.allow(&verified(id, 80))).moved(1000, 1000);
        }
    };
    round();
    let began = Instant::now();
    for _ in 0..1000 {
        round();
    }
    let nanoseconds = began.elapsed().as_nanos() / 1_000_000;
    println!("admitted and finished, known pair: {nanoseconds} ns");
    let began = Instant::now();
    for n in 0..1_000_000_u32 {
        drop(ledger.allow(&plain(std::net::Ipv4Addr::from(n).into(), 80)));
    }
    println!("new pair in a full table: {} ns", began.elapsed().as_nanos() / 1_000_000);
    assert!(nanoseconds <= 300, "{nanoseconds} ns");
}
