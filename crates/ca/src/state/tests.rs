use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use portcullis_identity::SpiffeId;

use super::*;
use crate::csr::KeyHash;
use crate::token::TokenNumber;

const NOW: i64 = 1_800_000_000;

fn issuance(who: &str, key: u32, token: Option<TokenNumber>) -> Issuance {
    Issuance {
        id: SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{who}")).unwrap(),
        key: KeyHash::of(&key.to_be_bytes()),
        serial: "40".to_owned(),
        not_after_unix: NOW + 3600,
        anchor: "a0".to_owned(),
        token: token.map(|number| (number, NOW + 600)),
    }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, Options::default()).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_token_serves_once_and_a_key_has_one_holder_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let number = TokenNumber::random().unwrap();
    let first = issuance("cart", 1, Some(number));
    open(folder.path()).commit(&first, NOW).unwrap();
    let store = open(folder.path());
    assert!(store.is_used(number));
    let replayed = store.commit(&issuance("cart", 2, Some(number)), NOW);
    assert_eq!(replayed, Err(CommitError::Refused(Refusal::TokenUsed)));
    let stolen = store.commit(&issuance("web", 1, None), NOW);
    assert_eq!(stolen, Err(CommitError::Refused(Refusal::KeyHeld(first.id.clone()))));
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    assert_eq!(store.commit(&issuance("web", 1, None), NOW + 3601), Ok(()), "the holder's certificate has ended");
    store.bundle(&first.id, "ab", NOW).unwrap();
    drop(store);
    let known = open(folder.path()).identities();
    assert_eq!(
        known[&first.id],
        Identity {
            not_after_unix: NOW + 3600,
            bundle: Some("ab".to_owned()),
            below: [("a0".to_owned(), NOW + 3600)].into(),
        }
    );
}

#[test]
fn of_many_who_bring_one_token_exactly_one_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()));
    let number = TokenNumber::random().unwrap();
    let threads: Vec<_> = (0..20)
        .map(|key| {
            let store = Arc::clone(&store);
            thread::spawn(move || store.commit(&issuance("cart", key, Some(number)), NOW).is_ok())
        })
        .collect();
    let served = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count();
    assert_eq!(served, 1);
}

#[test]
fn one_process_has_the_folder_and_its_files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = open(&path);
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    assert!(matches!(Store::open(&path, Options::default()), Err(StateError::Locked(_))));
    for name in files(&path) {
        let mode = fs::metadata(path.join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    drop(store);
    open(&path);
}

#[test]
fn a_torn_last_line_is_dropped_and_any_other_damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let numbers: Vec<_> = (0..3).map(|_| TokenNumber::random().unwrap()).collect();
    for (key, number) in (0..).zip(&numbers) {
        store.commit(&issuance("cart", key, Some(*number)), NOW).unwrap();
    }
    drop(store);
    let journal = folder.path().join("journal.0");
    let whole = fs::read(&journal).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        fs::write(&journal, &whole[..cut]).unwrap();
        let store = open(folder.path());
        let used: Vec<_> = numbers.iter().map(|number| store.is_used(*number)).collect();
        assert_eq!(used, [true, true, false], "cut at {cut}");
        // What comes next stands on a line of its own.
        store.commit(&issuance("cart", 9, Some(numbers[2])), NOW).unwrap();
        drop(store);
        assert!(open(folder.path()).is_used(numbers[2]));
    }
    let mut bad = whole.clone();
    bad[last - 5] ^= 1;
    fs::write(&journal, &bad).unwrap();
    let error = Store::open(folder.path(), Options::default()).unwrap_err().to_string();
    assert!(error.contains("journal.0:2: damaged"), "{error}");
    bad.clone_from(&whole);
    bad[last + 20..].fill(0);
    fs::write(&journal, &bad).unwrap();
    assert!(!open(folder.path()).is_used(numbers[2]), "zeros of a file system that lost the content");
}

#[test]
fn a_snapshot_replaces_the_journal_and_forgets_what_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options { compact_above: 1000 }).unwrap();
    let numbers: Vec<_> = (0..50).map(|_| TokenNumber::random().unwrap()).collect();
    for (key, number) in (0..).zip(&numbers) {
        store.commit(&issuance("cart", key, Some(*number)), NOW).unwrap();
    }
    drop(store);
    let names = files(folder.path());
    assert!(names.len() == 3 && !names.contains(&"journal.0".to_owned()), "{names:?}");
    let store = Store::open(folder.path(), Options { compact_above: 0 }).unwrap();
    assert!(numbers.iter().all(|number| store.is_used(*number)));
    let mut late = issuance("web", 99, None);
    late.not_after_unix = NOW + 100_000;
    store.commit(&late, NOW + 50_000).unwrap();
    assert!(numbers.iter().all(|number| !store.is_used(*number)));
    assert_eq!(store.identities().len(), 1);
}

#[test]
fn what_a_crash_between_the_steps_of_a_snapshot_leaves_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options { compact_above: 0 }).unwrap();
    let (one, two) = (TokenNumber::random().unwrap(), TokenNumber::random().unwrap());
    store.commit(&issuance("cart", 1, Some(one)), NOW).unwrap();
    drop(store);
    // The snapshot has its name, the new journal is not there yet, the old one still is.
    fs::remove_file(folder.path().join("journal.1")).unwrap();
    fs::write(folder.path().join("journal.0"), "whatever").unwrap();
    fs::write(folder.path().join(".snapshot.0123456789abcdef"), "half").unwrap();
    let store = open(folder.path());
    assert!(store.is_used(one) && !store.is_used(two));
    assert_eq!(files(folder.path()), ["journal.1", "lock", "snapshot"]);
}

#[test]
fn files_that_do_not_go_together_are_refused_and_none_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options { compact_above: 0 }).unwrap();
    let number = TokenNumber::random().unwrap();
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    let snapshot = fs::read(folder.path().join("snapshot")).unwrap();
    store.commit(&issuance("cart", 2, None), NOW).unwrap();
    drop(store);
    open(folder.path()).commit(&issuance("cart", 3, Some(number)), NOW).unwrap();
    let (journal, kept) = (folder.path().join("journal.2"), fs::read(folder.path().join("journal.2")).unwrap());
    let refused = |what: &str| {
        let error = Store::open(folder.path(), Options::default()).unwrap_err().to_string();
        assert!(error.contains("do not go together"), "{what}: {error}");
    };
    // The snapshot is lost, or of an earlier time: that the token was used stands in the journal alone.
    let latest = fs::read(folder.path().join("snapshot")).unwrap();
    fs::remove_file(folder.path().join("snapshot")).unwrap();
    refused("no snapshot");
    fs::write(folder.path().join("snapshot"), snapshot).unwrap();
    refused("an earlier snapshot");
    assert_eq!(fs::read(&journal).unwrap(), kept);
    fs::write(folder.path().join("snapshot"), latest).unwrap();
    assert!(open(folder.path()).is_used(number), "as soon as they go together");
    fs::remove_file(&journal).unwrap();
    refused("no journal");
}

#[test]
fn when_the_disk_fails_nothing_more_is_issued() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options { compact_above: 0 }).unwrap();
    // A folder in the way of the next journal makes the snapshot fail after the batch was written.
    fs::create_dir(folder.path().join("journal.1")).unwrap();
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    assert!(store.broken().is_some());
    assert!(matches!(store.commit(&issuance("cart", 2, None), NOW), Err(CommitError::Broken(_))));
}
