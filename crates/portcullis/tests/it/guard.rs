//! `apply --guard` on running sidecars: changes that are kept, taken back, left behind by a killed command, and changed by others.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::proxies::{command, hostile};
use crate::support::raw::read_all;
use crate::support::{BIN, POLICY, Ran, Scene, Sidecar, WEB, eventually, free_address, passed};

const RECORD: &str = ".portcullis-guard.json";
/// With what a file may have that a rewrite of its documents would lose.
const TEXT: &str = "# The shop.\r\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default,   namespace: shop}\n\
                    spec: {mtls: {mode: PERMISSIVE}} # until June\n\n---\n# Nothing else.";

/// A client without a sidecar that calls again and again.
struct Caller(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Caller {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _refused = passed(address, b"plain");
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// A command that runs in the background, and its outputs.
struct Guard {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Guard {
    fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    fn says(&self, text: &str) {
        eventually(&format!("{text:?} in {}", self.err()), || self.err().contains(text).then_some(()));
    }

    fn watches(&self) {
        self.says("in force; watching for");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn ended(mut self) -> Ran {
        let status = eventually(&format!("the end of the guard: {}", self.err()), || self.child.try_wait().unwrap());
        Ran { code: status.code(), out: fs::read_to_string(&self.out).unwrap(), err: self.err() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

trait Guarding {
    fn policies(&self) -> PathBuf;
    fn shop(&self) -> PathBuf;
    fn plain_text(&self);
    fn guard(&self, admins: &[SocketAddr], input: &str, more: &[&str]) -> Guard;
    fn apply(&self, more: &[&str]) -> Ran;
    fn is_clean(&self);
}

fn strict() -> String {
    POLICY.replace("MODE", "STRICT")
}

impl Guarding for Scene {
    fn policies(&self) -> PathBuf {
        self.path().join("policies")
    }

    fn shop(&self) -> PathBuf {
        self.policies().join("shop.yaml")
    }

    /// Writes the policy as a person would.
    fn plain_text(&self) {
        let draft = self.policies().join(".draft");
        fs::write(&draft, TEXT).unwrap();
        fs::rename(draft, self.shop()).unwrap();
    }

    fn guard(&self, admins: &[SocketAddr], input: &str, more: &[&str]) -> Guard {
        let [out, err, file] = ["guard.out", "guard.err", "input.yaml"].map(|name| self.path().join(name));
        fs::write(&file, input).unwrap();
        let mut command = Command::new(BIN);
        command.args(["apply", "--policies", self.policies().to_str().unwrap(), "-f", file.to_str().unwrap()]);
        command.args(admins.iter().map(|admin| format!("--admin={admin}"))).args(more).stdin(Stdio::null());
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        Guard { child: command.spawn().unwrap(), out, err }
    }

    fn apply(&self, more: &[&str]) -> Ran {
        command([&["apply", "--policies", self.policies().to_str().unwrap()], more].concat())
    }

    /// Nothing of a guard is left.
    fn is_clean(&self) {
        let names =
            fs::read_dir(self.policies()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let hidden: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

#[test]
fn a_change_that_cuts_clients_off_is_taken_back_byte_for_byte() {
    let scene = Scene::new("PERMISSIVE");
    scene.plain_text();
    let (web, listen) = scene.web();
    let mut live = TcpStream::connect(scene.inbound).unwrap();
    live.write_all(b"open for long").unwrap();
    eventually("the live connection", || (scene.app.count() >= 1).then_some(()));
    let _caller = Caller::start(scene.inbound);
    let guard = scene.guard(&[scene.cart.admin, web.admin], &strict(), &["--guard", "60s"]);
    let ran = guard.ended();
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert_eq!(
        ran.out,
        "peerauthentication.security.istio.io/default configured\npeerauthentication.security.istio.io/default taken back\n"
    );
    let denied = |reason: &str| format!("-> shop/cart:8080: {reason}, policy shop/default");
    assert!(ran.err.contains(&denied("policy_changed")), "the connection that was open: {}", ran.err);
    assert!(ran.err.contains("--max-denied is 0: the change is taken back"), "{}", ran.err);
    assert!(ran.err.contains("the former policies in force again"), "{}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), TEXT);
    scene.is_clean();
    assert!(passed(scene.inbound, b"plain again") && passed(listen, b"over mtls"));
    let (_, cut) = read_all(&live);
    assert!(cut.is_some(), "it was cut while the change was in force");
}

#[test]
fn clients_may_be_refused_up_to_a_number() {
    let scene = Scene::new("PERMISSIVE");
    let _caller = Caller::start(scene.inbound);
    let ran = scene.guard(&[scene.cart.admin], &strict(), &["--guard", "3s", "--max-denied", "10000"]).ended();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("plaintext_in_strict, policy shop/default"), "{}", ran.err);
    assert_eq!(ran.err.matches("denied: ").count(), 1, "each client is named once: {}", ran.err);
    assert!(ran.err.contains(" connections refused, and 10000 allowed"), "{}", ran.err);
    scene.is_clean();
}

#[test]
fn a_change_that_cuts_nobody_off_is_kept() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    let guard = scene.guard(&[scene.cart.admin, web.admin], &strict(), &["--guard", "2s"]);
    guard.watches();
    // Who is refused is looked up by what is watched, so the file is there while it runs.
    assert!(scene.policies().join(RECORD).exists() && passed(listen, b"over mtls"));
    let ran = guard.ended();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.ends_with("default kept\n") && ran.err.contains("nobody was refused"), "{} {}", ran.out, ran.err);
    assert!(fs::read_to_string(scene.shop()).unwrap().contains("STRICT"));
    scene.is_clean();
}

#[test]
fn what_the_former_policies_refuse_as_well_does_not_count() {
    let scene = Scene::new("STRICT");
    let _caller = Caller::start(scene.inbound);
    let other = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: all, namespace: shop}\nspec: {rules: [{}]}\n";
    let ran = scene.guard(&[scene.cart.admin], other, &["--guard", "2s"]).ended();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.err.contains("denied: "), "{}", ran.err);
}

#[test]
fn rules_that_refuse_an_identity_are_taken_back() {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: none, namespace: shop}\n\
                spec:\n  rules:\n  - from:\n    - source: {principals: [cluster.local/ns/shop/sa/nobody]}\n";
    let guard = scene.guard(&[scene.cart.admin, web.admin], deny, &["--guard", "60s"]);
    guard.watches();
    assert!(!passed(listen, b"over mtls"));
    let ran = guard.ended();
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert!(ran.err.contains("-> shop/cart:8080: authorization_not_allowed"), "{}", ran.err);
    assert_eq!(fs::read_dir(scene.policies()).unwrap().count(), 1, "the new file is gone");
    eventually("web is let through", || passed(listen, b"over mtls").then_some(()));
}

#[test]
fn signals_take_the_change_back() {
    for name in ["INT", "TERM", "HUP"] {
        let scene = Scene::new("PERMISSIVE");
        scene.plain_text();
        let guard = scene.guard(&[scene.cart.admin], &strict(), &["--guard", "10m"]);
        guard.watches();
        assert!(fs::read_to_string(scene.shop()).unwrap().contains("STRICT"));
        guard.signal(name);
        let ran = guard.ended();
        assert_eq!(ran.code, Some(84), "{}", ran.err);
        assert!(ran.err.contains(&format!("ended by SIG{name}")), "{}", ran.err);
        assert_eq!(fs::read_to_string(scene.shop()).unwrap(), TEXT);
        scene.is_clean();
    }
}

/// A guard that was killed while it watched.
fn killed(scene: &Scene) {
    scene.plain_text();
    let guard = scene.guard(&[scene.cart.admin], &strict(), &["--guard", "60s"]);
    guard.watches();
    guard.signal("KILL");
    assert_eq!(guard.ended().code, None);
    assert!(fs::read_to_string(scene.shop()).unwrap().contains("STRICT"), "nobody took it back");
}

#[test]
fn a_killed_command_leaves_a_change_that_others_see_and_can_end() {
    let scene = Scene::new("PERMISSIVE");
    killed(&scene);
    let policies = scene.policies();
    let policies = policies.to_str().unwrap();
    let input = scene.path().join("input.yaml");
    let input = input.to_str().unwrap();
    let config = scene.path().join("cart.yaml");
    for check in [&["check", "-c", config.to_str().unwrap()][..], &["check", "--admin", &scene.cart.admin.to_string()]]
    {
        let ran = command(check.iter().copied());
        assert!(
            ran.out.contains("a guarded change is open") && ran.out.contains("--take-back"),
            "{} {}",
            ran.out,
            ran.err
        );
    }
    let analyzed = command(["analyze", "-f", policies]);
    assert!(
        analyzed.err.contains("nobody watches it") && !analyzed.out.contains("PC0004"),
        "{} {}",
        analyzed.out,
        analyzed.err
    );
    for arguments in [&["get", "pa", "-A"][..], &["diff", "-f", input]] {
        let ran = command([arguments, &["--policies", policies]].concat());
        assert!(ran.err.contains("nobody watches it") && ran.err.contains("--take-back"), "{}", ran.err);
    }
    for ran in [scene.apply(&["-f", input]), command(["delete", "pa/default", "-n", "shop", "--policies", policies])] {
        assert_eq!(ran.code, Some(1), "{} {}", ran.out, ran.err);
        assert!(ran.err.contains("nobody watches it"), "{}", ran.err);
    }
    let ran = scene.apply(&["--take-back"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "peerauthentication.security.istio.io/default taken back\n"));
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), TEXT);
    scene.is_clean();
    assert_eq!(scene.apply(&["--take-back"]).code, Some(1), "there is none any more");

    killed(&scene);
    let ran = scene.apply(&["--accept"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "peerauthentication.security.istio.io/default kept\n"));
    assert!(fs::read_to_string(scene.shop()).unwrap().contains("STRICT"));
    scene.is_clean();
}

#[test]
fn a_resumed_guard_counts_whom_nobody_saw_refused() {
    let scene = Scene::new("PERMISSIVE");
    killed(&scene);
    // Refused while nobody watched.
    assert!(!passed(scene.inbound, b"plain"));
    let ran = scene.apply(&["--resume"]);
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert!(ran.err.contains("plaintext_in_strict"), "{}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), TEXT);
    scene.is_clean();
}

#[test]
fn what_somebody_else_wrote_is_never_overwritten() {
    let scene = Scene::new("PERMISSIVE");
    scene.plain_text();
    let other = format!("# mine\n{}", POLICY.replace("MODE", "DISABLE"));
    let guard = scene.guard(&[scene.cart.admin], &strict(), &["--guard", "10m"]);
    guard.watches();
    fs::write(scene.shop(), &other).unwrap();
    let ran = guard.ended();
    assert_eq!(ran.code, Some(85), "{}", ran.err);
    assert!(ran.err.contains("shop.yaml: changed by somebody else"), "{}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), other);
    scene.is_clean();

    // The same if nobody watched.
    killed(&scene);
    fs::write(scene.shop(), &other).unwrap();
    let ran = scene.apply(&["--take-back"]);
    assert_eq!(ran.code, Some(85), "{}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), other);

    // Who puts the former files back has taken the change back.
    scene.plain_text();
    eventually("the former policy", || passed(scene.inbound, b"plain").then_some(()));
    let guard = scene.guard(&[scene.cart.admin], &strict(), &["--guard", "10m"]);
    guard.watches();
    scene.plain_text();
    let ran = guard.ended();
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert!(ran.err.contains("somebody else has put the files back"), "{}", ran.err);
}

#[test]
fn a_broken_file_of_somebody_else_ends_the_guard() {
    let scene = Scene::new("PERMISSIVE");
    scene.plain_text();
    let guard = scene.guard(&[scene.cart.admin], &strict(), &["--guard", "10m"]);
    guard.watches();
    fs::write(scene.policies().join("bad.yaml"), "kind: x\n").unwrap();
    let ran = guard.ended();
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert!(ran.err.contains("refuses the policies") && ran.err.contains("bad.yaml:1"), "{}", ran.err);
    assert!(!ran.err.contains("the former policies in force again"), "it still refuses them: {}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), TEXT);
}

/// A second sidecar on the same folder.
fn second(scene: &Scene) -> Sidecar {
    let body = format!(
        "workload: {{name: second, namespace: shop, spiffeId: \"{WEB}\"}}\npolicies: ./policies\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n"
    );
    Sidecar::start(scene.path(), "second", &body)
}

#[test]
fn a_sidecar_that_stops_answering_takes_the_change_back_unless_that_is_allowed() {
    let scene = Scene::new("PERMISSIVE");
    scene.plain_text();
    let second = second(&scene);
    let admins = [scene.cart.admin, second.admin];
    let limits = ["--timeout", "500ms", "--max-silence", "2s"];
    let guard = scene.guard(&admins, &strict(), &[&["--guard", "10m"][..], &limits].concat());
    guard.watches();
    second.signal("STOP");
    guard.says("second.shop (");
    let ran = guard.ended();
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert!(ran.err.contains("does not answer: no answer within 0.5 s, for "), "{}", ran.err);
    assert!(!ran.err.contains("all 2 sidecars have the former policies"), "one of them does not say so: {}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), TEXT);
    second.signal("CONT");
    eventually("the former policy", || {
        let page = second.get("/policies")?;
        page.contains("PERMISSIVE").then_some(())
    });

    let allowed = ["--guard", "3s", "--keep-unanswered"];
    let guard = scene.guard(&admins, &strict(), &[&allowed[..], &limits].concat());
    guard.watches();
    second.signal("STOP");
    let ran = guard.ended();
    second.signal("CONT");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[test]
fn without_an_answer_of_every_sidecar_nothing_is_changed() {
    let scene = Scene::new("PERMISSIVE");
    scene.plain_text();
    let cart = scene.cart.admin;
    let unchanged = |ran: &Ran, code: i32, text: &str| {
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(ran.err.contains(text) && ran.err.to_lowercase().contains("nothing was changed"), "{}", ran.err);
        assert_eq!((ran.out.as_str(), fs::read_to_string(scene.shop()).unwrap().as_str()), ("", TEXT));
        scene.is_clean();
    };
    let down = scene.guard(&[cart, free_address()], &strict(), &["--guard", "10m"]).ended();
    unchanged(&down, 69, "does not answer");
    let none = hostile(|_| "<html>".to_owned());
    unchanged(&scene.guard(&[none], &strict(), &["--guard", "10m"]).ended(), 69, "no sidecar's answer");
    // It has no policy folder.
    let (web, _) = scene.web();
    unchanged(&scene.guard(&[web.admin], &strict(), &["--guard", "10m"]).ended(), 1, "none of these sidecars reads");
    // It reads another one.
    fs::create_dir(scene.path().join("other")).unwrap();
    fs::write(scene.path().join("other/a.yaml"), POLICY.replace("MODE", "DISABLE")).unwrap();
    let body = format!(
        "workload: {{name: other, namespace: shop, spiffeId: \"{WEB}\"}}\npolicies: ./other\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n"
    );
    let other = Sidecar::start(scene.path(), "other", &body);
    let limits = ["--guard", "10m", "--load-timeout", "1s"];
    unchanged(&scene.guard(&[cart, other.admin], &strict(), &limits).ended(), 1, "other policies in force");
    // Nobody reads this one: that is told at once, and the wait ends before that for a single sidecar that is late.
    let foreign = scene.guard(&[other.admin], &strict(), &limits).ended();
    assert!(foreign.err.contains("waiting, at most 1s"), "{}", foreign.err);
    unchanged(&foreign, 1, "the sidecar does not have the policies of this folder in force: other.shop");
    assert!(foreign.err.contains("/other") && foreign.err.contains("--policies"), "{}", foreign.err);
    for wrong in
        [&["--guard", "10m", "--dry-run=client"][..], &["--max-denied", "1"], &["--guard", "10"], &["--resume"]]
    {
        assert_eq!(scene.guard(&[cart], &strict(), wrong).ended().code, Some(64), "{wrong:?}");
    }
}

#[test]
fn what_becomes_strict_without_a_guard_is_told_if_it_is_not_ready() {
    let scene = Scene::new("PERMISSIVE");
    let file = scene.path().join("strict.yaml");
    fs::write(&file, strict()).unwrap();
    let admin = format!("--admin={}", scene.cart.admin);
    let dry = |admin: &str| scene.apply(&["-f", file.to_str().unwrap(), admin, "--dry-run=server"]);
    let idle = dry(&admin);
    assert!(idle.err.contains("shop/cart:8080 becomes STRICT and is not READY: no connection"), "{}", idle.err);
    assert!(passed(scene.inbound, b"plain"));
    let warned = eventually("its ledger has the client", || {
        Some(dry(&admin)).filter(|ran| ran.err.contains("shop/cart:8080 becomes STRICT and is not READY: it refuses "))
    });
    assert_eq!(warned.code, Some(0), "{}", warned.err);
    assert!(warned.err.contains(&format!("`portcullis readiness --admin {}`", scene.cart.admin)), "{}", warned.err);
    let nobody = dry("--admin=127.0.0.1:1");
    assert!(nobody.err.contains("no sidecar was asked whom that refuses"), "{}", nobody.err);
    let real = scene.apply(&["-f", file.to_str().unwrap(), &admin]);
    assert_eq!(real.code, Some(0), "{}", real.err);
    assert!(real.err.contains("becomes STRICT and is not READY"), "{}", real.err);
    let again = scene.apply(&["-f", file.to_str().unwrap(), &admin]);
    assert!(!again.err.contains("warning"), "nothing becomes STRICT any more: {}", again.err);
}

#[test]
fn a_policy_for_a_namespace_without_a_sidecar_is_told() {
    let scene = Scene::new("PERMISSIVE");
    let file = scene.path().join("typo.yaml");
    fs::write(&file, POLICY.replace("MODE", "PERMISSIVE").replace("namespace: shop", "namespace: shpo")).unwrap();
    let admin = format!("--admin={}", scene.cart.admin);
    let ran = scene.apply(&["-f", file.to_str().unwrap(), &admin]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told = "is for namespace shpo, where no sidecar answers; there are: shop";
    assert!(ran.err.contains(told), "{}", ran.err);
}

#[test]
fn a_deletion_is_guarded_as_well() {
    let scene = Scene::new("PERMISSIVE");
    fs::write(scene.policies().join("mesh.yaml"), POLICY.replace("MODE", "STRICT").replace("shop", "istio-system"))
        .unwrap();
    let _caller = Caller::start(scene.inbound);
    let policies = scene.policies();
    let text = fs::read_to_string(scene.shop()).unwrap();
    let admin = format!("--admin={}", scene.cart.admin);
    let arguments = ["delete", "pa/default", "-n", "shop", "--policies", policies.to_str().unwrap(), "--guard", "60s"];
    let ran = command(arguments.into_iter().chain([admin.as_str()]));
    assert_eq!(ran.code, Some(84), "{}", ran.err);
    assert_eq!(fs::read_to_string(scene.shop()).unwrap(), text, "the file was gone, and is there again");
    scene.is_clean();
}
