//! What a running sidecar has given up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{CART, Ca, Sidecar, eventually, free_address};

/// The user of the sidecar in an image.
const UID: u32 = 1337;

const BODY: &str = "workload: {name: cart, namespace: shop, serviceAccount: cart}\n\
    identity: {files: {certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}\n";

fn am_root() -> bool {
    fs::metadata("/proc/self/status").unwrap().uid() == 0
}

/// Makes `command` run as the sidecar's user, if we may; otherwise it runs as ours, which is no different for the test.
fn as_sidecar_user(command: &mut Command) {
    if am_root() {
        command.uid(UID).gid(UID);
    }
}

/// A folder of the sidecar's user, with an identity in it.
fn home() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cart = folder.path().join("cart");
    Ca::init(&folder.path().join("ca")).issue(CART, &cart);
    if am_root() {
        for path in [folder.path(), &cart, &cart.join("key.pem")] {
            chown(path, Some(UID), Some(UID)).unwrap();
        }
    }
    folder
}

fn owner(child: &Child) -> u32 {
    fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid()
}

/// A process of the same user that did not ask for anything: what the sidecar would be without our care.
fn bystander(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command.args(arguments).current_dir(folder);
    as_sidecar_user(&mut command);
    command.spawn().unwrap()
}

#[test]
fn a_sidecar_is_not_dumpable_and_its_metrics_still_know_the_process() {
    let folder = home();
    let sidecar = Sidecar::start_with(folder.path(), "cart", BODY, as_sidecar_user);

    // The kernel gives the files of a process that is not dumpable to root.
    let mut other = bystander(folder.path(), &["-c", "exec sleep 60"]);
    let us = if am_root() { UID } else { owner(&other) };
    eventually("the bystander runs", || (owner(&other) == us).then_some(()));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(owner(&sidecar.child), 0);
    let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.child.id())).unwrap();
    let core: Vec<&str> = limits.lines().find(|line| line.contains("core file")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");

    // They are read by the process itself.
    let page = sidecar.get("/stats/prometheus").unwrap();
    for metric in ["open_fds", "max_fds", "resident_memory_bytes", "cpu_seconds_total", "start_time_seconds", "threads"]
    {
        let name = format!("process_{metric} ");
        let line = page.lines().find(|line| line.starts_with(&name));
        let value: f64 = line.unwrap_or_else(|| panic!("no {name}in {page}"))[name.len()..].parse().unwrap();
        assert!(value > 0.0 || metric == "cpu_seconds_total", "{name}{value}");
    }
}

#[test]
fn a_crash_writes_no_core() {
    let folder = home();
    // The soft limit of the shell may be zero, and only the hard one counts for what we may ask for.
    let mut other = bystander(folder.path(), &["-c", "ulimit -c unlimited; kill -ABRT $$"]);
    if !other.wait().unwrap().core_dumped() {
        eprintln!("skipped: this system writes no core of an ordinary process either, so nothing would be shown");
        return;
    }
    let admin = free_address();
    let config = folder.path().join("cart.yaml");
    fs::write(&config, format!("{BODY}admin: {{listen: \"{admin}\"}}\n")).unwrap();
    let mut sidecar = Sidecar::launch_with(&config, admin, |command| {
        *command = {
            let mut shell = Command::new("sh");
            let run = format!("ulimit -c unlimited; exec {} proxy --config {}", support::BIN, config.display());
            shell.args(["-c", &run]).current_dir(folder.path()).stdout(Stdio::null());
            shell
        };
        as_sidecar_user(command);
    });
    sidecar.ready();
    sidecar.signal("ABRT");
    let status = sidecar.child.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}
