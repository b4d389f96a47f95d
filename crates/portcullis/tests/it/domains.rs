//! Two federated trust domains, each with its own CA and roots, which serve each other's bundles: real processes.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::raw::{dial, read_all, tls_client};
use crate::support::{App, BIN, POLICY, Sidecar, WEB, eventually, free_address, passed, portcullis};
use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Authority, Profile, to_pem};
use serde_json::Value;

const OURS: &str = "cluster.local";
const THEIRS: &str = "partner.example";
const CART: &str = "spiffe://partner.example/ns/shop/sa/cart";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A domain whose CA a test can sign with as well, and the authority that runs on it; killed when dropped.
struct Domain {
    issuing: Authority,
    dir: PathBuf,
    bootstrap: PathBuf,
    listen: SocketAddr,
    process: Child,
}

impl Domain {
    /// `federated` is another domain with the file that holds its roots.
    fn start(folder: &Path, name: &str, id: &str, federated: (&str, &str)) -> Self {
        let root = Authority::root(name);
        let issuing = root.below(&Profile::authority(name, "CN=issuing"));
        let (dir, bootstrap) = (folder.join(name), folder.join(format!("{name}-bootstrap")));
        let made = portcullis(&["ca", "init", "--dir", text(&dir), "--trust-domain", name]);
        assert!(made.status.success(), "{made:?}");
        let cert = to_pem(&issuing.workload(id).chain[1..2]);
        for (file, content) in [
            ("ca-cert.pem", &cert),
            ("ca-key.pem", &issuing.key_pem()),
            ("cert-chain.pem", &cert),
            ("root-cert.pem", &root.bundle_pem()),
            (
                "identities.yaml",
                &format!("refreshHint: 1s\ntrustBundles: {{{}: foreign.pem}}\nidentities:\n- id: {id}\n", federated.0),
            ),
            ("foreign.pem", &federated.1.to_owned()),
        ] {
            fs::write(dir.join(file), content).unwrap();
        }
        let listen = free_address();
        let process = Command::new(BIN)
            .args(["ca", "run", "--dir", text(&dir), "--listen", &listen.to_string(), "--bootstrap", text(&bootstrap)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let domain = Self { issuing, dir, bootstrap, listen, process };
        eventually("the authority answers", || domain.ask(&["status"]).status.success().then_some(()));
        domain
    }

    fn ask(&self, words: &[&str]) -> Output {
        portcullis(&[&["ca"], words, &["--dir", text(&self.dir), "-o", "json"]].concat())
    }

    fn answer(&self, words: &[&str]) -> Value {
        serde_json::from_slice(&self.ask(words).stdout).unwrap()
    }

    fn roots(&self) -> String {
        self.answer(&["roots"])["roots"].as_str().unwrap().to_owned()
    }

    fn step(&self, step: &str) {
        eventually(step, || self.ask(&["rotate-root", step]).status.success().then_some(()));
    }

    /// What the operator does when the other domain has other roots; returns when all workloads use them, none restarted.
    fn take(&self, roots: &str) {
        let before = self.answer(&["status"])["bundleDigest"].clone();
        let draft = self.dir.join(".draft");
        fs::write(&draft, roots).unwrap();
        fs::rename(draft, self.dir.join("foreign.pem")).unwrap();
        eventually("its workloads use the other domain's new roots", || {
            let status = self.answer(&["status"]);
            let all = status["certified"] == 1 && status["onCurrentBundles"] == 1;
            (status["bundleDigest"] != before && all).then_some(())
        });
    }

    fn identity(&self, name: &str) -> String {
        let own = self.bootstrap.join("shop").join(name);
        format!(
            "identity: {{ca: {{address: \"{}\", trustBundle: {1}/root-cert.pem, tokenFile: {1}/token}}}}\n",
            self.listen,
            text(&own)
        )
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

struct Scene {
    ours: Domain,
    theirs: Domain,
    web: Sidecar,
    cart: Sidecar,
    inbound: SocketAddr,
    outbound: SocketAddr,
    app: App,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Neither trusts the other at first: the served bundles are those of unrelated CAs of that name.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let [ours, theirs] = [(OURS, WEB, THEIRS), (THEIRS, CART, OURS)]
            .map(|(name, id, other)| Domain::start(path, name, id, (other, &Authority::root(other).bundle_pem())));
        fs::create_dir(path.join("policies")).unwrap();
        fs::write(path.join("policies/shop.yaml"), POLICY.replace("MODE", "STRICT")).unwrap();
        let (app, inbound, outbound) = (App::start(), free_address(), free_address());
        let cart = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\nmesh: {{trustDomain: {THEIRS}}}\n\
             policies: ./policies\n{}inbound:\n  ports: [{{listen: \"{inbound}\", port: 8080, app: \"{}\"}}]\n",
            theirs.identity("cart"),
            app.address
        );
        let web = format!(
            "workload: {{name: web, namespace: shop, serviceAccount: web}}\n{}outbound:\n  \
             upstreams: [{{listen: \"{outbound}\", address: \"{inbound}\", mode: mtls, identities: [\"{CART}\"]}}]\n",
            ours.identity("web")
        );
        let [cart, web] = [("cart", cart), ("web", web)].map(|(name, body)| Sidecar::start(path, name, &body));
        Self { ours, theirs, web, cart, inbound, outbound, app, _folder: folder }
    }

    /// Whether a client with this certificate reaches the app.
    fn admitted(&self, issued: &portcullis_testkit::certs::Issued) -> bool {
        let peer = RawPeer::presenting(issued).with_alpn(&[b"istio"]);
        let mut stream = tls_client(dial(self.inbound), peer.client());
        let before = self.app.count();
        let sent = stream.write_all(b"hello").and_then(|()| {
            stream.conn.send_close_notify();
            stream.flush()
        });
        let (answer, _) = read_all(&mut stream);
        let through = sent.is_ok() && answer == b"got:hello";
        assert_eq!(self.app.count() > before, through, "{}", answer.escape_ascii());
        through
    }
}

#[test]
fn two_trust_domains_have_mutual_tls_and_each_root_vouches_for_its_own_domain_only() {
    let scene = Scene::new();
    let (ours, theirs) = (&scene.ours, &scene.theirs);
    assert!(!passed(scene.outbound, b"before"), "bundles of others with these names");
    ours.take(&theirs.roots());
    assert!(!passed(scene.outbound, b"before"), "one side alone");
    theirs.take(&ours.roots());
    assert!(passed(scene.outbound, b"hello"), "{}\n{}", scene.web.read_log(), scene.cart.read_log());
    scene.cart.logged(&["spiffe://cluster.local/ns/shop/sa/web"]);
    // There is no pool of all roots. What one CA signs is believed of its own domain.
    assert!(scene.admitted(&ours.issuing.workload(WEB)), "{}", scene.cart.read_log());
    assert!(!scene.admitted(&ours.issuing.workload("spiffe://partner.example/ns/shop/sa/web")));
    assert!(!scene.admitted(&theirs.issuing.workload(WEB)));
    assert!(!scene.admitted(&ours.issuing.workload("spiffe://third.example/ns/shop/sa/web")));
    assert!(scene.admitted(&theirs.issuing.workload("spiffe://partner.example/ns/shop/sa/web")));
}

/// The other domain's CA has no word in our rotation; what its operator does is in docs/guides/certificate-authority.md.
#[test]
fn another_root_of_one_domain_reaches_the_workloads_of_the_other_one() {
    let scene = Scene::new();
    let (ours, theirs) = (&scene.ours, &scene.theirs);
    ours.take(&theirs.roots());
    theirs.take(&ours.roots());
    assert!(passed(scene.outbound, b"hello"));
    let alone = ours.roots();
    ours.step("start");
    let both = ours.roots();
    assert!(both.len() > alone.len() && both.contains(alone.trim()), "{both}");
    theirs.take(&both);
    // Files that turn bad leave the last good ones in force.
    fs::write(theirs.dir.join("foreign.pem"), "no certificate").unwrap();
    ours.step("promote");
    let serial = |sidecar: &Sidecar| {
        let page = sidecar.get("/certs").unwrap();
        let body: Value = serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap();
        body["certificates"][0]["certChain"][0]["serialNumber"].as_str().unwrap().to_owned()
    };
    let before = serial(&scene.web);
    eventually("a certificate below the new root", || {
        scene.web.signal("HUP");
        std::thread::sleep(std::time::Duration::from_millis(600));
        (serial(&scene.web) != before).then_some(())
    });
    assert!(passed(scene.outbound, b"below the new root"), "{}", scene.cart.read_log());
    assert!(theirs.ask(&["status"]).status.success());
    // Taken away, the new root is trusted no more: it was that bundle which counted.
    theirs.take(&alone);
    eventually("refused", || (!passed(scene.outbound, b"hello")).then_some(()));
}
