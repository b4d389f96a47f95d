//! Each method by which files are replaced in practice, many times over: each change is in force within two seconds, with
//! inotify and, in the second half, without.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{IN_TIME, Watched, rename_into_place, watch, watch_by_rescan, watch_folder, write};
use portcullis_reload::FileSet;

const ROUNDS: usize = 20;

/// Starts with `0`, lets `change` write `1`, `2`, ..., and expects each in time.
fn rounds(watched: &Watched, count: usize, mut change: impl FnMut(usize, &str)) {
    for round in 1..=count {
        let text = round.to_string();
        let begin = Instant::now();
        change(round, &text);
        watched.expect(&text, begin, IN_TIME);
    }
    let all: Vec<String> = (0..=count).map(|round| round.to_string()).collect();
    assert_eq!(watched.history(), all, "and nothing but these was ever in force");
    assert_eq!(watched.status().problems, 0);
}

fn with_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    write(&file, text);
    (dir, file)
}

#[test]
fn rename() {
    let (dir, file) = with_file("0");
    rounds(&watch_folder(dir.path()), ROUNDS, |_, text| rename_into_place(&file, text));
}

#[test]
fn truncate_and_write() {
    let (dir, file) = with_file("0");
    rounds(&watch_folder(dir.path()), ROUNDS, |_, text| {
        let mut open = fs::File::create(&file).unwrap();
        // Long enough to be looked at while it is empty, now and then.
        thread::sleep(Duration::from_millis(100));
        open.write_all(text.as_bytes()).unwrap();
    });
}

#[test]
fn delete_and_create() {
    let (dir, file) = with_file("0");
    rounds(&watch_folder(dir.path()), ROUNDS, |_, text| {
        fs::remove_file(&file).unwrap();
        thread::sleep(Duration::from_millis(100));
        write(&file, text);
    });
}

/// As the kubelet does it: a new folder beside the old, the link swapped by a rename, the old folder removed.
fn swap_data(top: &Path, round: usize, name: &str, text: &str) {
    let folder = format!("..v{round}");
    fs::create_dir(top.join(&folder)).unwrap();
    write(&top.join(&folder).join(name), text);
    symlink(&folder, top.join("..data_tmp")).unwrap();
    fs::rename(top.join("..data_tmp"), top.join("..data")).unwrap();
    if round > 0 {
        fs::remove_dir_all(top.join(format!("..v{}", round - 1))).unwrap();
    }
}

#[test]
fn data_link_swap() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    swap_data(top, 0, "a.yaml", "0");
    symlink("..data/a.yaml", top.join("a.yaml")).unwrap();
    rounds(&watch_folder(top), ROUNDS, |round, text| swap_data(top, round, "a.yaml", text));
}

#[test]
fn data_link_swap_of_listed_files() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    swap_data(top, 0, "cert.pem", "0");
    symlink("..data/cert.pem", top.join("cert.pem")).unwrap();
    let watched = watch(FileSet::Files(vec![top.join("cert.pem")]), true).unwrap();
    rounds(&watched, ROUNDS, |round, text| swap_data(top, round, "cert.pem", text));
}

#[test]
fn editor_with_backup() {
    let (dir, file) = with_file("0");
    rounds(&watch_folder(dir.path()), ROUNDS, |_, text| {
        fs::rename(&file, dir.path().join("a.yaml~")).unwrap();
        thread::sleep(Duration::from_millis(100));
        write(&file, text);
    });
}

#[test]
fn write_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir(top.join(".store")).unwrap();
    write(&top.join(".store/target"), "0");
    symlink(".store/target", top.join("a.yaml")).unwrap();
    rounds(&watch_folder(top), ROUNDS, |_, text| write(&top.join("a.yaml"), text));
}

#[test]
fn the_folder_itself_is_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("policies");
    fs::create_dir(&folder).unwrap();
    write(&folder.join("a.yaml"), "0");
    rounds(&watch_folder(&folder), ROUNDS, |_, text| {
        let new = dir.path().join("new");
        fs::create_dir(&new).unwrap();
        write(&new.join("a.yaml"), text);
        fs::rename(&folder, dir.path().join("old")).unwrap();
        fs::rename(&new, &folder).unwrap();
        fs::remove_dir_all(dir.path().join("old")).unwrap();
    });
}

#[test]
fn the_folder_is_deleted_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("policies");
    fs::create_dir(&folder).unwrap();
    write(&folder.join("a.yaml"), "0");
    rounds(&watch_folder(&folder), ROUNDS, |_, text| {
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        thread::sleep(Duration::from_millis(100));
        write(&folder.join("a.yaml"), text);
    });
}

#[test]
fn new_folders_below_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.yaml"), "0");
    let watched = watch_folder(dir.path());
    let mut before = String::from("0");
    for round in 1..=10 {
        let below = dir.path().join(format!("b{round}/c"));
        fs::create_dir_all(&below).unwrap();
        thread::sleep(Duration::from_millis(100));
        let begin = Instant::now();
        write(&below.join("x.yaml"), "x");
        // A rescan alone would take up to 1.5 s for each of the ten.
        let after = format!("{before}|x");
        watched.expect(&after, begin, Duration::from_secs(1));
        before = after;
    }
}

#[test]
fn events_and_not_the_rescan_bring_changes() {
    let (dir, file) = with_file("0");
    let watched = watch_folder(dir.path());
    let mut slowest = Duration::ZERO;
    for round in 1..=10 {
        let begin = Instant::now();
        write(&file, &round.to_string());
        slowest = slowest.max(watched.expect(&round.to_string(), begin, IN_TIME));
    }
    assert!(slowest < Duration::from_millis(700), "{slowest:?}");
}

#[test]
fn rapid_changes_end_in_the_last() {
    let (dir, file) = with_file("0");
    let watched = watch_folder(dir.path());
    for flip in 0..2000 {
        match flip % 3 {
            0 => write(&file, &format!("BAD {flip}")),
            1 => rename_into_place(&file, &flip.to_string()),
            _ => {
                fs::remove_file(&file).unwrap();
                write(&file, &flip.to_string());
            }
        }
    }
    let begin = Instant::now();
    rename_into_place(&file, "last");
    watched.expect("last", begin, IN_TIME);
    watched.expect_no_problem();
    let loads = watched.history().len();
    assert!(loads < 100, "{loads} loads for 2000 changes");
}

mod without_inotify {
    use super::*;

    #[test]
    fn rename_and_write_and_link_swap_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        swap_data(top, 0, "a.yaml", "0");
        symlink("..data/a.yaml", top.join("a.yaml")).unwrap();
        rounds(&watch_by_rescan(top), 4, |round, text| swap_data(top, round, "a.yaml", text));

        let (dir, file) = with_file("0");
        rounds(&watch_by_rescan(dir.path()), 3, |_, text| rename_into_place(&file, text));
        let (dir, file) = with_file("0");
        rounds(&watch_by_rescan(dir.path()), 3, |_, text| write(&file, text));
    }

    #[test]
    fn content_counts_and_not_times_in_two_seconds_as_configured_by_default() {
        let (dir, file) = with_file("0");
        let watched = watch(FileSet::Folder(dir.path().to_owned()), false).unwrap();
        let times = fs::metadata(&file).unwrap().modified().unwrap();
        let begin = Instant::now();
        write(&file, "1");
        fs::File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        watched.expect("1", begin, IN_TIME);
    }

    #[test]
    fn a_request_is_served_at_once() {
        let (dir, file) = with_file("0");
        let watched = watch(FileSet::Folder(dir.path().to_owned()), false).unwrap();
        let monitor = watched.watcher.monitor();
        for round in 1..=20 {
            write(&file, &round.to_string());
            let begin = Instant::now();
            monitor.reload_now();
            watched.expect(&round.to_string(), begin, Duration::from_millis(500));
        }
        assert_eq!(monitor.status().generation, 21);
    }
}
