//! The CA as a process: creation, issuance, renewal, crash and shutdown.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{BIN, CART, WEB, eventually, free_address, portcullis};
use portcullis_testkit::openssl;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ca(arguments: &[&str]) -> Output {
    portcullis(&[&["ca"], arguments].concat())
}

fn init(dir: &Path) {
    let made = ca(&["init", "--dir", text(dir), "--id", CART]);
    assert!(made.status.success(), "{}", said(&made));
}

/// A running CA; killed when dropped.
struct Running {
    child: Child,
    listen: SocketAddr,
}

impl Running {
    fn start(dir: &Path, further: &[&str]) -> Self {
        let listen = free_address();
        let child = Command::new(BIN)
            .args(["ca", "run", "--dir", text(dir), "--listen", &listen.to_string(), "--name", "ca.test"])
            .args(further)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the CA answers", || ca(&["status", "--dir", text(dir)]).status.success().then_some(()));
        Self { child, listen }
    }

    fn end(mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    /// The issuer of the certificate that it shows, verified by openssl with its name.
    fn shown(&self, dir: &Path) -> String {
        let (at, roots) = (self.listen.to_string(), dir.join("root-cert.pem"));
        let arguments = [
            "s_client",
            "-connect",
            &at,
            "-CAfile",
            text(&roots),
            "-verify_return_error",
            "-verify_hostname",
            "ca.test",
            "-alpn",
            "h2",
        ];
        let shown = String::from_utf8_lossy(&openssl(arguments, b"")).into_owned();
        assert!(shown.contains("Verify return code: 0 (ok)") && shown.contains("ALPN protocol: h2"), "{shown}");
        shown.lines().find(|line| line.starts_with("issuer=")).unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_ca_is_made_once_and_its_keys_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    for name in ["ca-key.pem", "token-key.pem", "root/root-key.pem"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let before = fs::read(dir.join("ca-cert.pem")).unwrap();
    assert_eq!(ca(&["init", "--dir", text(&dir)]).status.code(), Some(1));
    let kept = ca(&["init", "--dir", text(&dir), "--keep-existing"]);
    assert!(kept.status.success() && said(&kept).contains("unchanged"), "{}", said(&kept));
    assert_eq!(fs::read(dir.join("ca-cert.pem")).unwrap(), before);
    // What an interrupted run has left is finished, with the root that it has made.
    fs::remove_file(dir.join("ca-cert.pem")).unwrap();
    let root = fs::read(dir.join("root/root-cert.pem")).unwrap();
    init(&dir);
    assert_eq!(fs::read(dir.join("root/root-cert.pem")).unwrap(), root);
    let (roots, cert) = (dir.join("root-cert.pem"), dir.join("ca-cert.pem"));
    let verify = ["verify", "-x509_strict", "-CAfile", text(&roots), text(&cert)];
    assert!(String::from_utf8_lossy(&openssl(verify, b"")).contains(": OK"));
    let wrong = ca(&["init", "--dir", text(&folder.path().join("x")), "--id", "spiffe://other.test/a"]);
    assert_eq!(wrong.status.code(), Some(65), "{}", said(&wrong));
    assert!(!folder.path().join("x").exists());
}

#[test]
fn an_identity_that_is_added_later_is_served_by_the_ca_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, bootstrap) = (folder.path().join("ca"), folder.path().join("bootstrap"));
    init(&dir);
    let registrations = dir.join("identities.yaml");
    let before = fs::read_to_string(&registrations).unwrap();
    let keep = |ids: &[&str]| {
        let ids = ids.iter().flat_map(|id| ["--id", id]);
        ca(&["init", "--dir", text(&dir), "--keep-existing"].into_iter().chain(ids).collect::<Vec<_>>())
    };
    let _running = Running::start(&dir, &["--bootstrap", text(&bootstrap)]);
    let done = keep(&[CART, WEB]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        format!("registered: {WEB}\nunchanged: a CA is in {}\n", dir.display())
    );
    assert_eq!(fs::read_to_string(&registrations).unwrap(), format!("{before}- id: {WEB}\n"));
    eventually("a token is ready for it", || fs::read_to_string(bootstrap.join("shop/web/token")).ok());
    let again = keep(&[WEB]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), format!("unchanged: a CA is in {}\n", dir.display()));

    // What cannot be added to is left as it is, and so is a CA of another domain.
    let flow = format!("identities: [{{id: {CART:?}}}]\n");
    fs::write(&registrations, &flow).unwrap();
    let refused = keep(&[WEB]);
    assert_eq!(refused.status.code(), Some(65), "{}", said(&refused));
    assert!(said(&refused).contains("add by hand: `- id: "), "{}", said(&refused));
    assert_eq!(fs::read_to_string(&registrations).unwrap(), flow);
    fs::write(&registrations, "identities: []\n").unwrap();
    let other = ["--trust-domain", "other.test", "--id", "spiffe://other.test/ns/shop/sa/web"];
    let other = ca(&[&["init", "--dir", text(&dir), "--keep-existing"], &other[..]].concat());
    assert_eq!(other.status.code(), Some(65), "{}", said(&other));
    assert!(said(&other).contains("is of trust domain cluster.local, not other.test"), "{}", said(&other));
    assert_eq!(fs::read_to_string(&registrations).unwrap(), "identities: []\n");
}

#[test]
fn a_ca_runs_without_its_root_is_renewed_and_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, safe) = (folder.path().join("ca"), folder.path().join("safe"));
    init(&dir);
    fs::rename(dir.join("root"), &safe).unwrap();
    let bootstrap = folder.path().join("bootstrap");
    let running = Running::start(&dir, &["--bootstrap", text(&bootstrap)]);
    let first = running.shown(&dir);
    eventually("a token is ready", || fs::read_to_string(bootstrap.join("shop/cart/token")).ok());
    let status = ca(&["status", "--dir", text(&dir), "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        (&status["ready"], &status["signsAsRoot"], &status["registered"]),
        (&true.into(), &false.into(), &1.into())
    );
    let second = ca(&["run", "--dir", text(&dir), "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(78), "{}", said(&second));
    assert!(said(&second).contains("another CA runs on this folder"), "{}", said(&second));

    let renewed = ca(&["renew", "--dir", text(&dir), "--root", text(&safe)]);
    assert!(renewed.status.success(), "{}", said(&renewed));
    eventually("the new intermediate signs", || (running.shown(&dir) != first).then_some(()));

    assert_eq!(running.end(rustix::process::Signal::TERM).code(), Some(0));
    assert_eq!(ca(&["status", "--dir", text(&dir)]).status.code(), Some(69));
    // After a kill too there is nothing in the way.
    Running::start(&dir, &[]).end(rustix::process::Signal::KILL);
    Running::start(&dir, &[]);
}

#[test]
fn a_renewal_that_is_killed_at_any_moment_leaves_a_folder_that_a_ca_starts_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let starts = |when: &str| {
        let token = ca(&["token", "--dir", text(&dir), "--id", CART]);
        assert!(token.status.success(), "{when}: {}", said(&token));
    };
    let old_key = fs::read(dir.join("ca-key.pem")).unwrap();
    assert!(ca(&["renew", "--dir", text(&dir)]).status.success());
    assert!(!dir.join("ca-key-next.pem").exists());
    // As a kill between the last two steps leaves it: the certificate is in its place, and the key not yet.
    fs::rename(dir.join("ca-key.pem"), dir.join("ca-key-next.pem")).unwrap();
    fs::write(dir.join("ca-key.pem"), &old_key).unwrap();
    starts("between the certificate and the key");
    Running::start(&dir, &[]).end(rustix::process::Signal::TERM);
    assert!(!dir.join("ca-key-next.pem").exists() && fs::read(dir.join("ca-key.pem")).unwrap() != old_key);
    // A key that waits in vain changes nothing.
    fs::write(dir.join("ca-key-next.pem"), &old_key).unwrap();
    starts("before the certificate");
    for wait in 0..30 {
        let mut renewal = Command::new(BIN).args(["ca", "renew", "--dir", text(&dir)]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        renewal.kill().unwrap();
        renewal.wait().unwrap();
        starts("at a random moment");
    }
}

#[test]
fn silent_clients_do_not_take_the_descriptors_that_the_ca_needs_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, bootstrap) = (folder.path().join("ca"), folder.path().join("bootstrap"));
    init(&dir);
    let listen = free_address();
    let child = Command::new("sh")
        .args(["-c", r#"ulimit -n 160; exec "$@""#, "sh", BIN, "ca", "run", "--name", "ca.test"])
        .args(["--dir", text(&dir), "--listen", &listen.to_string(), "--bootstrap", text(&bootstrap)])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running { child, listen };
    let answers = || ca(&["status", "--dir", text(&dir)]).status.success();
    eventually("the CA answers", || answers().then_some(()));
    let token = bootstrap.join("shop/cart/token");
    eventually("a token is ready", || token.exists().then_some(()));
    let silent: Vec<_> = (0..250).map(|_| std::net::TcpStream::connect(listen).unwrap()).collect();
    // With no descriptor left it could neither be asked nor write a file.
    assert!(answers());
    running.shown(&dir);
    fs::remove_file(&token).unwrap();
    eventually("another token is ready", || token.exists().then_some(()));
    drop(silent);
}

/// Needs root, since it uses a second user.
#[test]
fn other_users_are_refused_at_the_socket_even_if_its_mode_allows_them() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let _running = Running::start(&dir, &[]);
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    // Where they find it whatever the folder of the build is.
    let program = folder.path().join("portcullis");
    fs::copy(BIN, &program).unwrap();
    [folder.path(), &dir, &dir.join("ca.sock")].into_iter().for_each(open);
    let ask = |user: &str| {
        let asked = Command::new("setpriv")
            .args([
                "--reuid",
                user,
                "--clear-groups",
                text(&program),
                "ca",
                "rotate-root",
                "status",
                "--dir",
                text(&dir),
            ])
            .output()
            .unwrap();
        (asked.status.code(), said(&asked))
    };
    assert_eq!(ask("0").0, Some(0), "root itself: {}", ask("0").1);
    assert_eq!(ask("65534").0, Some(69), "{}", ask("65534").1);
}

#[test]
fn a_token_is_printed_for_registered_identities_only() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let token = ca(&["token", "--dir", text(&dir), "--id", CART, "--ttl", "10m"]);
    assert!(token.status.success());
    let token = String::from_utf8(token.stdout).unwrap();
    assert_eq!((token.trim_end().split('.').count(), token.lines().count()), (3, 1), "{token}");
    let refused = ca(&["token", "--dir", text(&dir), "--id", WEB]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(said(&refused).contains("is not registered; add"), "{}", said(&refused));
    fs::write(dir.join("identities.yaml"), "identities:\n- id: spiffe://cluster.local/ns/shop/sa/cart\n  tll: 1h\n")
        .unwrap();
    let wrong = ca(&["token", "--dir", text(&dir), "--id", CART]);
    assert!(said(&wrong).contains("identities.yaml:3:3: identities[0].tll: unknown field"), "{}", said(&wrong));
}

#[test]
fn the_log_shows_what_the_audit_has() {
    let folder = tempfile::tempdir().unwrap();
    let lines = format!(
        "{}\n{}\n{{\"time\":\"half",
        r#"{"time":"2026-01-01T00:00:00Z","event":"issued","call":"CreateCertificate","id":"spiffe://a.test/x","by":"svid","serial":"40ff"}"#,
        r#"{"time":"2026-01-01T00:00:01Z","event":"refused","call":"CreateCertificate","reason":"token-used"}"#,
    );
    fs::write(folder.path().join("audit.jsonl"), lines).unwrap();
    let all = said(&ca(&["log", "--dir", text(folder.path())]));
    assert_eq!(all.lines().count(), 3, "{all}");
    assert!(all.contains("40ff") && all.contains("token-used"), "{all}");
    let one = ca(&["log", "--dir", text(folder.path()), "--id", "spiffe://a.test/x", "-o", "json"]);
    let one: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(one["serial"], "40ff");
    assert_eq!(ca(&["log", "--dir", "/nonexistent"]).status.code(), Some(1));
}

#[test]
fn the_audit_goes_on_in_a_new_file_on_sighup_and_the_log_shows_older_ones_first() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let running = Running::start(&dir, &[]);
    let line =
        |serial: &str| format!("{{\"event\":\"issued\",\"id\":\"spiffe://a.test/x\",\"serial\":\"{serial}\"}}\n");
    // Nothing was issued yet, so the file is empty; what is put there counts for the reader.
    let current = dir.join("audit.jsonl");
    fs::write(&current, line("02")).unwrap();
    fs::rename(&current, dir.join("audit.jsonl.1")).unwrap();
    fs::write(dir.join("audit.jsonl.2"), line("01")).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&running.child), rustix::process::Signal::HUP)
        .unwrap();
    eventually("there is a new file", || current.exists().then_some(()));
    fs::write(&current, line("03")).unwrap();
    let shown = said(&ca(&["log", "--dir", text(&dir)]));
    let serials: Vec<_> = shown.lines().skip(1).map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(serials, ["01", "02", "03"], "{shown}");
    assert!(ca(&["status", "--dir", text(&dir)]).status.success(), "it did not end");
}

/// `ca init` and `certs init` make folders with the same file names and different uses.
#[test]
fn a_folder_of_the_other_command_is_refused_and_the_answer_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let (served, by_hand, out) =
        (folder.path().join("served"), folder.path().join("by-hand"), folder.path().join("out"));
    init(&served);
    assert!(portcullis(&["certs", "init", "--out", text(&by_hand)]).status.success());
    let (served, by_hand, out) = (text(&served), text(&by_hand), text(&out));
    for (arguments, exit) in [
        (&["certs", "issue", "--ca", served, "--id", CART, "--out", out] as &[&str], 65),
        (&["certs", "ensure", "--ca", served, "--id", CART, "--out", out], 65),
        (&["certs", "init", "--out", served], 1),
    ] {
        let refused = portcullis(arguments);
        assert_eq!(refused.status.code(), Some(exit), "{arguments:?}: {}", said(&refused));
        let why = format!("{served} is a folder of `portcullis ca init`");
        assert!(
            said(&refused).contains(&why) && said(&refused).contains("portcullis certs init --out"),
            "{}",
            said(&refused)
        );
    }
    for (arguments, exit) in [
        (&["run", "--dir", by_hand, "--listen", "127.0.0.1:0"] as &[&str], 78),
        (&["init", "--dir", by_hand], 1),
        (&["init", "--dir", by_hand, "--keep-existing"], 1),
        (&["token", "--dir", by_hand, "--id", CART], 65),
        (&["renew", "--dir", by_hand], 65),
    ] {
        let refused = ca(arguments);
        assert_eq!(refused.status.code(), Some(exit), "{arguments:?}: {}", said(&refused));
        let why = format!("{by_hand} is a folder of `portcullis certs init`");
        assert!(
            said(&refused).contains(&why) && said(&refused).contains("portcullis ca init --dir"),
            "{}",
            said(&refused)
        );
    }
    assert!(!Path::new(out).join("cert.pem").exists());
    // Each is still good for its own.
    assert!(portcullis(&["certs", "issue", "--ca", by_hand, "--id", CART, "--out", out]).status.success());
    assert!(ca(&["token", "--dir", served, "--id", CART]).status.success());
}

#[test]
fn a_token_is_printed_with_a_newline_unless_that_is_not_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    init(&dir);
    let arguments = ["token", "--dir", text(&dir), "--id", CART];
    let line = ca(&arguments).stdout;
    assert!(line.ends_with(b"\n") && line.iter().filter(|byte| byte.is_ascii_whitespace()).count() == 1);
    let bare = ca(&[&arguments[..], &["--no-newline"]].concat()).stdout;
    assert!(bare.len() > 100 && !bare.iter().any(u8::is_ascii_whitespace), "{}", String::from_utf8_lossy(&bare));
    let help = ca(&["token", "--help"]).stdout;
    assert!(String::from_utf8_lossy(&help).contains("--no-newline > ztunnel/istio-token"));
}
