//! A file that a writer has open keeps its former content in force, whatever it holds meanwhile.

use std::fs::{self, File};
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{IN_TIME, watch_folder, write};
use portcullis_reload::MAX_WRITE;

/// Longer than every debounce.
const PAUSE: Duration = Duration::from_millis(900);

#[test]
fn a_file_that_is_written_in_pieces_counts_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    write(&old, "old");
    let watched = watch_folder(dir.path());
    for (file, before, after) in [(&old, "old", "prefix+rest"), (&new, "prefix+rest", "prefix+rest|prefix+rest")] {
        let mut writer = File::create(file).unwrap();
        writer.write_all(b"prefix").unwrap();
        thread::sleep(PAUSE);
        assert_eq!(watched.in_force(), before, "{:?}", watched.history());
        writer.write_all(b"+rest").unwrap();
        thread::sleep(PAUSE);
        assert_eq!(watched.in_force(), before, "{:?}", watched.history());
        let begin = Instant::now();
        drop(writer);
        watched.expect(after, begin, IN_TIME);
    }
    assert_eq!(watched.history(), ["old", "prefix+rest", "prefix+rest|prefix+rest"]);
    assert_eq!(watched.status().problems, 0);
}

#[test]
fn an_empty_file_that_is_open_is_no_problem_and_other_files_do_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (open, other) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    write(&open, "a");
    write(&other, "b");
    let watched = watch_folder(dir.path());
    let writer = File::create(&open).unwrap();
    let begin = Instant::now();
    write(&other, "B");
    watched.expect("a|B", begin, Duration::from_secs(1));
    thread::sleep(PAUSE);
    assert_eq!((watched.in_force().as_str(), watched.status().problems), ("a|B", 0));
    drop(writer);
    fs::remove_file(&open).unwrap();
    watched.expect("B", begin, PAUSE + 2 * IN_TIME);
}

#[test]
fn a_writer_that_never_closes_the_file_is_waited_for_at_most_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    write(&file, "old");
    let watched = watch_folder(dir.path());
    let begin = Instant::now();
    let mut writer = File::create(&file).unwrap();
    writer.write_all(b"new").unwrap();
    let took = watched.expect("new", begin, MAX_WRITE + IN_TIME);
    assert!(took >= MAX_WRITE, "{took:?}");
    drop(writer);
}
