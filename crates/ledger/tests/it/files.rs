//! The folder: restarts, damage, other processes, and what cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_api::Observation;
use portcullis_ledger::{Ledger, LedgerFile, Writer};
use proptest::prelude::*;

use crate::support::{ManualClock, id, plain, refuse, verified};

const FILE: &str = "shop_cart.ledger";

fn start(folder: &Path, clock: &Arc<ManualClock>) -> (Ledger, Writer) {
    let ledger = Ledger::new(10_000, Arc::<ManualClock>::clone(clock));
    let writer = Writer::start(&ledger, LedgerFile { folder, namespace: "shop", name: "cart" }, || ());
    (ledger, writer)
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Traffic of every kind, and what is seen then.
fn traffic(ledger: &Ledger, clock: &ManualClock) -> Vec<Observation> {
    ledger.allow(&verified(&id("web"), 80)).moved(7, 9);
    clock.advance(100_000);
    let mut seen = plain([10, 0, 0, 2].into(), 80);
    (seen.server_name, seen.dialled) = (Some("cart.shop"), Some([10, 0, 0, 9].into()));
    let service = "cart.shop.svc.cluster.local".into();
    seen.service = Some(&service);
    refuse(ledger, &seen, "plaintext_in_strict");
    seen.address = None;
    refuse(ledger, &seen, "no_endpoint");
    drop(ledger.allow(&plain("fd00::7".parse().unwrap(), 81)));
    ledger.name(&[([10, 0, 0, 2].into(), "cron-report.shop".into())].into());
    ledger.observations()
}

fn waits_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_was_seen_outlives_a_restart_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let (ledger, writer) = start(folder.path(), &clock);
    let before = traffic(&ledger, &clock);
    assert!(ledger.is_persistent());
    let since = ledger.since();
    drop(writer);
    assert_eq!(files(folder.path()), [FILE, "shop_cart.lock"]);
    let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // No sidecar runs for a day.
    clock.pause(86_400);
    let (ledger, writer) = start(folder.path(), &clock);
    assert_eq!(ledger.observations(), before);
    assert_eq!((ledger.since(), ledger.observed_seconds()), (since, 100_000));
    clock.advance(50);
    drop(ledger.allow(&verified(&id("web"), 80)));
    drop(writer);
    let (ledger, _writer) = start(folder.path(), &clock);
    let web = ledger.observations().into_iter().find(|seen| seen.peer.identity.is_some()).unwrap();
    assert_eq!((web.allowed, web.bytes_received), (2, 7));
    assert_eq!(web.first_seen, before.iter().find(|seen| seen.peer.identity.is_some()).unwrap().first_seen);
}

#[test]
fn a_new_pair_and_a_new_refusal_are_on_disk_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let (ledger, _writer) = start(folder.path(), &clock);
    let text = || fs::read_to_string(folder.path().join(FILE)).unwrap_or_default();
    for (n, reason) in ["plaintext_in_strict", "authorization_denied"].into_iter().enumerate() {
        for _ in 0..3 {
            refuse(&ledger, &plain([10, 0, 0, 2].into(), 80), reason);
        }
        let began = Instant::now();
        waits_for(reason, || text().contains(reason));
        // A machine under load may be late; the next regular write would be 10 s later.
        assert!(began.elapsed() < Duration::from_secs(5), "{n}: {:?}", began.elapsed());
    }
}

#[test]
fn a_file_that_was_cut_or_changed_is_moved_aside_and_the_start_does_not_fail() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let (ledger, writer) = start(folder.path(), &clock);
    let before = traffic(&ledger, &clock);
    drop(writer);
    let whole = fs::read(folder.path().join(FILE)).unwrap();
    for damaged in (0..whole.len()).step_by(7).map(|end| whole[..end].to_vec()).chain([b"\0\0\0\0".to_vec()]) {
        fs::write(folder.path().join(FILE), &damaged).unwrap();
        let (ledger, writer) = start(folder.path(), &clock);
        assert_eq!(ledger.observation_count(), 0, "{} bytes", damaged.len());
        assert_eq!(fs::read(folder.path().join("shop_cart.damaged")).unwrap(), damaged);
        drop(writer);
    }
    fs::write(folder.path().join(FILE), &whole).unwrap();
    let (ledger, _writer) = start(folder.path(), &clock);
    assert_eq!(ledger.observations(), before);
}

#[test]
fn a_file_of_a_newer_version_is_kept_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let newer = b"{\"kind\":\"portcullis-ledger\",\"version\":2,\"shards\":[]}\nwhatever\n";
    fs::write(folder.path().join(FILE), newer).unwrap();
    let (ledger, writer) = start(folder.path(), &ManualClock::new());
    assert!(ledger.is_persistent());
    drop(writer);
    assert_eq!(fs::read(folder.path().join("shop_cart.version-2")).unwrap(), newer);
    assert!(files(folder.path()).contains(&FILE.to_owned()));
}

#[test]
fn a_second_process_keeps_its_own_in_memory_and_adds_it_when_the_first_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let (first, first_writer) = start(folder.path(), &clock);
    drop(first.allow(&verified(&id("web"), 80)));
    let (second, second_writer) = start(folder.path(), &clock);
    drop(second.allow(&verified(&id("web"), 80)));
    assert!(first.is_persistent() && !second.is_persistent());
    waits_for("the second tries to write", || second.write_failures() > 0);
    assert_eq!(second.observations()[0].allowed, 1);
    drop(first_writer);
    // Its end is its last attempt.
    drop(second_writer);
    assert_eq!(second.observations()[0].allowed, 2);
    let (third, _writer) = start(folder.path(), &clock);
    assert_eq!(third.observations()[0].allowed, 2);
}

#[test]
fn a_folder_that_cannot_be_written_costs_nothing_but_the_file() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    for folder in [parent.path().join("missing"), file, PathBuf::from("/proc/self")] {
        let (ledger, writer) = start(&folder, &ManualClock::new());
        drop(ledger.allow(&verified(&id("web"), 80)));
        assert!(!ledger.is_persistent());
        waits_for("a failed attempt", || ledger.write_failures() > 0);
        drop(writer);
        assert_eq!(ledger.observation_count(), 1);
    }
}

#[test]
fn writing_begins_once_it_is_possible() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("later");
    let (ledger, writer) = start(&folder, &ManualClock::new());
    drop(ledger.allow(&verified(&id("web"), 80)));
    assert!(!ledger.is_persistent());
    fs::create_dir(&folder).unwrap();
    drop(writer);
    assert!(ledger.is_persistent() && folder.join(FILE).exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Processes come and go; counts are those of all of them together.
    #[test]
    fn counts_add_up_over_any_number_of_processes(runs in prop::collection::vec(prop::collection::vec(0_u8..5, 0..20), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new();
        for run in &runs {
            let (ledger, _writer) = start(folder.path(), &clock);
            for n in run {
                clock.advance(1);
                drop(ledger.allow(&plain([10, 0, 0, *n].into(), 80)));
            }
            clock.pause(10);
        }
        let (ledger, _writer) = start(folder.path(), &clock);
        for seen in ledger.observations() {
            let std::net::IpAddr::V4(address) = seen.peer.address.unwrap() else { unreachable!() };
            let count = runs.iter().flatten().filter(|n| **n == address.octets()[3]).count();
            prop_assert_eq!(seen.allowed, count as u64);
        }
        let distinct: std::collections::BTreeSet<_> = runs.iter().flatten().collect();
        prop_assert_eq!(ledger.observation_count(), distinct.len());
    }
}
