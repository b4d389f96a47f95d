//! A host joins while the CA rotates its root: which root a token pins, what is accepted, and what the host trusts afterwards.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portcullis_testkit::openssl;

use crate::support::{BIN, CART, Ran, Sidecar, WEB, eventually, free_address, run};

/// A CA that runs; killed when dropped.
struct Authority {
    dir: PathBuf,
    listen: SocketAddr,
    child: Child,
}

impl Authority {
    fn start(dir: PathBuf) -> Self {
        let made = run(&["ca", "init", "--dir", dir.to_str().unwrap(), "--id", CART, "--id", WEB]);
        assert_eq!(made.code, Some(0), "{}", made.err);
        let path = dir.join("identities.yaml");
        let registered = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("refreshHint: 1s\n{registered}")).unwrap();
        let listen = free_address();
        let mut command = Command::new(BIN);
        command.args(["ca", "run", "--dir", dir.to_str().unwrap(), "--listen", &listen.to_string()]);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let authority = Self { dir, listen, child };
        eventually("the CA answers", || (authority.ca(&["status"]).code == Some(0)).then_some(()));
        authority
    }

    fn ca(&self, words: &[&str]) -> Ran {
        run(&[&["ca"], words, &["--dir", self.dir.to_str().unwrap()]].concat())
    }

    /// A step, as soon as it is not refused.
    fn rotate(&self, step: &str) {
        eventually(step, || (self.ca(&["rotate-root", step]).code == Some(0)).then_some(()));
    }

    /// A token for a workload, good for one host.
    fn token(&self, id: &str) -> String {
        let made = self.ca(&["join-token", "create", "--id", id]);
        assert_eq!(made.code, Some(0), "{}", made.err);
        made.out.trim().to_owned()
    }

    fn join(&self, token: &str, out: &Path) -> Ran {
        run(&["join", &self.listen.to_string(), "--token", token, "--out", out.to_str().unwrap()])
    }

    /// The roots that are published now, as hashes.
    fn roots(&self) -> Vec<String> {
        let roots = self.ca(&["roots"]);
        assert_eq!(roots.code, Some(0), "{}", roots.err);
        hashes(&roots.out)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// SHA-256 of each certificate, as openssl says it.
fn hashes(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let one = |text: &str| {
        let said = openssl(["x509", "-noout", "-fingerprint", "-sha256"], format!("{text}{END}\n").as_bytes());
        let said = String::from_utf8(said).unwrap();
        said.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase()
    };
    let mut all: Vec<_> = pem.split(END).filter(|text| text.contains("BEGIN")).map(one).collect();
    all.sort();
    all
}

/// Which root a token pins.
fn pinned(token: &str) -> String {
    token.split('.').nth(2).unwrap().to_owned()
}

/// The roots that a joined host has for its next start.
fn kept(out: &Path, workload: &str) -> Vec<String> {
    hashes(&fs::read_to_string(out.join("shop").join(workload).join("root-cert.pem")).unwrap())
}

fn sidecar(folder: &Path, out: &Path, name: &str, workload: &str) -> Sidecar {
    let section = fs::read_to_string(out.join("shop").join(workload).join("identity.yaml")).unwrap();
    let body = format!("workload: {{name: {workload}, namespace: shop, serviceAccount: {workload}}}\n{section}");
    Sidecar::start(folder, name, &body)
}

#[test]
fn a_host_joins_in_each_phase_and_trusts_what_is_published_then() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let out = |name: &str| folder.path().join(name);
    let [before, old, early] = [(); 3].map(|()| authority.token(WEB));
    let a = authority.roots();
    assert_eq!(pinned(&before), a[0]);
    let joined = |token: &str, out: &Path| {
        let ran = authority.join(token, out);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(kept(out, "web"), authority.roots());
    };

    // The CA shows its old root until the end, so both tokens are good, and the host gets both roots.
    authority.rotate("start");
    let both = authority.roots();
    assert_eq!(both.len(), 2);
    joined(&before, &out("started-old"));
    let token = authority.token(WEB);
    assert_eq!(pinned(&token), a[0]);
    joined(&token, &out("started"));

    authority.rotate("promote");
    joined(&old, &out("promoted-old"));
    let token = authority.token(WEB);
    assert_eq!(pinned(&token), a[0]);
    joined(&token, &out("promoted"));
    // A host that has joined before, and starts now: its certificate comes from the new root.
    let running = sidecar(folder.path(), &out("started"), "running", "web");

    authority.rotate("finish");
    let b = authority.roots();
    assert!(b.len() == 1 && b != a);
    // The token from before pins a root that nobody shows any more: nothing is sent, and the text says what to do.
    let refused = authority.join(&early, &out("late"));
    assert_eq!(refused.code, Some(65), "{}", refused.err);
    assert!(refused.err.contains("nothing was sent") && refused.err.contains("rotated"), "{}", refused.err);
    assert!(!out("late").join("shop/web/token").exists());
    let token = authority.token(WEB);
    assert_eq!(pinned(&token), b[0]);
    joined(&token, &out("finished"));
    // The old root is no longer trusted, not even at the next start; and that finds the CA.
    eventually("the old root is gone", || (kept(&out("started"), "web") == b).then_some(()));
    drop(running);
    let _again = sidecar(folder.path(), &out("started"), "again", "web");
    // So is it with one that was joined in the middle and starts only now, with both roots.
    let _late = sidecar(folder.path(), &out("promoted"), "late", "web");
}

#[test]
fn a_host_that_joined_before_a_rotation_keeps_the_new_root_for_its_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::start(folder.path().join("ca"));
    let out = folder.path().join("identity");
    assert_eq!(authority.join(&authority.token(CART), &out).code, Some(0));
    let _cart = sidecar(folder.path(), &out, "cart", "cart");
    assert_eq!(kept(&out, "cart"), authority.roots());
    authority.rotate("start");
    let both = authority.roots();
    assert_eq!(both.len(), 2);
    eventually("both roots are kept", || (kept(&out, "cart") == both).then_some(()));
    authority.rotate("abort");
    eventually("the one that is left", || (kept(&out, "cart") == authority.roots()).then_some(()));
}
