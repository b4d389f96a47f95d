//! Rotation of the root of a CA that is killed at any moment.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{BIN, CART, eventually, free_address, portcullis};
use portcullis_testkit::openssl;
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn rotate(dir: &Path, step: &str) -> Output {
    portcullis(&["ca", "rotate-root", step, "--dir", text(dir), "-o", "json"])
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn phase(dir: &Path) -> (String, String) {
    let standing = json(&rotate(dir, "status"));
    let word = |name: &str| standing[name].as_str().unwrap().to_owned();
    (word("phase"), word("bundleDigest"))
}

/// A step, as soon as it is not refused.
fn done(dir: &Path, step: &str) {
    eventually(step, || rotate(dir, step).status.success().then_some(()));
}

fn init(dir: &Path) {
    assert!(portcullis(&["ca", "init", "--dir", text(dir), "--id", CART]).status.success());
    let path = dir.join("identities.yaml");
    let registered = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("refreshHint: 1s\n{registered}")).unwrap();
}

/// A running CA; killed (SIGKILL) when dropped.
struct Running(Child);

impl Running {
    fn start(dir: &Path) -> Self {
        let listen = free_address().to_string();
        let child = Command::new(BIN)
            .args(["ca", "run", "--dir", text(dir), "--listen", &listen])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self(child);
        eventually("the CA answers", || {
            portcullis(&["ca", "status", "--dir", text(dir)]).status.success().then_some(())
        });
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn ca_restart_in_each_phase() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let mut running = Running::start(&dir);
    let (_, a) = phase(&dir);
    let mut restarted = |expected: &str| {
        let before = phase(&dir);
        assert_eq!(before.0, expected);
        drop(std::mem::replace(&mut running, Running(Command::new("true").spawn().unwrap())));
        assert_eq!(rotate(&dir, "status").status.code(), Some(69), "it is killed");
        running = Running::start(&dir);
        assert_eq!(phase(&dir), before);
        before.1
    };
    done(&dir, "start");
    let both = restarted("started");
    assert_ne!(both, a);
    // What people read says since when, and until when.
    let shown = portcullis(&["ca", "rotate-root", "status", "--dir", text(&dir)]);
    let shown = said(&shown);
    assert!(shown.contains("started             since 20") && shown.contains("next                promote"), "{shown}");
    // An intermediate below the old root would come too late.
    let renewed = portcullis(&["ca", "renew", "--dir", text(&dir)]);
    assert!(said(&renewed).contains("is being rotated (started)"), "{}", said(&renewed));
    done(&dir, "abort");
    assert_eq!(restarted("none"), a);
    done(&dir, "start");
    restarted("started");
    done(&dir, "promote");
    let both = restarted("promoted");
    done(&dir, "abort");
    assert_eq!(restarted("started"), both);
    done(&dir, "promote");
    done(&dir, "finish");
    let b = restarted("none");
    assert!(b != a && b != both);
    let (roots, cert) = (dir.join("root-cert.pem"), dir.join("ca-cert.pem"));
    let verify = ["verify", "-x509_strict", "-CAfile", text(&roots), text(&cert)];
    assert!(String::from_utf8_lossy(&openssl(verify, b"")).contains(": OK"));
    // The root of each beginning is there still, and none was replaced.
    let made = fs::read_dir(&dir).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("root-")
            && entry.as_ref().unwrap().path().is_dir()
    });
    assert_eq!(made.count(), 2);
}

/// `start --ca`: a root of one's own, from wherever.
#[test]
fn a_root_from_elsewhere_takes_the_place_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, other, foreign) = (folder.path().join("ca"), folder.path().join("other"), folder.path().join("foreign"));
    init(&dir);
    init(&other);
    let made = portcullis(&["ca", "init", "--dir", text(&foreign), "--trust-domain", "other.example"]);
    assert!(made.status.success(), "{}", said(&made));
    let start =
        |ca: &Path| portcullis(&["ca", "rotate-root", "start", "--dir", text(&dir), "--ca", text(ca), "-o", "json"]);
    let running = Running::start(&dir);
    // What is no CA, of another trust domain, our own, or torn, changes nothing.
    let torn = folder.path().join("torn");
    fs::create_dir(&torn).unwrap();
    for name in ["ca-cert.pem", "root-cert.pem", "cert-chain.pem"] {
        fs::copy(other.join(name), torn.join(name)).unwrap();
    }
    fs::copy(dir.join("ca-key.pem"), torn.join("ca-key.pem")).unwrap();
    for (ca, why) in [
        (folder.path().join("nowhere"), "nowhere"),
        (foreign, "trust domain other.example"),
        (dir.clone(), "published already"),
        (torn, "key"),
    ] {
        let refused = start(&ca);
        assert!(refused.status.code() == Some(1) && said(&refused).contains(why), "{why}: {}", said(&refused));
        assert_eq!((phase(&dir).0.as_str(), dir.join("next").exists()), ("none", false), "{why}");
    }
    let started = start(&other);
    assert!(started.status.success(), "{}", said(&started));
    let roots = |dir: &Path| {
        let printed = portcullis(&["ca", "roots", "--dir", text(dir)]);
        String::from_utf8(printed.stdout).unwrap()
    };
    let [old, new] = [&dir, &other].map(|dir| fs::read_to_string(dir.join("root-cert.pem")).unwrap());
    assert!([&old, &new].iter().all(|root| roots(&dir).contains(root.trim())), "{}", roots(&dir));
    // It is the operator's, who need not leave it where it was.
    fs::remove_dir_all(&other).unwrap();
    drop(running);
    let _running = Running::start(&dir);
    done(&dir, "promote");
    done(&dir, "finish");
    assert_eq!((fs::read_to_string(dir.join("root-cert.pem")).unwrap(), roots(&dir)), (new.clone(), new));
    let (roots, cert) = (dir.join("root-cert.pem"), dir.join("ca-cert.pem"));
    let verify = ["verify", "-x509_strict", "-CAfile", text(&roots), text(&cert)];
    assert!(String::from_utf8_lossy(&openssl(verify, b"")).contains(": OK"));
    // No other root was created.
    let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(entries.filter(|name| name.starts_with("root-") && name != "root-cert.pem").count(), 0);
}

#[test]
fn what_a_kill_has_left_of_the_last_step_is_done_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let running = Running::start(&dir);
    done(&dir, "start");
    done(&dir, "promote");
    drop(running);
    let path = dir.join("rotation.json");
    let mut rotation: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    rotation["phase"] = "finished".into();
    fs::write(&path, rotation.to_string()).unwrap();
    // Some of the files are the new CA's, some the old one's.
    fs::write(dir.join("root-cert.pem"), rotation["new"]["root_cert"].as_str().unwrap()).unwrap();
    let token = portcullis(&["ca", "token", "--dir", text(&dir), "--id", CART]);
    assert!(token.status.success(), "{}", said(&token));
    let _running = Running::start(&dir);
    assert_eq!(phase(&dir).0, "none");
    assert!(!path.exists());
    for (name, field) in [("ca-cert.pem", "ca_cert"), ("ca-key.pem", "ca_key"), ("root-cert.pem", "root_cert")] {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), rotation["new"][field].as_str().unwrap(), "{name}");
    }
    // A file that says nothing is no reason to guess.
    drop(_running);
    fs::write(&path, "{").unwrap();
    let run = portcullis(&["ca", "run", "--dir", text(&dir), "--listen", "127.0.0.1:0"]);
    assert_eq!(run.status.code(), Some(78));
    assert!(said(&run).contains("rotation.json: damaged"), "{}", said(&run));
}

/// Four folders side by side, each of which goes once through all steps; 28 kills in all.
#[test]
fn a_kill_at_any_moment_of_a_step_leaves_one_phase_or_the_other() {
    std::thread::scope(|scope| {
        for folder in 0..4 {
            scope.spawn(move || kill_in_each_step(folder * 7 * 7));
        }
    });
}

/// Kills the CA in each step, so many milliseconds after it was asked for: from `wait` on, and 7 more each time.
fn kill_in_each_step(mut wait: u64) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    for (step, before, after) in [
        ("start", "none", "started"),
        ("promote", "started", "promoted"),
        ("abort", "promoted", "started"),
        ("abort", "started", "none"),
        ("start", "none", "started"),
        ("promote", "started", "promoted"),
        ("finish", "promoted", "none"),
    ] {
        let running = Running::start(&dir);
        if step == "promote" {
            // Until the new root is published long enough.
            eventually("time", || (json(&rotate(&dir, "status"))["secondsLeft"] == 0).then_some(()));
        }
        wait %= 60;
        let mut asked = Command::new(BIN)
            .args(["ca", "rotate-root", step, "--dir", text(&dir)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        drop(running);
        asked.wait().unwrap();
        let again = Running::start(&dir);
        let found = phase(&dir).0;
        assert!(found == before || found == after, "{wait} ms, {step}: {found}");
        if found == before {
            done(&dir, step);
        }
        drop(again);
        wait += 7;
    }
}
