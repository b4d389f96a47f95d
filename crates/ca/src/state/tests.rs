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
/// Of every token here.
const END: i64 = NOW + 600;

fn issuance(who: &str, key: u32, token: Option<TokenNumber>) -> Issuance {
    Issuance {
        id: SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{who}")).unwrap(),
        key: KeyHash::of(&key.to_be_bytes()),
        previous: None,
        bundle_digest: None,
        serial: "40".to_owned(),
        not_after_unix: NOW + 3600,
        anchor: "a0".to_owned(),
        token: token.map(|number| UsedToken { number, expires_unix: END }),
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
    assert!(store.is_used(number, END));
    let replayed = store.commit(&issuance("cart", 2, Some(number)), NOW);
    assert_eq!(replayed, Err(CommitError::Refused(IssuanceRefusal::TokenUsed)));
    let stolen = store.commit(&issuance("web", 1, None), NOW);
    assert_eq!(stolen, Err(CommitError::Refused(IssuanceRefusal::KeyHeld(first.id.clone()))));
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    assert_eq!(store.commit(&issuance("web", 1, None), NOW + 3601), Ok(()), "the holder's certificate has ended");
    drop(store);
    let known = open(folder.path()).identities();
    let below = [("a0".to_owned(), NOW + 3600)].into();
    assert_eq!(known[&first.id], Identity { not_after_unix: NOW + 3600, below });
}

fn report(who: &str, key: u32, digest: &str, since_unix: i64) -> Report {
    let Issuance { id, key, not_after_unix, .. } = issuance(who, key, None);
    Report { id, key, not_after_unix, digest: digest.to_owned(), since_unix, connections: None }
}

/// The key of the first certificate, the last report with its time, and when it was last seen.
type InstanceRow = (KeyHash, Option<(String, i64)>, i64);

fn instances(store: &Store) -> Vec<InstanceRow> {
    let mut all: Vec<_> = store
        .instances()
        .into_iter()
        .map(|(key, one)| (key, one.reported.map(|reported| (reported.digest, reported.unix)), one.last_seen_unix))
        .collect();
    all.sort_by_key(|(_, _, last_seen)| *last_seen);
    all
}

#[test]
fn instances_of_one_identity_are_distinct_and_keep_their_names_when_they_renew() {
    let folder = tempfile::tempdir().unwrap();
    let name = |key| issuance("cart", key, None).key;
    let renewal = |key, previous| Issuance { previous: Some(name(previous)), ..issuance("cart", key, None) };
    let reported = |digest: &str, unix| Some((digest.to_owned(), unix));
    let store = open(folder.path());
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    store.commit(&issuance("cart", 2, None), NOW + 1).unwrap();
    store.report(&report("cart", 2, "ab", 0), NOW + 2).unwrap();
    assert_eq!(instances(&store), [(name(1), None, NOW), (name(2), reported("ab", NOW + 2), NOW + 2)]);
    // Twice renewed, each time with the one before; what it says then, and what its first certificate says, is of one.
    store.commit(&Issuance { bundle_digest: Some("ab".to_owned()), ..renewal(3, 1) }, NOW + 3).unwrap();
    store.commit(&renewal(4, 3), NOW + 4).unwrap();
    store.report(&report("cart", 4, "cd", 0), NOW + 5).unwrap();
    let expected = [(name(2), reported("ab", NOW + 2), NOW + 2), (name(1), reported("cd", NOW + 5), NOW + 5)];
    assert_eq!(instances(&store), expected);
    drop(store);
    let store = open(folder.path());
    assert_eq!(instances(&store), expected, "from the journal");
    drop(store);
    // The next write makes a snapshot.
    let store = Store::open(folder.path(), Options { compact_above: 0 }).unwrap();
    store.commit(&issuance("web", 9, None), NOW + 6).unwrap();
    drop(store);
    let store = open(folder.path());
    assert_eq!(instances(&store)[..2], expected, "from the snapshot");
    store.report(&report("cart", 3, "ef", 0), NOW + 7).unwrap();
    assert_eq!(instances(&store)[2], (name(1), reported("ef", NOW + 7), NOW + 7), "keys are known by their instances");
    // Another identity that presents this instance's key is not this instance.
    store.report(&report("web", 4, "ab", 0), NOW + 8).unwrap();
    assert_eq!(store.instances()[&name(1)].reported.as_ref().unwrap().digest, "ef");
}

#[test]
fn an_unchanged_report_is_not_written_and_a_change_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let length = || fs::metadata(folder.path().join("journal.0")).unwrap().len();
    let store = open(folder.path());
    store.commit(&issuance("cart", 1, None), NOW).unwrap();
    let mut written = length();
    for (unix, digest, since, news) in [
        (NOW + 1, "ab", 0, true),
        (NOW + 2, "ab", 0, false),
        (NOW + 300, "ab", 0, false),
        // Published again after its last report.
        (NOW + 301, "ab", NOW + 300, true),
        (NOW + 302, "ab", NOW + 300, false),
        (NOW + 303, "cd", NOW + 300, true),
        // Still there, said now and then.
        (NOW + 902, "cd", NOW + 300, false),
        (NOW + 903, "cd", NOW + 300, true),
    ] {
        store.report(&report("cart", 1, digest, since), unix).unwrap();
        assert_eq!(length() > written, news, "{unix} {digest}");
        written = length();
        assert_eq!(instances(&store)[0].2, unix);
        let copy = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join("journal.0"), copy.path().join("journal.0")).unwrap();
        let reported = open(copy.path()).instances().into_values().next().unwrap().reported.unwrap();
        assert!(reported.digest == digest && reported.unix > since, "{unix}: {reported:?}");
    }
}

/// A state that was lost, or a certificate of another CA below the same root.
#[test]
fn a_certificate_that_is_not_remembered_is_of_an_instance_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.report(&report("cart", 7, "ab", 0), NOW).unwrap();
    drop(store);
    let known = open(folder.path()).instances();
    let (key, one) = known.iter().next().unwrap();
    assert_eq!((*key, one.not_after_unix, one.reported.is_some()), (issuance("cart", 7, None).key, NOW + 3600, true));
}

#[test]
fn of_many_requests_with_one_token_exactly_one_is_served() {
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
fn a_torn_last_line_is_dropped_and_any_other_damage_is_reported() {
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
        let used: Vec<_> = numbers.iter().map(|number| store.is_used(*number, END)).collect();
        assert_eq!(used, [true, true, false], "cut at {cut}");
        // The next record has a line of its own.
        store.commit(&issuance("cart", 9, Some(numbers[2])), NOW).unwrap();
        drop(store);
        assert!(open(folder.path()).is_used(numbers[2], END));
    }
    let mut bad = whole.clone();
    bad[last - 5] ^= 1;
    fs::write(&journal, &bad).unwrap();
    let error = Store::open(folder.path(), Options::default()).unwrap_err().to_string();
    assert!(error.contains("journal.0:2: damaged"), "{error}");
    bad.clone_from(&whole);
    bad[last + 20..].fill(0);
    fs::write(&journal, &bad).unwrap();
    assert!(!open(folder.path()).is_used(numbers[2], END), "zeros of a file system that lost the content");
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
    assert!(numbers.iter().all(|number| store.is_used(*number, END)));
    let mut late = issuance("web", 99, None);
    late.not_after_unix = NOW + 100_000;
    store.commit(&late, NOW + 50_000).unwrap();
    assert_eq!(store.identities().len(), 1);
    drop(store);
    // The clock was ahead. A forgotten token does not become valid again, nor does any other that had expired by then.
    let store = open(folder.path());
    assert!(numbers.iter().all(|number| store.is_used(*number, END) && !store.is_used(*number, END + 1)));
    let replayed = store.commit(&issuance("cart", 7, Some(numbers[0])), NOW + 1);
    assert_eq!(replayed, Err(CommitError::Refused(IssuanceRefusal::TokenUsed)));
}

#[test]
fn a_clock_that_was_ahead_locks_no_caller_out_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options { compact_above: 0 }).unwrap();
    let [before, ahead, fresh] = [(); 3].map(|()| TokenNumber::random().unwrap());
    let year = 365 * 86_400;
    store.commit(&issuance("cart", 1, Some(before)), NOW).unwrap();
    let future =
        Issuance { token: Some(UsedToken { number: ahead, expires_unix: END + year }), ..issuance("cart", 2, None) };
    store.commit(&future, NOW + year).unwrap();
    store.commit(&issuance("cart", 3, None), NOW + 2 * year).unwrap();
    drop(store);
    let store = open(folder.path());
    assert!(store.is_used(before, END) && store.is_used(ahead, END + year));
    let late =
        Issuance { token: Some(UsedToken { number: fresh, expires_unix: END + 60 }), ..issuance("cart", 4, None) };
    store.commit(&late, NOW + 60).unwrap();
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
    assert!(store.is_used(one, END) && !store.is_used(two, END));
    assert_eq!(files(folder.path()), ["journal.1", "lock", "snapshot"]);
}

#[test]
fn files_that_do_not_match_are_refused_and_none_is_removed() {
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
    assert!(open(folder.path()).is_used(number, END), "as soon as they go together");
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
    assert!(store.recover().is_err(), "the obstacle is still there");
    assert!(matches!(store.commit(&issuance("cart", 2, None), NOW), Err(CommitError::Broken(_))));
    fs::remove_dir(folder.path().join("journal.1")).unwrap();
    store.recover().unwrap();
    assert_eq!(store.broken(), None);
    store.commit(&issuance("cart", 2, None), NOW).unwrap();
    let expected = store.identities();
    drop(store);
    assert_eq!(open(folder.path()).identities(), expected);
}

/// `/dev/full` fails as a full disk does.
fn full() -> fs::File {
    fs::File::options().append(true).open("/dev/full").unwrap()
}

#[test]
fn after_a_full_disk_exactly_what_was_acknowledged_is_known_and_more_can_be_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (stop, failures) = (std::sync::atomic::AtomicBool::new(false), 20);
    let commit = |who: u32| {
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let number = TokenNumber::random().unwrap();
            match store.commit(&issuance("cart", who, Some(number)), NOW) {
                Ok(()) => accepted.push(number),
                Err(CommitError::Broken(_)) => refused.push(number),
                Err(other) => panic!("{other}"),
            }
            thread::yield_now();
        }
        (accepted, refused)
    };
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|who| scope.spawn(move || commit(who))).collect();
        for _ in 0..failures {
            store.divert(full);
            while store.broken().is_none() {
                thread::yield_now();
            }
            store.recover().unwrap();
            let before = store.lock_done();
            while store.lock_done() < before + 4 {
                thread::yield_now();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let accepted: Vec<_> = all.iter().flat_map(|(accepted, _)| accepted).collect();
    let refused: Vec<_> = all.iter().flat_map(|(_, refused)| refused).collect();
    assert!(accepted.len() >= failures * 4 && refused.len() >= failures, "{} {}", accepted.len(), refused.len());
    let check = |store: &Store| {
        assert!(accepted.iter().all(|number| store.is_used(**number, END)), "forgotten");
        assert!(!refused.iter().any(|number| store.is_used(**number, END)), "used up without a certificate");
    };
    check(&store);
    drop(store);
    check(&open(folder.path()));
}

#[test]
fn files_that_hold_less_than_was_committed_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let number = TokenNumber::random().unwrap();
    store.commit(&issuance("cart", 1, Some(number)), NOW).unwrap();
    store.divert(full);
    assert!(matches!(store.commit(&issuance("cart", 2, None), NOW), Err(CommitError::Broken(_))));
    // Somebody who needs room.
    let journal = folder.path().join("journal.0");
    let kept = fs::read(&journal).unwrap();
    fs::remove_file(&journal).unwrap();
    let error = store.recover().unwrap_err();
    assert!(matches!(error, StateError::Lost(_)), "{error}");
    assert!(store.is_used(number, END));
    assert!(
        matches!(store.commit(&issuance("cart", 2, None), NOW), Err(CommitError::Broken(why)) if why.contains("holds less"))
    );
    fs::write(&journal, kept).unwrap();
    store.recover().unwrap();
    assert!(store.is_used(number, END));
    store.commit(&issuance("cart", 2, None), NOW).unwrap();
}
