//! Sidecars whose certificates come from a CA or from the Workload API: real processes, real sockets, and a server that
//! goes down.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{App, CART, POLICY, Sidecar, WEB, ask, eventually, free_address, passed, portcullis};
use portcullis_testkit::certs::Authority;
use portcullis_testkit::istio_ca::{CaFault, IstioCa};
use portcullis_testkit::workload_api::WorkloadApi;

/// Two sidecars and where to reach the app through both.
struct Scene {
    folder: tempfile::TempDir,
    inbound: SocketAddr,
    outbound: SocketAddr,
    _app: App,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/shop.yaml"), POLICY.replace("MODE", "STRICT")).unwrap();
        Self { folder, inbound: free_address(), outbound: free_address(), _app: App::start() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a workload's file says; `identity` is its source.
    fn body(&self, name: &str, identity: &str) -> String {
        let ways = match name {
            "cart" => format!(
                "policies: ./policies\ninbound:\n  ports: [{{listen: \"{}\", port: 8080, app: \"{}\"}}]\n",
                self.inbound, self._app.address
            ),
            _ => format!(
                "outbound:\n  upstreams: [{{listen: \"{}\", address: \"{}\", mode: mtls, identities: [\"{CART}\"]}}]\n",
                self.outbound, self.inbound
            ),
        };
        format!("workload: {{name: {name}, namespace: shop, serviceAccount: {name}}}\n{identity}{ways}")
    }

    /// Starts it, whether it gets ready or not.
    fn launch(&self, name: &str, identity: &str) -> Sidecar {
        let (config, admin) = (self.path().join(format!("{name}.yaml")), free_address());
        let body = format!("{}\nadmin: {{listen: \"{admin}\"}}\nworkers: 1\n", self.body(name, identity));
        fs::write(&config, body).unwrap();
        Sidecar::launch(&config, admin)
    }

    /// Both, ready.
    fn both(&self, identity: impl Fn(&str) -> String) -> [Sidecar; 2] {
        let both = ["cart", "web"].map(|name| self.launch(name, &identity(name)));
        both.iter().for_each(Sidecar::ready);
        both
    }

    /// Connections through both, one after the other in some threads, while `during` runs: how many passed, and failed.
    fn under_load(&self, during: impl FnOnce()) -> (usize, usize) {
        let (stop, good, bad) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let count = if passed(self.outbound, b"load") { &good } else { &bad };
                        count.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            // Also when it panics, or the threads would go on for ever.
            let _stopped = Stop(&stop);
            during();
        });
        (good.into_inner(), bad.into_inner())
    }
}

/// Ends the load when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A CA that knows both by a token each, whose files are written.
struct Issuer {
    ca: IstioCa,
    scene: Scene,
}

impl Issuer {
    fn new() -> Self {
        let root = Authority::root("cluster.local");
        let (ca, scene) = (IstioCa::start(&root), Scene::new());
        fs::write(scene.path().join("root.pem"), root.bundle_pem()).unwrap();
        let issuer = Self { ca, scene };
        for (name, id) in [("cart", CART), ("web", WEB)] {
            issuer.token(name, id, "first");
        }
        issuer
    }

    /// Writes a new token, as Kubernetes does: a folder for each, by rename.
    fn token(&self, name: &str, id: &str, which: &str) {
        let token = format!("{which}-{name}");
        self.ca.accept_token(&token, id);
        let folder = self.scene.path().join(format!("tokens-{name}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(".draft"), format!("{token}\n")).unwrap();
        fs::rename(folder.join(".draft"), folder.join("token")).unwrap();
    }

    fn identity(&self, name: &str, ttl: &str) -> String {
        format!(
            "identity: {{ca: {{address: \"localhost:{}\", trustBundle: root.pem, tokenFile: tokens-{name}/token, ttl: {ttl}}}}}\n",
            self.ca.address.port()
        )
    }

    fn both(&self, ttl: &str) -> [Sidecar; 2] {
        self.scene.both(|name| self.identity(name, ttl))
    }
}

fn metric(sidecar: &Sidecar, name: &str) -> f64 {
    let page = sidecar.get("/stats/prometheus").unwrap();
    let line = page.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

const RENEWED: &str = "portcullis_identity_renewals_total{result=\"ok\",reason=\"-\"}";
const IN_A_ROW: &str = "portcullis_identity_consecutive_failures";

fn renewed(sidecar: &Sidecar, times: f64) {
    eventually(&format!("{times} renewals"), || (metric(sidecar, RENEWED) >= times).then_some(()));
}

#[test]
fn sidecars_get_certificates_by_token_and_renew_under_load() {
    let issuer = Issuer::new();
    let [cart, web] = issuer.both("5s");
    let (good, bad) = issuer.scene.under_load(|| {
        for sidecar in [&cart, &web] {
            renewed(sidecar, 4.0);
        }
    });
    assert_eq!(bad, 0, "of {good}\n{}\n{}", cart.read_log(), web.read_log());
    assert!(good > 100, "{good}");
    let seen = issuer.ca.seen();
    assert_eq!(seen.iter().filter(|seen| seen.by_token).count(), 2, "once each; then by certificate");
    assert_eq!(metric(&cart, IN_A_ROW), 0.0);
    let refused = ask(issuer.scene.inbound, b"GET / HTTP/1.1\r\n\r\n");
    assert!(refused.as_ref().map_or(true, Vec::is_empty), "plaintext under STRICT: {refused:?}");
    let page = cart.get("/certs").unwrap();
    assert!(page.contains("the certificate authority at localhost:") && page.contains("\"kind\": \"ca\""), "{page}");
    let dump = cart.get("/config_dump").unwrap();
    assert!(dump.contains("\"keyType\": \"ecdsa-p256\"") && dump.contains("\"ttl\": \"5s\""), "{dump}");
    for secret in ["first-cart", "PRIVATE KEY"] {
        assert!(![page.as_str(), &dump, &cart.read_log()].iter().any(|text| text.contains(secret)), "{secret}");
    }
}

/// The data plane goes on while its CA is away for half of a lifetime.
#[test]
fn ca_down_half_life_no_failures() {
    let mut issuer = Issuer::new();
    let [cart, web] = issuer.both("16s");
    let start = Instant::now();
    issuer.ca.go_down();
    let (good, bad) = issuer.scene.under_load(|| {
        // Both have tried, and tried again.
        for sidecar in [&cart, &web] {
            eventually("two attempts have failed", || (metric(sidecar, IN_A_ROW) >= 2.0).then_some(()));
        }
        // Three quarters of the life of the certificates.
        thread::sleep(Duration::from_secs(12).saturating_sub(start.elapsed()));
    });
    assert_eq!(bad, 0, "of {good}\n{}\n{}", cart.read_log(), web.read_log());
    assert!(good > 100, "{good}");
    assert!(cart.get("/healthz/ready").unwrap().starts_with("HTTP/1.1 200"));
    let alarm = cart.logged(&["no new certificate", "reason=\"connect\"", "the old one serves until"]);
    assert!(alarm.contains("ERROR"), "{alarm}");
}

#[test]
fn ca_back_recovers() {
    let mut issuer = Issuer::new();
    let [cart, web] = issuer.both("30s");
    issuer.ca.go_down();
    cart.signal("HUP");
    cart.logged(&["no new certificate", "reason=\"connect\""]);
    issuer.ca.come_back();
    cart.logged(&["certificates are renewed again"]);
    assert_eq!(metric(&cart, IN_A_ROW), 0.0);
    assert!(passed(issuer.scene.outbound, b"hello"), "{}", web.read_log());
    // A faulty answer is named, and changes nothing.
    issuer.ca.set_fault(Some(CaFault::OtherId));
    cart.signal("HUP");
    cart.logged(&["no new certificate", "reason=\"own-id\""]);
    assert!(passed(issuer.scene.outbound, b"hello"));
    assert!(metric(&cart, "portcullis_identity_renewals_total{result=\"error\",reason=\"own-id\"}") >= 1.0);
}

/// An expired certificate is not offered, and readiness says so; a new token brings it back.
#[test]
fn own_cert_expires_readiness_503() {
    let mut issuer = Issuer::new();
    let [cart, _web] = issuer.both("6s");
    assert!(passed(issuer.scene.outbound, b"hello"));
    issuer.ca.go_down();
    let unready =
        eventually("it has expired", || cart.get("/healthz/ready").filter(|answer| answer.starts_with("HTTP/1.1 503")));
    assert!(unready.contains("expired at") && unready.contains("waiting for the certificate authority"), "{unready}");
    eventually("nothing passes", || (!passed(issuer.scene.outbound, b"hello")).then_some(()));
    cart.logged(&["the own certificate has expired"]);
    for (name, id) in [("cart", CART), ("web", WEB)] {
        issuer.token(name, id, "second");
    }
    issuer.ca.come_back();
    cart.ready();
    eventually("it passes again", || passed(issuer.scene.outbound, b"hello").then_some(()));
}

#[test]
fn a_sidecar_starts_before_its_authority_and_its_token() {
    let mut issuer = Issuer::new();
    issuer.ca.go_down();
    fs::remove_dir_all(issuer.scene.path().join("tokens-cart")).unwrap();
    let cart = issuer.scene.launch("cart", &issuer.identity("cart", "1h"));
    let unready = |why: &str| {
        eventually(why, || {
            let answer = cart.get("/healthz/ready")?;
            (answer.starts_with("HTTP/1.1 503") && answer.contains(why)).then_some(answer)
        })
    };
    let answer = unready("tokenFile");
    assert!(answer.contains("waiting for the certificate authority at localhost:"), "{answer}");
    // The listeners of both are there, and refuse what takes a certificate.
    let web = issuer.scene.launch("web", &issuer.identity("web", "1h"));
    eventually("web listens", || web.get("/healthz/ready"));
    assert!(!passed(issuer.scene.outbound, b"hello"));
    web.logged(&["connection refused", "no_identity"]);
    issuer.token("cart", CART, "first");
    unready("cannot connect");
    issuer.ca.come_back();
    cart.ready();
    web.ready();
    assert!(passed(issuer.scene.outbound, b"hello"), "{}", cart.read_log());
    // Each reason is logged once, as progress.
    for reason in ["reason=\"token-file\"", "reason=\"connect\""] {
        cart.logged(&["INFO", "waiting for the source of certificates", reason]);
    }
    for log in [cart.read_log(), web.read_log()] {
        assert!(!log.contains("ERROR"), "a start before the authority is no error:\n{log}");
    }
}

#[test]
fn svids_of_the_workload_api_are_rotated_and_survive_its_restart() {
    let (scene, root) = (Scene::new(), Authority::root("cluster.local"));
    let socket = scene.path().join("api.sock");
    let mut api = WorkloadApi::start(&socket);
    let hand_out = |api: &WorkloadApi| {
        let (web, cart) = (root.workload(WEB), root.workload(CART));
        api.hand_out(&root, &[(WEB, &web), (CART, &cart)], &[]);
    };
    let identity = |_: &str| "identity: {workloadApi: {socket: api.sock}}\n".to_owned();
    let cart = scene.launch("cart", &identity("cart"));
    let unready = eventually("no identity yet", || {
        cart.get("/healthz/ready").filter(|answer| answer.contains("permission-denied"))
    });
    assert!(unready.contains("waiting for the Workload API at"), "{unready}");
    hand_out(&api);
    let web = scene.launch("web", &identity("web"));
    [&cart, &web].into_iter().for_each(Sidecar::ready);
    let (good, bad) = scene.under_load(|| {
        for rotation in 2..8 {
            hand_out(&api);
            for sidecar in [&cart, &web] {
                renewed(sidecar, f64::from(rotation));
            }
        }
        api.go_down();
        for sidecar in [&cart, &web] {
            sidecar.logged(&["no new certificate", "the old one serves until"]);
        }
        api.come_back();
        let counts = [&cart, &web].map(|sidecar| {
            eventually("connected again", || (metric(sidecar, IN_A_ROW) == 0.0).then_some(()));
            metric(sidecar, RENEWED)
        });
        hand_out(&api);
        for (sidecar, count) in [&cart, &web].into_iter().zip(counts) {
            renewed(sidecar, count + 1.0);
        }
    });
    assert_eq!(bad, 0, "of {good}\n{}\n{}", cart.read_log(), web.read_log());
    // There was load all the time; how much depends on the machine.
    assert!(good > 10, "{good}");
}

/// The product's own authority, as a process; killed when dropped.
struct OwnAuthority(std::process::Child);

impl OwnAuthority {
    fn start(scene: &Scene, listen: SocketAddr) -> Self {
        let (dir, bootstrap) = (scene.path().join("ca"), scene.path().join("bootstrap"));
        let mut command = std::process::Command::new(crate::support::BIN);
        command.args(["ca", "run", "--listen", &listen.to_string()]);
        command.arg("--dir").arg(&dir).arg("--bootstrap").arg(bootstrap).stdout(std::process::Stdio::null());
        let started = Self(command.spawn().unwrap());
        let status = || portcullis(&["ca", "status", "--dir", dir.to_str().unwrap()]).status.success();
        eventually("the authority answers", || status().then_some(()));
        started
    }
}

impl Drop for OwnAuthority {
    fn drop(&mut self) {
        // SIGKILL: it is to survive that.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// How many certificates were issued for this ID by this proof.
fn issued(scene: &Scene, id: &str, by: &str) -> usize {
    let audit = fs::read_to_string(scene.path().join("ca/audit.jsonl")).unwrap_or_default();
    let lines = audit.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["event"] == "issued" && line["id"] == id && line["by"] == by).count()
}

/// Both sides of the protocol, each written for the other: tokens at first, certificates from then on, under load and
/// across the death of the authority.
#[test]
fn one_authority_is_all_that_sidecars_need() {
    let (scene, listen) = (Scene::new(), free_address());
    let dir = scene.path().join("ca");
    let made = portcullis(&["ca", "init", "--dir", dir.to_str().unwrap(), "--id", CART, "--id", WEB]);
    assert!(made.status.success(), "{made:?}");
    // It makes the certificates; its root may be far away.
    fs::remove_dir_all(dir.join("root")).unwrap();
    let authority = OwnAuthority::start(&scene, listen);
    let identity = |name: &str| {
        let own = format!("bootstrap/shop/{name}");
        format!(
            "identity: {{ca: {{address: \"{listen}\", trustBundle: {own}/root-cert.pem, tokenFile: {own}/token}}}}\n"
        )
    };
    let [cart, web] = scene.both(identity);
    assert!(passed(scene.outbound, b"first"));
    let (good, bad) = scene.under_load(|| {
        for (count, sidecar) in [(2.0, &cart), (2.0, &web), (3.0, &cart), (3.0, &web)] {
            sidecar.signal("HUP");
            renewed(sidecar, count);
        }
    });
    assert_eq!(bad, 0, "of {good}\n{}\n{}", cart.read_log(), web.read_log());
    for id in [CART, WEB] {
        assert_eq!((issued(&scene, id, "token"), issued(&scene, id, "svid")), (1, 2), "{id}");
    }

    drop(authority);
    cart.signal("HUP");
    eventually("a failure", || (metric(&cart, IN_A_ROW) >= 1.0).then_some(()));
    assert!(passed(scene.outbound, b"without it"));
    let _again = OwnAuthority::start(&scene, listen);
    eventually("recovery", || {
        cart.signal("HUP");
        thread::sleep(Duration::from_millis(600));
        (metric(&cart, IN_A_ROW) == 0.0).then_some(())
    });

    // A restarted sidecar has lost its key, and finds an unused token.
    drop(web);
    let web = scene.launch("web", &identity("web"));
    web.ready();
    assert!(passed(scene.outbound, b"again"));
    assert_eq!(issued(&scene, WEB, "token"), 2);
}

/// For as long as both ends renew every second, every connection is a new one, and none of them fails.
#[test]
fn renewals_every_second_fail_no_new_connection() {
    const ROUNDS: u8 = 6;
    let (scene, listen) = (Scene::new(), free_address());
    let dir = scene.path().join("ca");
    let made = portcullis(&["ca", "init", "--dir", dir.to_str().unwrap(), "--id", CART, "--id", WEB]);
    assert!(made.status.success(), "{made:?}");
    let _authority = OwnAuthority::start(&scene, listen);
    let [cart, web] = scene.both(|name| {
        let own = format!("bootstrap/shop/{name}");
        format!(
            "identity: {{ca: {{address: \"{listen}\", trustBundle: {own}/root-cert.pem, tokenFile: {own}/token}}}}\n"
        )
    });
    let (good, bad) = scene.under_load(|| {
        for round in 1..=ROUNDS {
            let start = Instant::now();
            [&cart, &web].iter().for_each(|sidecar| sidecar.signal("HUP"));
            [&cart, &web].iter().for_each(|sidecar| renewed(sidecar, 1.0 + f64::from(round)));
            thread::sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
        }
    });
    assert_eq!(bad, 0, "of {good}\n{}\n{}", cart.read_log(), web.read_log());
    assert!(good > usize::from(ROUNDS), "{good}");
    for id in [CART, WEB] {
        assert_eq!(issued(&scene, id, "svid"), usize::from(ROUNDS), "{id}");
    }
}

/// Sidecars report how many of their connections rest on which root, and the CA shows those that end with the old one.
#[test]
fn connections_that_rest_on_the_old_root_are_reported_to_the_authority() {
    let (scene, listen) = (Scene::new(), free_address());
    let dir = scene.path().join("ca");
    let made = portcullis(&["ca", "init", "--dir", dir.to_str().unwrap(), "--id", CART, "--id", WEB]);
    assert!(made.status.success(), "{made:?}");
    let registered = fs::read_to_string(dir.join("identities.yaml")).unwrap();
    fs::write(dir.join("identities.yaml"), format!("refreshHint: 1s\n{registered}")).unwrap();
    let _authority = OwnAuthority::start(&scene, listen);
    let _sidecars = scene.both(|name| {
        let own = format!("bootstrap/shop/{name}");
        format!(
            "identity: {{ca: {{address: \"{listen}\", trustBundle: {own}/root-cert.pem, tokenFile: {own}/token}}}}\n"
        )
    });
    let rotate = |step: &str| {
        let answer = portcullis(&["ca", "rotate-root", step, "--dir", dir.to_str().unwrap(), "-o", "json"]);
        serde_json::from_slice::<serde_json::Value>(&answer.stdout).unwrap()
    };
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut held = std::net::TcpStream::connect(scene.outbound).unwrap();
            std::io::Write::write_all(&mut held, b"hold").unwrap();
            held
        })
        .collect();
    assert_eq!(rotate("start")["phase"], "started");
    let shows = |live: u64, sidecars: u64| {
        eventually(&format!("{live} connections of {sidecars} sidecars"), || {
            let found = rotate("status")["oldRootConnections"].clone();
            (found["live"] == live && found["sidecars"] == sidecars && found["unknown"] == 0).then_some(())
        });
    };
    // Both sidecars count each of them.
    shows(6, 2);
    let shown = portcullis(&["ca", "rotate-root", "status", "--dir", dir.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("on old root         6 live connections of 2 sidecars, oldest report "), "{shown}");
    drop(held);
    shows(0, 0);
}
