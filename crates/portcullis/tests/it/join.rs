//! A second host: `ca join-token` on the side of a CA that runs, `join` on the other, and a sidecar with what it wrote.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{BIN, CART, Ran, Sidecar, WEB, eventually, free_address, portcullis};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(arguments: &[&str]) -> Ran {
    portcullis(arguments).into()
}

/// A CA that runs; killed when dropped.
struct Authority {
    dir: PathBuf,
    listen: SocketAddr,
    child: Child,
}

impl Authority {
    fn start(dir: PathBuf) -> Self {
        let made = run(&["ca", "init", "--dir", text(&dir), "--id", CART]);
        assert_eq!(made.code, Some(0), "{}", made.err);
        let listen = free_address();
        let child = Self::spawn(&dir, listen);
        Self { dir, listen, child }
    }

    fn spawn(dir: &Path, listen: SocketAddr) -> Child {
        let mut command = Command::new(BIN);
        command.args(["ca", "run", "--dir", text(dir), "--listen", &listen.to_string()]);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        eventually("the CA answers", || (run(&["ca", "status", "--dir", text(dir)]).code == Some(0)).then_some(()));
        child
    }

    /// As a power cut ends it.
    fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.dir, self.listen);
    }

    fn token(&self, further: &[&str]) -> String {
        let made = run(&[&["ca", "join-token", "create", "--dir", text(&self.dir)], further].concat());
        assert_eq!(made.code, Some(0), "{}", made.err);
        assert!(!made.err.contains(made.out.trim()), "the secret is for standard output only");
        made.out.trim().to_owned()
    }

    fn join(&self, token: &str, out: &Path, further: &[&str]) -> Ran {
        let address = self.listen.to_string();
        run(&[&["join", &address, "--token", token, "--out", text(out)], further].concat())
    }

    fn audit(&self) -> String {
        fs::read_to_string(self.dir.join("audit.jsonl")).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_sidecar_of_another_host_gets_its_certificate_with_what_join_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    // It is registered by the same command.
    let token = authority.token(&["--id", WEB]);
    let out = folder.path().join("identity");
    let joined = authority.join(&token, &out, &[]);
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    assert!(joined.out.starts_with("joined cluster.local at ") && joined.out.contains(WEB), "{}", joined.out);
    let place = out.join("shop/web");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&place.join("token")), mode(&out)], [0o600, 0o700]);
    let roots = |path: PathBuf| fs::read(path).unwrap();
    assert_eq!(roots(place.join("root-cert.pem")), roots(authority.dir.join("root-cert.pem")));
    let section = fs::read_to_string(place.join("identity.yaml")).unwrap();
    let body = format!("workload: {{name: web, namespace: shop, serviceAccount: web}}\n{section}");
    let _web = Sidecar::start(folder.path(), "web", &body);
    assert!(authority.audit().lines().any(|line| line.contains(r#""event":"issued""#) && line.contains(WEB)));
}

#[test]
fn a_sidecar_that_is_killed_starts_again_with_the_token_that_it_has_got_for_that() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let out = folder.path().join("identity");
    assert_eq!(authority.join(&authority.token(&["--id", WEB]), &out, &[]).code, Some(0));
    let token = || fs::read_to_string(out.join("shop/web/token")).unwrap();
    let section = fs::read_to_string(out.join("shop/web/identity.yaml")).unwrap();
    let body = format!("workload: {{name: web, namespace: shop, serviceAccount: web}}\n{section}");
    let mut known = token();
    for start in 0..3 {
        // It is killed, not ended, at the end of each round.
        let _web = Sidecar::start(folder.path(), &format!("web{start}"), &body);
        known = eventually("the token is replaced", || Some(token()).filter(|new| *new != known));
    }
    let mode = fs::metadata(out.join("shop/web/token")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let issued = |line: &&str| line.contains(r#""event":"issued""#) && line.contains(r#""by":"token""#);
    assert_eq!(authority.audit().lines().filter(issued).count(), 3);
}

#[test]
fn another_authority_at_the_address_is_sent_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (right, other) = (Authority::start(folder.path().join("ca")), Authority::start(folder.path().join("other")));
    let token = right.token(&["--id", CART]);
    let out = folder.path().join("identity");
    let refused = other.join(&token, &out, &[]);
    assert_eq!(refused.code, Some(65), "{}", refused.err);
    assert!(refused.err.contains("does not show the root certificate") && refused.err.contains("nothing was sent"));
    assert_eq!(other.audit(), "", "a request has come");
    assert!(files(&out).is_empty());
    // And the token is as good as it was.
    let joined = right.join(&token, &out, &[]);
    assert_eq!(joined.code, Some(0), "{}", joined.err);
}

#[test]
fn a_name_that_is_not_in_the_certificate_is_refused_although_the_root_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let token = authority.token(&["--id", CART]);
    let refused = authority.join(&token, &folder.path().join("identity"), &["--server-name", "ca.example.org"]);
    assert_eq!(refused.code, Some(65), "{}", refused.err);
    assert!(refused.err.contains("--name ca.example.org"), "{}", refused.err);
    assert_eq!(authority.audit().matches("Join").count(), 0);
}

#[test]
fn a_token_is_used_up_by_one_host_also_when_the_ca_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::start(folder.path().join("ca"));
    let token = authority.token(&["--id", CART]);
    assert_eq!(authority.join(&token, &folder.path().join("one"), &[]).code, Some(0));
    authority.kill_and_restart();
    let again = authority.join(&token, &folder.path().join("two"), &[]);
    assert_eq!(again.code, Some(65));
    assert!(again.err.contains("used up") && again.err.contains("join-token create"), "{}", again.err);
    assert!(files(&folder.path().join("two")).is_empty());
}

#[test]
fn an_identity_that_the_token_is_not_for_is_refused_and_the_token_stays_good() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let token = authority.token(&["--id", WEB]);
    let out = folder.path().join("identity");
    let refused = authority.join(&token, &out, &["--id", CART]);
    assert_eq!(refused.code, Some(65), "{}", refused.err);
    assert!(refused.err.contains("not for all of these identities"), "{}", refused.err);
    assert!(authority.audit().contains(r#""reason":"join-token-identity""#));
    assert_eq!(authority.join(&token, &out, &["--id", WEB]).code, Some(0));
    // A second run finds what it needs and asks nobody.
    let kept = authority.join(&token, &out, &["--id", WEB, "--keep-existing"]);
    assert!(kept.code == Some(0) && kept.out.contains("unchanged"), "{}", kept.err);
}

#[test]
fn tokens_are_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let token = authority.token(&["--id", CART, "--uses", "3", "--ttl", "1d"]);
    let number = token.split('.').nth(1).unwrap();
    let list = || run(&["ca", "join-token", "list", "--dir", text(&authority.dir), "-o", "json"]).json();
    let listed = list();
    assert_eq!((&listed["items"][0]["number"], &listed["items"][0]["usesLeft"]), (&number.into(), &3.into()));
    assert!(!listed.to_string().contains(token.rsplit('.').next().unwrap()));
    let revoked = run(&["ca", "join-token", "revoke", "--dir", text(&authority.dir), number]);
    assert_eq!(revoked.code, Some(0), "{}", revoked.err);
    assert_eq!(list()["items"][0]["state"], "revoked");
    let refused = authority.join(&token, &folder.path().join("identity"), &[]);
    assert!(refused.code == Some(65) && refused.err.contains("was revoked"), "{}", refused.err);
    let unknown = run(&["ca", "join-token", "revoke", "--dir", text(&authority.dir), "000000000000"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("no such join token"), "{}", unknown.err);
}

#[test]
fn a_wrong_token_is_never_repeated_and_a_missing_ca_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let token = authority.token(&["--id", CART]);
    let out = folder.path().join("identity");
    let cut = authority.join(&token[..token.len() - 3], &out, &[]);
    assert!(cut.code == Some(65) && cut.err.contains("SECRET") && cut.err.contains("copy all of it"), "{}", cut.err);
    let guessed = format!("{}{}", &token[..token.len() - 64], "0".repeat(64));
    let guessed = authority.join(&guessed, &out, &[]);
    assert!(guessed.code == Some(65) && guessed.err.contains("unauthenticated"), "{}", guessed.err);
    for shown in [&cut.err, &guessed.err] {
        assert!(!shown.contains(&token[token.len() - 64..token.len() - 10]), "{shown}");
    }
    let nobody =
        run(&["join", &free_address().to_string(), "--token", &token, "--out", text(&out), "--timeout", "300ms"]);
    assert_eq!(nobody.code, Some(69), "{}", nobody.err);
    let file = run(&["join", "127.0.0.1:1", "--token-file", text(&folder.path().join("none")), "--out", text(&out)]);
    assert_eq!(file.code, Some(65), "{}", file.err);
}
