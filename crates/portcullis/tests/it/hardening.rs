//! The privileges that a running sidecar has dropped.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{App, CART, Ca, Sidecar, eventually, free_address, passed};

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

/// The sidecar's own word on what is in force, for a test that needs it.
fn restricted(sidecar: &Sidecar) -> bool {
    let line = sidecar.logged(&["sandbox", "landlock="]);
    let restricted = line.contains("files restricted");
    if !restricted {
        eprintln!("SKIPPED in part: {line}");
    }
    restricted
}

#[test]
fn a_running_sidecar_is_confined_in_every_thread() {
    let folder = home();
    let sidecar = Sidecar::start_with(folder.path(), "cart", BODY, as_sidecar_user);
    let line = sidecar.logged(&["sandbox", "landlock="]);
    assert!(line.contains("seccomp=\"on\""), "{line}");
    let tasks = fs::read_dir(format!("/proc/{}/task", sidecar.child.id())).unwrap();
    let confined = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        for state in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(state), "{state} not in {status}");
        }
    };
    assert!(tasks.flatten().map(confined).count() > 2);

    let off = "sandbox: {landlock: false, seccomp: false}\n";
    let free = Sidecar::start_with(folder.path(), "free", &format!("{BODY}{off}"), as_sidecar_user);
    let line = free.logged(&["sandbox", "landlock="]);
    assert!(line.contains("landlock=\"switched off\"") && line.contains("seccomp=\"switched off\""), "{line}");
    let status = fs::read_to_string(format!("/proc/{}/status", free.child.id())).unwrap();
    assert!(status.contains("Seccomp:\t0"), "{status}");
}

/// The key's file becomes a link to what the sidecar may not read: refused by the sandbox, where its user could read it.
#[test]
fn a_running_sidecar_cannot_be_pointed_at_foreign_files() {
    for (switch, reads) in [("", false), ("sandbox: {landlock: false}\n", true)] {
        let folder = home();
        let foreign = tempfile::tempdir().unwrap();
        fs::set_permissions(foreign.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(foreign.path().join("foreign.pem"), "no certificate").unwrap();
        let sidecar = Sidecar::start_with(folder.path(), "cart", &format!("{BODY}{switch}"), as_sidecar_user);
        if !(reads || restricted(&sidecar)) {
            continue;
        }
        let bundle = folder.path().join("cart/ca.pem");
        fs::remove_file(&bundle).unwrap();
        symlink(foreign.path().join("foreign.pem"), &bundle).unwrap();
        sidecar.logged(if reads { &["identity.files.trustBundle"] } else { &["ca.pem", "Permission denied"] });
        sidecar.ready();
    }
}

#[test]
fn names_are_looked_up_and_metrics_read_in_the_sandbox() {
    let folder = home();
    let (app, listen) = (App::start(), free_address());
    // By name, so /etc/hosts is read; the listeners of the test are on IPv4 alone, the resolver's answer is not.
    let upstream = format!("{{listen: \"{listen}\", address: \"localhost:{}\", mode: plaintext}}", app.address.port());
    let body = format!("{BODY}outbound: {{upstreams: [{upstream}]}}\n");
    let sidecar = Sidecar::start_with(folder.path(), "cart", &body, as_sidecar_user);
    assert!(passed(listen, b"by name"));
    assert!(sidecar.get("/stats/prometheus").unwrap().contains("\nprocess_open_fds "));
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
            let run = format!("ulimit -c unlimited; exec {} proxy --config {}", crate::support::BIN, config.display());
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
