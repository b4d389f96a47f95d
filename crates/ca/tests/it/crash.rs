//! A CA that is killed at any point has forgotten nothing that it acknowledged.
//!
//! The process that is killed is this very test program, started again with a folder in its environment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use portcullis_ca::state::{Issuance, Options, StateError, Store, UsedToken};
use portcullis_ca::{KeyHash, TokenNumber};
use portcullis_identity::SpiffeId;

const FOLDER: &str = "PORTCULLIS_TEST_STATE";
const NOW: i64 = 1_800_000_000;
const KILLS: u64 = 200;

fn open(folder: &Path) -> Store {
    loop {
        // So short that snapshots are as frequent as kills.
        match Store::open(folder, Options { compact_above: 4_000 }) {
            // A process that another thread starts has copies of all open files until it executes its program.
            Err(StateError::Locked(_)) => thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Commits one token after the other, in two threads, and prints each one that was acknowledged.
#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = open(Path::new(&folder));
    let issue = |who: &str| {
        loop {
            let number = TokenNumber::random().unwrap();
            let issuance = Issuance {
                id: SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{who}")).unwrap(),
                key: KeyHash::parse(&format!("{number}{number}")).unwrap(),
                previous: None,
                bundle_digest: None,
                serial: "40".to_owned(),
                not_after_unix: NOW + 1_000_000,
                anchor: "a0".to_owned(),
                token: Some(UsedToken { number, expires_unix: NOW + 1_000_000 }),
            };
            store.commit(&issuance, NOW).unwrap();
            // In one write, so that a kill leaves no half of it.
            std::io::stdout().write_all(format!("ack {who} {number}\n").as_bytes()).unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| issue("cart"));
        issue("web");
    });
}

/// Each in a folder of its own, one after the other there.
const FOLDERS: u64 = 8;

#[test]
fn a_ca_killed_at_random_points_has_forgotten_nothing_that_it_acknowledged() {
    let acknowledged: usize = thread::scope(|scope| {
        let folders: Vec<_> = (0..FOLDERS).map(|folder| scope.spawn(move || kill_again_and_again(folder))).collect();
        folders.into_iter().map(|folder| folder.join().unwrap()).sum()
    });
    assert!(acknowledged >= 150, "{acknowledged} were acknowledged");
}

/// Kills the process `KILLS / FOLDERS` times, and returns how many commits were acknowledged.
fn kill_again_and_again(seed: u64) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1);
    for kill in 0..KILLS / FOLDERS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::the_process_that_is_killed", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (first, works) = mpsc::channel();
        let reader = thread::spawn(move || {
            let parse = |line: String| {
                let mut words = line.split(' ').skip_while(|word| !word.ends_with("ack"));
                words.next()?;
                let ack = (words.next()?.to_owned(), TokenNumber::parse(words.next()?)?);
                let _received = first.send(());
                Some(ack)
            };
            lines.lines().map_while(Result::ok).filter_map(parse).collect::<Vec<_>>()
        });
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Mostly while it issues; every fourth one while it starts, or at whatever it is by then.
        if kill % 4 != 0 {
            works.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        thread::sleep(Duration::from_micros((random >> 33) % 20_000));
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
        let store = open(folder.path());
        for (who, number) in &acknowledged {
            assert!(store.is_used(*number, i64::MAX), "kill {kill}: a token that {who} used is forgotten");
        }
    }
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(!names.iter().any(|name| name == "journal.0"), "there were snapshots");
    acknowledged.len()
}
