//! The privileges that a running CA has dropped, and that it still works.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{BIN, CART, WEB, eventually};

/// The user of the CA in an image.
const UID: u32 = 1337;

fn am_root() -> bool {
    fs::metadata("/proc/self/status").unwrap().uid() == 0
}

/// The program as the CA's user, if we may; otherwise as ours, which is no different for the test.
fn portcullis(arguments: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command.args(arguments);
    if am_root() {
        command.uid(UID).gid(UID);
    }
    command
}

/// A CA with its folders; killed when dropped.
struct Running {
    folder: tempfile::TempDir,
    child: Child,
}

impl Running {
    fn start(further: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
        let made = portcullis(&["ca", "init", "--dir", &at("ca"), "--id", CART]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (dir, tokens) = (at("ca"), at("tokens"));
        let own = ["ca", "run", "--dir", &dir, "--listen", "127.0.0.1:0", "--bootstrap", &tokens];
        let mut command = portcullis(&[&own, further].concat());
        command.stdout(File::create(folder.path().join("log")).unwrap()).stderr(Stdio::null());
        let running = Self { folder, child: command.spawn().unwrap() };
        running.logged(&["serving"]);
        running.token("cart");
        running
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The line of the log that has all of these.
    fn logged(&self, words: &[&str]) -> String {
        let find = || {
            let log = fs::read_to_string(self.path("log")).unwrap();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        };
        eventually(&format!("{words:?} in the log"), find)
    }

    fn token(&self, account: &str) -> String {
        let place = self.path("tokens/shop").join(account).join("token");
        eventually("a token is ready", || fs::read_to_string(&place).ok())
    }

    fn is_ready(&self) -> bool {
        portcullis(&["ca", "status", "--dir", self.path("ca").to_str().unwrap()]).output().unwrap().status.success()
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }

    /// The CA's own word on whether the kernel takes the rules.
    fn restricted(&self) -> bool {
        let line = self.logged(&["sandbox", "landlock="]);
        let restricted = line.contains("files restricted");
        if !restricted {
            eprintln!("SKIPPED in part: {line}");
        }
        restricted
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_ca_leaves_no_core_and_is_confined_in_every_thread() {
    let running = Running::start(&[]);
    // The kernel gives the files of a process that is not dumpable to root.
    assert_eq!(fs::metadata(running.proc("environ")).unwrap().uid(), 0);
    let limits = fs::read_to_string(running.proc("limits")).unwrap();
    let core: Vec<&str> = limits.lines().find(|line| line.contains("core file")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    let line = running.logged(&["sandbox", "landlock="]);
    assert!(line.contains("seccomp=\"on\"") && !line.contains("OUTSIDE"), "{line}");
    let confined = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        for state in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(state), "{state} not in {status}");
        }
    };
    assert!(fs::read_dir(running.proc("task")).unwrap().flatten().map(confined).count() > 2);

    let free = Running::start(&["--no-landlock", "--no-seccomp"]);
    let line = free.logged(&["sandbox", "landlock="]);
    assert!(line.contains("landlock=\"switched off\"") && line.contains("seccomp=\"switched off\""), "{line}");
    assert!(fs::read_to_string(free.proc("status")).unwrap().contains("Seccomp:\t0"));
}

/// `root-cert.pem` becomes a link to what the CA may not read: refused by the sandbox, where its user could read it.
#[test]
fn a_ca_cannot_be_pointed_at_foreign_files() {
    for (switch, reads) in [(&[] as &[&str], false), (&["--no-landlock"], true)] {
        let running = Running::start(switch);
        let foreign = tempfile::tempdir().unwrap();
        fs::set_permissions(foreign.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(foreign.path().join("foreign.pem"), "no certificate").unwrap();
        if !(reads || running.restricted()) {
            continue;
        }
        let roots = running.path("ca/root-cert.pem");
        fs::remove_file(&roots).unwrap();
        symlink(foreign.path().join("foreign.pem"), &roots).unwrap();
        let words =
            ["root-cert.pem", if reads { "no CERTIFICATE block" } else { "Permission denied" }, "kept the last good"];
        running.logged(&words);
        assert!(running.is_ready());
    }
}

/// The folder of tokens becomes a link out of it: nothing is written where it leads.
#[test]
fn a_ca_writes_nowhere_but_into_its_folders() {
    for (switch, writes) in [(&[] as &[&str], false), (&["--no-landlock"], true)] {
        let running = Running::start(switch);
        let foreign = tempfile::tempdir().unwrap();
        fs::set_permissions(foreign.path(), fs::Permissions::from_mode(0o777)).unwrap();
        if !(writes || running.restricted()) {
            continue;
        }
        symlink(foreign.path(), running.path("tokens/shop/web")).unwrap();
        let registrations = running.path("ca/identities.yaml");
        fs::write(&registrations, format!("identities: [{{id: {CART:?}}}, {{id: {WEB:?}}}]\n")).unwrap();
        if writes {
            running.token("web");
        } else {
            running.logged(&["sa/web", "its token cannot be refreshed", "Permission denied"]);
            assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 0);
        }
        assert!(running.is_ready());
    }
}

/// All that it does to its folders in a life: state, audit, tokens, another root.
#[test]
fn a_confined_ca_changes_its_root_and_its_tokens() {
    let running = Running::start(&[]);
    let dir = running.path("ca");
    let rotate =
        |step: &str| portcullis(&["ca", "rotate-root", step, "--dir", dir.to_str().unwrap()]).output().unwrap();
    for step in ["start", "abort"] {
        let done = rotate(step);
        assert!(done.status.success(), "{step}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let before = running.token("cart");
    fs::write(running.path("key"), portcullis_ca::TokenKey::generate().unwrap().as_bytes()).unwrap();
    fs::set_permissions(running.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(running.path("key"), dir.join("token-key.pem")).unwrap();
    eventually("another token is ready", || (running.token("cart") != before).then_some(()));
    running.logged(&["those of the key before it are refused"]);
    let log = fs::read_to_string(running.path("log")).unwrap();
    assert!(!log.contains("ermission"), "{log}");
}
