//! A failure keeps the last good set in force, is logged once, and ends when the files are repaired.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{IN_TIME, PATIENCE, Watched, rename_into_place, watch, watch_folder, write};
use portcullis_reload::{FileSet, MAX_FILE_BYTES, REMOVAL_DELAY, StartError};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Longer than every retry and every hold.
const SETTLED: Duration = Duration::from_millis(2500);

fn good() -> (tempfile::TempDir, Watched) {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.yaml"), "good");
    let watched = watch_folder(dir.path());
    (dir, watched)
}

/// `spoil` breaks the folder so that the watcher says `reason`; a good file afterwards mends it.
fn kept_and_repaired(reason: &str, spoil: impl FnOnce(&Path), repair: impl FnOnce(&Path)) {
    let (dir, watched) = good();
    let file = dir.path().join("a.yaml");
    spoil(&file);
    watched.expect_problem(reason);
    thread::sleep(SETTLED);
    assert_eq!(watched.history(), ["good"]);
    assert_eq!(watched.status().problems, 1, "counted once, not at every read");
    let begin = Instant::now();
    repair(&file);
    watched.expect("mended", begin, PATIENCE);
    watched.expect_no_problem();
}

fn rewrite(file: &Path) {
    rename_into_place(file, "mended");
}

#[test]
fn an_empty_file() {
    kept_and_repaired("empty-file", |file| write(file, ""), rewrite);
}

#[test]
fn garbage() {
    kept_and_repaired("refused", |file| write(file, "BAD"), |file| write(file, "mended"));
}

#[test]
fn a_panicking_loader() {
    kept_and_repaired("refused", |file| write(file, "PANIC"), rewrite);
}

#[test]
fn a_huge_file() {
    let spoil = |file: &Path| write(file, &" ".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1));
    kept_and_repaired("file-too-large", spoil, rewrite);
}

#[test]
fn a_folder_in_place_of_the_file() {
    let spoil = |file: &Path| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    };
    let repair = |file: &Path| {
        fs::remove_dir(file).unwrap();
        write(file, "mended");
    };
    kept_and_repaired("not-regular-file", spoil, repair);
}

#[test]
fn a_fifo_in_place_of_the_file() {
    let spoil = |file: &Path| {
        fs::remove_file(file).unwrap();
        mknodat(CWD, file, FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    kept_and_repaired("not-regular-file", spoil, rewrite);
}

#[test]
fn a_link_that_leaves_the_folder() {
    let spoil = |file: &Path| {
        fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", file).unwrap();
    };
    kept_and_repaired("link-leaves-folder", spoil, rewrite);
}

#[test]
fn the_folder_is_gone() {
    let spoil = |file: &Path| fs::remove_dir_all(file.parent().unwrap()).unwrap();
    let repair = |file: &Path| {
        fs::create_dir(file.parent().unwrap()).unwrap();
        write(file, "mended");
    };
    kept_and_repaired("unreadable", spoil, repair);
}

#[test]
fn back_to_what_is_in_force_ends_the_problem() {
    let (dir, watched) = good();
    write(&dir.path().join("a.yaml"), "");
    watched.expect_problem("empty-file");
    write(&dir.path().join("a.yaml"), "good");
    watched.expect_no_problem();
    assert_eq!(watched.history(), ["good"]);
    assert_eq!(watched.status().generation, 1);
}

#[test]
fn a_different_problem_is_reported_and_keeps_its_start_time() {
    let (dir, watched) = good();
    let file = dir.path().join("a.yaml");
    write(&file, "BAD 1");
    assert_eq!(watched.expect_problem("refused"), "refused BAD 1");
    let since = watched.status().problem.unwrap().since;
    write(&file, "");
    watched.expect_problem("empty-file");
    assert_eq!(watched.status().problem.unwrap().since, since);
    assert_eq!(watched.status().problems, 2);
}

#[test]
fn a_short_trouble_is_no_problem() {
    let (dir, watched) = good();
    let file = dir.path().join("a.yaml");
    for round in 0..5 {
        write(&file, "");
        thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        write(&file, &round.to_string());
        watched.expect(&round.to_string(), begin, IN_TIME);
    }
    assert_eq!(watched.status().problems, 0);
}

#[test]
fn a_deleted_file_goes_out_of_force_after_a_second_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.yaml"), "a");
    write(&dir.path().join("b.yaml"), "b");
    let watched = watch_folder(dir.path());

    let begin = Instant::now();
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    write(&dir.path().join("a.yaml"), "A");
    let took = watched.expect("A|b", begin, Duration::from_secs(1));
    assert!(took < REMOVAL_DELAY, "other changes do not wait: {took:?}");
    let took = watched.expect("A", begin, IN_TIME);
    assert!(took >= REMOVAL_DELAY, "{took:?}");

    let begin = Instant::now();
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    let took = watched.expect("", begin, IN_TIME);
    assert!(took >= REMOVAL_DELAY, "even the last one: {took:?}");
    watched.expect_no_problem();
}

#[test]
fn a_renamed_file_never_counts_twice_and_never_not_at_all() {
    let (dir, watched) = good();
    fs::rename(dir.path().join("a.yaml"), dir.path().join("b.yaml")).unwrap();
    thread::sleep(SETTLED);
    assert!(watched.history().iter().all(|text| text == "good"), "{:?}", watched.history());
    assert_eq!(watched.status().problems, 0);
}

#[test]
fn a_pair_that_is_written_200_ms_apart() {
    for inotify in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        write(&cert, "1");
        write(&key, "1");
        let loader = |files: &[portcullis_reload::FileContent]| {
            let [cert, key] = files else { return Err("not two files".to_owned()) };
            if cert.content == key.content {
                Ok(format!("{:?}", &cert.content[..]))
            } else {
                Err("mismatch".to_owned())
            }
        };
        let options = portcullis_reload::Options { inotify, rescan_interval: Duration::from_millis(100) };
        let source = FileSet::Files(vec![cert.clone(), key.clone()]);
        let watcher = portcullis_reload::Watcher::start(source, options, loader).unwrap();
        let monitor = watcher.monitor();
        for round in 2..5_u64 {
            rename_into_place(&cert, &round.to_string());
            thread::sleep(Duration::from_millis(200));
            rename_into_place(&key, &round.to_string());
            crate::common::poll(IN_TIME, || (monitor.status().generation == round).then_some(())).unwrap();
        }
        assert_eq!(monitor.status().problems, 0, "inotify {inotify}");
        rename_into_place(&cert, "alone");
        crate::common::poll(IN_TIME + SETTLED, || monitor.status().problem).unwrap();
        assert_eq!(monitor.status().generation, 4);
    }
}

#[test]
fn a_listed_file_that_is_gone_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("cert.pem"), "1");
    let watched = watch(FileSet::Files(vec![dir.path().join("cert.pem")]), true).unwrap();
    fs::remove_file(dir.path().join("cert.pem")).unwrap();
    let message = watched.expect_problem("unreadable");
    assert!(message.contains("cert.pem"), "{message}");
    assert_eq!(watched.in_force(), "1");
    let begin = Instant::now();
    write(&dir.path().join("cert.pem"), "2");
    watched.expect("2", begin, IN_TIME);
}

#[test]
fn at_the_start_every_trouble_is_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let start = |path: &Path| watch(FileSet::Folder(path.to_owned()), true);
    assert!(matches!(start(&dir.path().join("none")), Err(StartError::Unreadable(_))));
    write(&dir.path().join("a.yaml"), "");
    assert!(matches!(start(dir.path()), Err(StartError::Unreadable(_))));
    write(&dir.path().join("a.yaml"), "BAD");
    assert!(matches!(start(dir.path()), Err(StartError::Refused(why)) if why == "refused BAD"));
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(start(dir.path()).unwrap().in_force(), "", "an empty folder is an empty set");
}

#[test]
fn after_the_drop_the_loader_is_not_called() {
    let (dir, watched) = good();
    let Watched { watcher, .. } = watched;
    let monitor = watcher.monitor();
    write(&dir.path().join("a.yaml"), "late");
    drop(watcher);
    monitor.reload_now();
    let generation = monitor.status().generation;
    thread::sleep(Duration::from_millis(300));
    assert_eq!(monitor.status().generation, generation);
}
