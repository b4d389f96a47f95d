//! Blocked system calls. The filter applies to the whole process and cannot be removed, so each test runs itself as a child.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use portcullis_sandbox::calls;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, UnmountFlags, fsopen, unmount};
use rustix::thread::UnshareFlags;

/// Runs one of the ignored tests below in a process of its own.
fn in_a_child(name: &str) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("calls::{name}"), "--ignored", "--nocapture"])
        .output();
    let child = child.unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
    eprint!("{text}");
}

fn refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

#[test]
fn execve_denied() {
    in_a_child("child_execve");
}

#[test]
fn calls_of_intruders_are_denied_and_those_of_a_proxy_are_not() {
    in_a_child("child_others");
}

#[test]
#[ignore = "run by execve_denied in a process of its own"]
fn child_execve() {
    let (go, wait) = channel::<()>();
    // It runs before the filter comes, as a worker might.
    let early = thread::spawn(move || {
        wait.recv().unwrap();
        Command::new("/bin/true").exec()
    });
    if let Err(why) = calls::deny() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    go.send(()).unwrap();
    let late = thread::spawn(|| Command::new("/bin/true").exec());
    for thread in [early, late] {
        let error = thread.join().unwrap();
        assert!(refused(&error), "{error}");
    }
    // A child of ours is not freed by being one.
    let error = Command::new("/bin/true").spawn().unwrap_err();
    assert!(refused(&error), "{error}");
}

#[test]
#[ignore = "run by calls_of_intruders_are_denied_and_those_of_a_proxy_are_not in a process of its own"]
fn child_others() {
    if let Err(why) = calls::deny() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    // Each would otherwise succeed, for root, or be a question of the path.
    let denied = |what: &str, result: rustix::io::Result<()>| assert_eq!(result, Err(Errno::PERM), "{what}");
    denied("umount", unmount("/not/there", UnmountFlags::empty()));
    denied("fsopen", fsopen("tmpfs", FsOpenFlags::empty()).map(drop));
    denied("chroot", rustix::process::chroot("/"));
    #[allow(deprecated, reason = "the warning is about what it may do, and here it must do nothing")]
    denied("unshare", rustix::thread::unshare(UnshareFlags::empty()));
    // The proxy's own daily bread.
    assert!(Path::new("/proc/self/stat").exists() && std::fs::read("/proc/self/stat").is_ok());
    assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    assert!(thread::spawn(|| std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 1)).is_ok()).join().unwrap());
}
