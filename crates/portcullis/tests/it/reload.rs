//! Policies and credentials are replaced while connections come in: however the files are written, the new ones are soon in
//! force, the old ones are in force until then, and there is no gap.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Authority, Issued};
use rustls_pki_types::CertificateDer;

use crate::support::raw::{dial, identity_files, read_all, tls_client};
use crate::support::{App, CART, PATIENCE, POLICY, Sidecar, WEB, eventually, free_address, passed};

/// How long a file is empty or absent while it is written; less than the second after which a file counts as deleted.
const GAP: Duration = Duration::from_millis(100);

/// How files are replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    /// Beside the old one, and then over it.
    Rename,
    /// Emptied, and written a little later.
    TruncateAndWrite,
    /// Gone, and there again a little later.
    DeleteAndCreate,
    /// As the kubelet does it: all files in a new folder, and a link to it swapped.
    DataLink,
}

/// A folder with files that are replaced in that way.
struct Folder<'a> {
    path: &'a Path,
    writer: Writer,
    round: usize,
}

type Files<'a> = &'a [(&'a str, String)];

impl<'a> Folder<'a> {
    fn new(path: &'a Path, writer: Writer, files: Files<'_>) -> Self {
        fs::create_dir(path).unwrap();
        let mut folder = Self { path, writer, round: 0 };
        for (name, content) in files {
            match writer {
                Writer::DataLink => symlink(Path::new("..data").join(name), path.join(name)).unwrap(),
                _ => fs::write(path.join(name), content).unwrap(),
            }
        }
        if writer == Writer::DataLink {
            folder.swap(files);
        }
        folder
    }

    fn replace(&mut self, files: Files<'_>) {
        if self.writer == Writer::DataLink {
            return self.swap(files);
        }
        for (name, content) in files {
            let file = self.path.join(name);
            match self.writer {
                Writer::Rename => {
                    let draft = self.path.join(format!(".{name}.draft"));
                    fs::write(&draft, content).unwrap();
                    fs::rename(draft, file).unwrap();
                }
                Writer::TruncateAndWrite => {
                    let mut open = fs::File::create(file).unwrap();
                    thread::sleep(GAP);
                    open.write_all(content.as_bytes()).unwrap();
                }
                Writer::DeleteAndCreate => {
                    fs::remove_file(&file).unwrap();
                    thread::sleep(GAP);
                    fs::write(file, content).unwrap();
                }
                Writer::DataLink => unreachable!("all at once"),
            }
        }
    }

    fn swap(&mut self, files: Files<'_>) {
        let folder = |round| self.path.join(format!("..v{round}"));
        self.round += 1;
        fs::create_dir(folder(self.round)).unwrap();
        for (name, content) in files {
            fs::write(folder(self.round).join(name), content).unwrap();
        }
        symlink(format!("..v{}", self.round), self.path.join("..data_tmp")).unwrap();
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).unwrap();
        let _none_in_the_first_round = fs::remove_dir_all(folder(self.round - 1));
    }
}

/// A sidecar before an app; `policies` and `identity` are the folders that are replaced.
struct Scene {
    cart: Sidecar,
    app: App,
    listen: SocketAddr,
}

impl Scene {
    fn new(root: &Path) -> Self {
        let (app, listen) = (App::start(), free_address());
        let body = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
             policies: policies\n\
             identity: {{files: {{certificate: identity/cert.pem, privateKey: identity/key.pem, trustBundle: identity/ca.pem}}}}\n\
             inbound: {{ports: [{{listen: \"{listen}\", port: 8080, app: \"{}\"}}]}}\n",
            app.address
        );
        Self { cart: Sidecar::start(root, "cart", &body), app, listen }
    }

    /// Whether plaintext reaches the app, which is how the mode shows.
    fn takes_plaintext(&self) -> bool {
        passed(self.listen, b"plain")
    }

    /// The certificate that a client sees, if the client is taken for a workload.
    fn certificate(&self, client: &RawPeer) -> Option<CertificateDer<'static>> {
        let mut tls = tls_client(dial(self.listen), client.client());
        let _refused = tls.write_all(b"mesh");
        tls.conn.send_close_notify();
        let _refused = tls.flush();
        let (answer, error) = read_all(&mut tls);
        (answer == b"got:mesh" && error.is_none()).then(|| tls.conn.peer_certificates().unwrap()[0].clone())
    }
}

fn policy(mode: &str, round: usize) -> [(&'static str, String); 1] {
    [("shop.yaml", format!("# written {round} times\n{}", POLICY.replace("MODE", mode)))]
}

fn identity(authority: &Authority, issued: &Issued, bundle: &str) -> Vec<(&'static str, String)> {
    let [certificate, key, (name, _)] = identity_files(authority, issued);
    vec![certificate, key, (name, bundle.to_owned())]
}

/// Runs `probe` until it says yes; how long after the change that was.
fn in_force(what: &str, change: impl FnOnce(), mut probe: impl FnMut() -> bool) -> Duration {
    // From the last byte that is written: before it there is nothing to put in force.
    change();
    let written = Instant::now();
    eventually(what, || probe().then(|| written.elapsed()))
}

fn policies_are_in_force_soon(writer: Writer) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("policies");
    let mut policies = Folder::new(&path, writer, &policy("STRICT", 0));
    let authority = Authority::root("cluster.local");
    let files = identity(&authority, &authority.workload(CART), &authority.bundle_pem());
    Folder::new(&root.path().join("identity"), writer, &files);
    let scene = Scene::new(root.path());
    assert!(!scene.takes_plaintext());

    let mut took = Vec::new();
    for (round, mode) in ["PERMISSIVE", "STRICT", "DISABLE", "STRICT"].into_iter().enumerate() {
        let what = format!("{mode} by {writer:?}");
        took.push(in_force(
            &what,
            || policies.replace(&policy(mode, round)),
            || scene.takes_plaintext() == (mode != "STRICT"),
        ));
    }
    println!("{writer:?}: policies in force after {took:?}");

    // A policy that is written anew and says the same must not open the port for a moment: without one it would be open.
    // One that was let through before may have been closed by the change, and reach the app's count only now.
    let opened = || {
        let page = scene.cart.get("/stats/prometheus").unwrap();
        let lines = page.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum::<usize>()
    };
    eventually("the app has counted what was let through", || (scene.app.count() == opened()).then_some(()));
    let before = scene.app.count();
    thread::scope(|scope| {
        let writing = scope.spawn(|| (10..15).for_each(|round| policies.replace(&policy("STRICT", round))));
        let mut probes = 0;
        while !writing.is_finished() || probes < 50 {
            assert!(!scene.takes_plaintext(), "the port was open while its policy was written");
            probes += 1;
        }
    });
    assert_eq!(scene.app.count(), before);
    scene.cart.logged(&["reloaded", "policies"]);
}

fn credentials_are_in_force_soon(writer: Writer) {
    let root = tempfile::tempdir().unwrap();
    Folder::new(&root.path().join("policies"), writer, &policy("STRICT", 0));
    let (old, new) = (Authority::root("cluster.local"), Authority::root("cluster.local").namesake("cluster.local"));
    let path = root.path().join("identity");
    let mut issued = old.workload(CART);
    let mut folder = Folder::new(&path, writer, &identity(&old, &issued, &old.bundle_pem()));
    let scene = Scene::new(root.path());
    let [known, unknown] = [&old, &new].map(|ca| RawPeer::presenting(&ca.workload(WEB)).with_alpn(&[b"istio"]));
    assert_eq!(scene.certificate(&known), Some(issued.chain[0].clone()));
    assert_eq!(scene.certificate(&unknown), None);

    let mut took = Vec::new();
    for round in 0..3 {
        let next = old.workload(CART);
        let pair = [issued.chain[0].clone(), next.chain[0].clone()];
        let files = identity(&old, &next, &old.bundle_pem());
        // Connections come in all the time: each gets the old certificate or the new one, with its key.
        let (begin, done) = (Instant::now(), AtomicBool::new(false));
        thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::SeqCst) && begin.elapsed() < 2 * PATIENCE {
                    let certificate = scene.certificate(&known).expect("a handshake while credentials are replaced");
                    assert!(pair.contains(&certificate));
                    seen += 1;
                }
                seen
            });
            took.push(in_force(
                &format!("certificate {round} by {writer:?}"),
                || folder.replace(&files),
                || clients.is_finished() || scene.certificate(&known).as_ref() == Some(&pair[1]),
            ));
            done.store(true, Ordering::SeqCst);
            assert!(clients.join().unwrap() > 0);
        });
        issued = next;
    }
    let both = old.bundle_pem() + &new.bundle_pem();
    let files = identity(&old, &issued, &both);
    took.push(in_force("a new root", || folder.replace(&files), || scene.certificate(&unknown).is_some()));
    assert!(scene.certificate(&known).is_some(), "the old root still holds");
    println!("{writer:?}: credentials in force after {took:?}");
}

/// Every other test of this file runs in the sandbox as well, since it is on; here whole folders change their places, which
/// takes more than the folders themselves.
#[test]
fn reload_works_under_landlock() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for (name, mode) in [("policies", "STRICT"), ("next", "PERMISSIVE")] {
        Folder::new(&at(name), Writer::Rename, &policy(mode, 0));
    }
    let authority = Authority::root("cluster.local");
    let certificates = ["identity.1", "identity.2"].map(|name| {
        let issued = authority.workload(CART);
        Folder::new(&at(name), Writer::Rename, &identity(&authority, &issued, &authority.bundle_pem()));
        issued.chain[0].clone()
    });
    symlink("identity.1", at("identity")).unwrap();
    let scene = Scene::new(root.path());
    let said = scene.cart.logged(&["sandbox", "landlock="]);
    if !said.contains("files restricted") {
        println!("SKIPPED, though the rest holds without it: {said}");
    }
    let rename = |from: &str, to: &str| fs::rename(at(from), at(to)).unwrap();

    assert!(!scene.takes_plaintext());
    let replaced = || {
        rename("policies", "old");
        rename("next", "policies");
    };
    in_force("another folder in its place", replaced, || scene.takes_plaintext());
    let back = || {
        rename("policies", "next");
        rename("old", "policies");
    };
    in_force("the old one again", back, || !scene.takes_plaintext());
    rename("policies", "away");
    scene.cart.logged(&["policies", "No such file"]);
    assert!(!scene.takes_plaintext(), "the last good set");
    let logged = scene.cart.read_log().len();
    rename("away", "policies");
    // A deletion counts only if it is seen, and so after the folder is watched again.
    let seen = || scene.cart.read_log()[logged..].contains("the files are good again").then_some(());
    eventually("the folder that came back", seen);
    fs::remove_file(at("policies/shop.yaml")).unwrap();
    in_force("no policy in the folder that came back", || (), || scene.takes_plaintext());

    let client = RawPeer::presenting(&authority.workload(WEB)).with_alpn(&[b"istio"]);
    assert_eq!(scene.certificate(&client).as_ref(), Some(&certificates[0]));
    let swapped = || {
        symlink("identity.2", at("link")).unwrap();
        rename("link", "identity");
    };
    in_force("a folder behind a link", swapped, || scene.certificate(&client).as_ref() == Some(&certificates[1]));
    let log = scene.cart.read_log();
    assert!(!log.contains("Permission denied"), "{log}");
}

macro_rules! for_each_writer {
    ($($name:ident: $writer:ident),*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn policies_in_force() {
                policies_are_in_force_soon(Writer::$writer);
            }

            #[test]
            fn credentials_in_force() {
                credentials_are_in_force_soon(Writer::$writer);
            }
        }
    )*};
}

for_each_writer!(
    rename: Rename,
    truncate_and_write: TruncateAndWrite,
    delete_and_create: DeleteAndCreate,
    data_link: DataLink
);
