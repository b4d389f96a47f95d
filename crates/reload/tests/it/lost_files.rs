//! Files that disappear without having been deleted keep the last good set in force. Tests that mount need root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{IN_TIME, Watched, watch, watch_folder, write};
use portcullis_reload::FileSet;

/// Longer than every retry and every delay.
const SETTLED: Duration = Duration::from_millis(2500);

fn mount(arguments: &[&str], on: &Path) -> bool {
    Command::new("mount").args(arguments).arg(on).status().is_ok_and(|status| status.success())
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, with a line that says so, if this process may not mount.
    fn new(arguments: &[&str], on: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !mount(arguments, on) {
            eprintln!("skipped: mounting needs root and CAP_SYS_ADMIN");
            return None;
        }
        Some(Self(on.to_owned()))
    }

    fn unmount(&self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _unmounted_by_the_test = Command::new("umount").arg("-q").arg(&self.0).status();
    }
}

fn expect_kept(watched: &Watched, reason: &str, in_force: &str) {
    watched.expect_problem(reason);
    thread::sleep(SETTLED);
    assert_eq!(watched.history(), [in_force]);
    assert_eq!(watched.status().problems, 1, "one alarm");
}

#[test]
fn a_volume_that_is_unmounted_is_no_decision_and_its_return_ends_the_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("policies");
    fs::create_dir(&folder).unwrap();
    let tmpfs = ["-t", "tmpfs", "none"];
    let Some(mounted) = Mounted::new(&tmpfs, &folder) else { return };
    write(&folder.join("a.yaml"), "good");
    let watched = watch_folder(&folder);
    mounted.unmount();
    expect_kept(&watched, "volume-changed", "good");

    // The same again, on another volume, and then a change there.
    assert!(mount(&tmpfs, &folder));
    write(&folder.join("a.yaml"), "good");
    watched.expect_no_problem();
    let begin = Instant::now();
    write(&folder.join("a.yaml"), "new");
    watched.expect("new", begin, IN_TIME);
}

#[test]
fn a_bind_mount_of_the_same_file_system_is_a_volume_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, folder) = (dir.path().join("store"), dir.path().join("policies"));
    fs::create_dir(&store).unwrap();
    fs::create_dir(&folder).unwrap();
    write(&store.join("a.yaml"), "good");
    let Some(mounted) = Mounted::new(&["--bind", store.to_str().unwrap()], &folder) else { return };
    let watched = watch_folder(&folder);
    mounted.unmount();
    expect_kept(&watched, "volume-changed", "good");
}

#[test]
fn a_volume_below_the_folder_is_missed_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    write(&dir.path().join("a.yaml"), "a");
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "none"], &sub) else { return };
    write(&sub.join("b.yaml"), "b");
    let watched = watch_folder(dir.path());
    mounted.unmount();
    expect_kept(&watched, "volume-changed", "a|b");
}

#[test]
fn an_empty_volume_on_top_of_the_files_hides_them_only() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.yaml"), "good");
    let watched = watch_folder(dir.path());
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "none"], dir.path()) else { return };
    expect_kept(&watched, "volume-changed", "good");
    mounted.unmount();
    watched.expect_no_problem();
}

#[test]
fn an_empty_folder_in_place_of_a_full_one_is_no_decision() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, empty) = (dir.path().join("policies"), dir.path().join("empty"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&empty).unwrap();
    write(&folder.join("a.yaml"), "good");
    let watched = watch_folder(&folder);
    fs::rename(&folder, dir.path().join("old")).unwrap();
    fs::rename(&empty, &folder).unwrap();
    expect_kept(&watched, "files-vanished", "good");
    // What the message advises.
    let begin = Instant::now();
    write(&folder.join("none.yaml"), "# none");
    watched.expect("# none", begin, IN_TIME);
}

#[test]
fn without_events_nothing_proves_that_the_last_file_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.yaml"), "a");
    write(&dir.path().join("b.yaml"), "b");
    let watched = watch(FileSet::Folder(dir.path().to_owned()), false).unwrap();
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    watched.expect("a", Instant::now(), 2 * IN_TIME);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    let begin = Instant::now();
    crate::common::poll(2 * IN_TIME, || watched.status().problem.filter(|problem| problem.reason == "files-vanished"))
        .unwrap_or_else(|| panic!("{:?} after {:?}", watched.status(), begin.elapsed()));
    assert_eq!(watched.in_force(), "a");
}

type Delete = fn(&Path);

#[test]
fn all_files_that_are_deleted_go_out_of_force_in_whatever_way_it_is_done() {
    let delete: [(&str, Delete); 5] = [
        ("rm *", |top| {
            for entry in fs::read_dir(top).unwrap().flatten().filter(|entry| entry.path().is_file()) {
                fs::remove_file(entry.path()).unwrap();
            }
            fs::remove_dir_all(top.join("sub")).unwrap();
        }),
        ("rm, a subfolder first", |top| {
            fs::remove_dir_all(top.join("sub")).unwrap();
            thread::sleep(Duration::from_millis(300));
            fs::remove_file(top.join("a.yaml")).unwrap();
            thread::sleep(Duration::from_millis(300));
            fs::remove_file(top.join("link.yaml")).unwrap();
        }),
        ("renamed", |top| {
            fs::rename(top.join("a.yaml"), top.join("a.yaml.off")).unwrap();
            fs::rename(top.join("link.yaml"), top.join("link.off")).unwrap();
            fs::rename(top.join("sub"), top.join(".sub")).unwrap();
        }),
        ("moved out", |top| {
            let out = top.parent().unwrap();
            for name in ["a.yaml", "link.yaml", "sub"] {
                fs::rename(top.join(name), out.join(name)).unwrap();
            }
        }),
        ("the end of the link first", |top| {
            fs::remove_file(top.join("link.yaml")).unwrap();
            fs::remove_dir_all(top.join(".store")).unwrap();
            fs::remove_file(top.join("a.yaml")).unwrap();
            fs::remove_dir_all(top.join("sub")).unwrap();
        }),
    ];
    for (how, delete) in delete {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("policies");
        for folder in ["sub/deep", ".store"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        for name in ["a.yaml", ".store/target", "sub/b.yaml", "sub/deep/c.yaml"] {
            write(&top.join(name), "x");
        }
        symlink(".store/target", top.join("link.yaml")).unwrap();
        let watched = watch_folder(&top);
        let begin = Instant::now();
        delete(&top);
        eprintln!("{how}");
        watched.expect("", begin, 2 * IN_TIME);
        assert_eq!(watched.status().problems, 0, "{how}");
    }
}

/// More than a thousand at once, which for other files would be too much to follow.
#[test]
fn many_files_may_be_deleted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..1500 {
        write(&dir.path().join(format!("{n}.yaml")), "x");
    }
    let watched = watch_folder(dir.path());
    for n in 0..1500 {
        fs::remove_file(dir.path().join(format!("{n}.yaml"))).unwrap();
    }
    watched.expect("", Instant::now(), 3 * IN_TIME);
    assert_eq!(watched.status().problems, 0);
}

/// As the kubelet does it when a ConfigMap loses its last key.
#[test]
fn a_mounted_config_map_that_becomes_empty_is_a_decision() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir(top.join("..v1")).unwrap();
    write(&top.join("..v1/a.yaml"), "x");
    symlink("..v1", top.join("..data")).unwrap();
    symlink("..data/a.yaml", top.join("a.yaml")).unwrap();
    let watched = watch_folder(top);
    let begin = Instant::now();
    fs::create_dir(top.join("..v2")).unwrap();
    symlink("..v2", top.join("..data_tmp")).unwrap();
    fs::rename(top.join("..data_tmp"), top.join("..data")).unwrap();
    fs::remove_file(top.join("a.yaml")).unwrap();
    fs::remove_dir_all(top.join("..v1")).unwrap();
    watched.expect("", begin, 2 * IN_TIME);
    assert_eq!(watched.status().problems, 0);
}
