//! From one root to another: nobody who is in step with the rules is refused by another one who is.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_ca::Root;
use portcullis_ca_server::{RotateRequest, Standing, Step, ask, rotate};
use portcullis_identity::TrustDomain;
use portcullis_identity::leaf::{Compat, Role};
use portcullis_tls::{Clock, TrustBundle, TrustBundles, bundle_digest};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use crate::support::{CART, Stage, WEB, csr, der, pem, private, registered, without_root};

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

async fn step(stage: &Stage, step: Step, assume: &[&str]) -> Standing {
    let dir = stage.folder.path().to_owned();
    let request = RotateRequest { step, assume: assume.iter().map(ToString::to_string).collect() };
    tokio::task::spawn_blocking(move || rotate(&dir, &request)).await.unwrap().unwrap()
}

/// A step that is done; before a promotion the time passes for which the new root has to be published.
async fn done(stage: &Stage, which: Step, assume: &[&str]) -> Standing {
    let standing = step(stage, which, assume).await;
    let Some(why) = &standing.refused else { return standing };
    assert!(standing.seconds_left > 0 && standing.behind.is_empty(), "{which:?}: {why} {:?}", standing.behind);
    // Not a second earlier than it says.
    stage.advance(u64::try_from(standing.seconds_left).unwrap() - 1);
    assert!(step(stage, which, assume).await.refused.is_some(), "{which:?}");
    stage.advance(1);
    let standing = step(stage, which, assume).await;
    assert_eq!(standing.refused, None, "{which:?}");
    standing
}

/// Another root, with the key that it has, and a CA below it in `next/`.
fn next(dir: &Path) -> String {
    let root = Root::generate(&domain(), Duration::from_secs(86400), &Clock::system()).unwrap();
    let below = root.intermediate(Duration::from_secs(86400)).unwrap();
    let folder = dir.join("next");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, content) in [
        ("ca-cert.pem", below.cert_pem()),
        ("ca-key.pem", &below.key_pem()),
        ("root-cert.pem", root.cert_pem()),
        ("cert-chain.pem", below.cert_pem()),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    root.cert_pem().to_owned()
}

fn identities() -> String {
    format!("refreshHint: 1s\n{}", registered(&[CART, WEB]))
}

/// Who follows the rules: asks for bundles, tells which it uses, renews with what it has.
struct Workload {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    roots: Vec<Vec<u8>>,
}

impl Workload {
    async fn born(stage: &Stage, id: &str, seconds: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let connection = stage.connect().await;
        let answer = connection.create_for(&csr(&key), Some(&stage.token(id)), seconds).await.unwrap();
        let roots = der(answer.last().unwrap()).iter().map(|der| der.to_vec()).collect();
        Self { chain: without_root(&answer), key, roots }
    }

    fn digest(&self) -> String {
        let domain = domain();
        let roots: Vec<_> = self.roots.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        bundle_digest([(&domain, &roots)])
    }

    fn roots_pem(&self) -> String {
        self.roots.iter().map(|der| pem(der)).collect()
    }

    async fn connect(&self, stage: &Stage) -> crate::support::Client {
        let own = Some((self.chain.clone(), private(&self.key)));
        crate::support::Client::connect_in(stage, &self.roots_pem(), own).await.unwrap()
    }

    /// Takes over what is published, and tells it at the next poll.
    async fn poll(&mut self, stage: &Stage) {
        // What is said in the second in which a phase begins does not count.
        stage.advance(1);
        let answer = self.connect(stage).await.bundles(None, &self.digest()).await.unwrap();
        self.roots.clone_from(&answer.bundles[0].roots);
    }

    /// Polls until the CA has noted that this one uses what is published; what it told in the second in which that began does
    /// not count.
    async fn follow(&mut self, stage: &Stage, id: &str) {
        let start = Instant::now();
        loop {
            self.poll(stage).await;
            let standing = step(stage, Step::Status, &[]).await;
            if !standing.behind.iter().any(|waited| waited.id == id && waited.lack != "certificate") {
                return;
            }
            assert!(start.elapsed() < crate::support::PATIENCE, "{standing:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn renew(&mut self, stage: &Stage) {
        let key = KeyPair::generate().unwrap();
        let answer = self.connect(stage).await.create(&csr(&key), None).await.unwrap();
        self.chain = without_root(&answer);
        self.key = key;
    }

    fn accepts(&self, peer: &Self, clock: &Clock) -> bool {
        let bundle = TrustBundle::from_pem(self.roots_pem().as_bytes(), clock.now_unix()).unwrap();
        let trust = TrustBundles::new(domain(), [], bundle, [], Compat::default()).unwrap();
        let at = clock.now();
        let [client, server] = [Role::Client, Role::Server].map(|role| trust.verify(&peer.chain, role, at).is_ok());
        assert_eq!(client, server);
        client
    }
}

/// Everybody accepts everybody.
fn at_peace(stage: &Stage, when: &str, all: &[&Workload]) {
    for (a, one) in all.iter().enumerate() {
        for (b, other) in all.iter().enumerate() {
            assert!(one.accepts(other, &stage.clock()), "{when}: {a} refuses {b}");
        }
    }
}

fn lacking(standing: &Standing) -> Vec<(&str, &str)> {
    standing.behind.iter().map(|waited| (waited.id.as_str(), waited.lack.as_str())).collect()
}

#[tokio::test]
async fn from_one_root_to_another_nobody_refuses_anybody() {
    let stage = Stage::start(&identities()).await;
    // Both end after a minute, so that the old root can go within the time of a test.
    let (mut cart, mut web) = (Workload::born(&stage, CART, 60).await, Workload::born(&stage, WEB, 60).await);
    let before = cart.digest();
    let a_only = Workload { chain: cart.chain.clone(), key: KeyPair::generate().unwrap(), roots: cart.roots.clone() };
    at_peace(&stage, "before", &[&cart, &web]);

    let b = next(stage.folder.path());
    let started = done(&stage, Step::Start, &[]).await;
    assert_eq!((started.phase.as_str(), stage.path("next").exists()), ("started", false));
    assert_ne!(started.bundle_digest, before);
    cart.follow(&stage, CART).await;
    assert_eq!((cart.roots.len(), cart.digest()), (2, started.bundle_digest.clone()));
    // One trusts both, the other the old one only; the old one signs.
    at_peace(&stage, "started", &[&cart, &web]);
    let refused = step(&stage, Step::Promote, &[]).await;
    assert_eq!((lacking(&refused), refused.phase.as_str()), (vec![(WEB, "silent")], "started"));
    assert!(refused.refused.is_some());
    // It tells, but what it used before: it is still behind.
    web.poll(&stage).await;
    let behind = async || lacking(&step(&stage, Step::Status, &[]).await) == [(WEB, "other-bundles")];
    crate::support::eventually("it has told of other bundles", behind).await;
    assert!(step(&stage, Step::Promote, &[]).await.refused.is_some());
    assert!(step(&stage, Step::Finish, &[]).await.refused.unwrap().contains("comes after promoted"));
    web.follow(&stage, WEB).await;

    let promoted = done(&stage, Step::Promote, &[]).await;
    assert_eq!((promoted.phase.as_str(), &promoted.bundle_digest), ("promoted", &started.bundle_digest));
    at_peace(&stage, "promoted, before renewal", &[&cart, &web]);
    let old_leaf = Workload { chain: web.chain.clone(), key: KeyPair::generate().unwrap(), roots: web.roots.clone() };
    web.renew(&stage).await;
    at_peace(&stage, "promoted, one renewed", &[&cart, &web, &old_leaf]);
    // This is what the promotion was refused for.
    assert!(!a_only.accepts(&web, &stage.clock()));
    // Whoever has a copy of the old root reaches the CA.
    a_only_reaches(&stage).await;
    let refused = step(&stage, Step::Finish, &["spiffe://cluster.local/ns/shop/sa/cart"]).await;
    assert_eq!(lacking(&refused), [(CART, "certificate"), (WEB, "certificate")]);
    // A minute and another one, from when the last one was issued.
    assert!((1..=121).contains(&refused.seconds_left), "{refused:?}");
    assert!(refused.not_before.is_some());
    cart.renew(&stage).await;
    at_peace(&stage, "promoted, both renewed", &[&cart, &web, &old_leaf]);
    let finished = finish(&stage).await;
    assert_eq!(finished.phase, "none");
    at_peace(&stage, "finished, not polled", &[&cart, &web]);
    cart.poll(&stage).await;
    assert_eq!(cart.roots, der(&b).iter().map(|der| der.to_vec()).collect::<Vec<_>>());
    // One trusts the new root only, the other both.
    at_peace(&stage, "finished, one polled", &[&cart, &web]);
    web.renew(&stage).await;
    at_peace(&stage, "finished, renewed", &[&cart, &web]);
    assert_eq!(der(&std::fs::read_to_string(stage.path("root-cert.pem")).unwrap()), der(&b));
    assert!(!stage.path("rotation.json").exists());
    let audit = stage.audit();
    for phase in ["started", "promoted", "finished"] {
        assert_eq!(audit.matches(&format!(r#""reason":"{phase}""#)).count(), 1, "{phase}: {audit}");
    }
}

async fn a_only_reaches(stage: &Stage) {
    crate::support::Client::connect_in(stage, &stage.root.bundle_pem(), None).await.unwrap();
}

/// The certificates below the old root end after a minute, and count for another one.
async fn finish(stage: &Stage) -> Standing {
    let standing = step(stage, Step::Finish, &[]).await;
    assert!(standing.refused.is_some() && standing.seconds_left > 0, "{standing:?}");
    assert!(standing.behind.iter().all(|waited| waited.lack == "certificate"), "{standing:?}");
    stage.advance(u64::try_from(standing.seconds_left).unwrap() - 1);
    let early = step(stage, Step::Finish, &[]).await;
    assert!(early.refused.is_some() && early.seconds_left == 1, "{early:?}");
    stage.advance(1);
    step(stage, Step::Finish, &[]).await
}

/// The instances that are waited for, and what each lacks.
fn instances(standing: &Standing) -> Vec<(String, &str)> {
    let mut all: Vec<_> = standing
        .behind
        .iter()
        .map(|waited| (waited.instance.clone().expect("an instance"), waited.lack.as_str()))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn one_instance_of_an_identity_does_not_hide_that_another_one_is_behind() {
    let mut stage = Stage::start(&identities()).await;
    let mut first = Workload::born(&stage, CART, 0).await;
    let mut second = Workload::born(&stage, CART, 0).await;
    let gone = Workload::born(&stage, CART, 0).await;
    next(stage.folder.path());
    done(&stage, Step::Start, &[]).await;
    let waited = step(&stage, Step::Status, &[]).await;
    assert_eq!(waited.behind.len(), 3, "{waited:?}");
    assert!(waited.behind.iter().all(|waited| waited.id == CART && waited.heard.is_some()), "{waited:?}");
    let until = async |stage: &Stage, mut one: Option<&mut Workload>, count: usize| {
        let start = Instant::now();
        loop {
            if let Some(one) = &mut one {
                one.poll(stage).await;
            }
            let standing = step(stage, Step::Promote, &[]).await;
            if standing.behind.len() == count {
                return standing;
            }
            assert!(start.elapsed() < crate::support::PATIENCE, "{standing:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refused = until(&stage, Some(&mut first), 2).await;
    assert!(refused.refused.is_some() && refused.phase == "started");
    // Which is not forgotten, and a new certificate does not make it another one.
    stage.restart().await;
    second.renew(&stage).await;
    assert_eq!(instances(&until(&stage, None, 2).await), instances(&refused));
    let refused = until(&stage, Some(&mut second), 1).await;
    let [(name, lack)] = instances(&refused).try_into().unwrap();
    assert_eq!(lack, "silent");
    assert!(step(&stage, Step::Promote, &["no-id"]).await.refused.unwrap().contains("16 hexadecimal digits"));
    let promoted = done(&stage, Step::Promote, &[&name]).await;
    assert_eq!(promoted.phase, "promoted");
    let phases: Vec<_> = promoted.phases.iter().map(|began| (began.phase.name(), began.since.is_empty())).collect();
    assert_eq!(phases, [("started", false), ("promoted", false)]);
    assert!(stage.audit().contains(&format!("assumed: {name}")), "{}", stage.audit());
    drop(gone);
}

#[tokio::test]
async fn a_rotation_is_taken_back_from_each_phase() {
    let stage = Stage::start(&identities()).await;
    let mut cart = Workload::born(&stage, CART, 0).await;
    let before = cart.digest();
    assert!(step(&stage, Step::Abort, &[]).await.refused.is_some());
    next(stage.folder.path());
    done(&stage, Step::Start, &[]).await;
    let again = step(&stage, Step::Start, &[]).await;
    assert!(again.refused.unwrap().contains("is on already"));
    assert_eq!(done(&stage, Step::Abort, &[]).await.phase, "none");
    assert_eq!(step(&stage, Step::Status, &[]).await.bundle_digest, before);

    next(stage.folder.path());
    done(&stage, Step::Start, &[]).await;
    let web = Workload::born(&stage, WEB, 0).await;
    cart.follow(&stage, CART).await;
    // It never tells, as Istio's agents.
    assert_eq!(lacking(&step(&stage, Step::Promote, &[]).await), [(WEB, "silent")]);
    done(&stage, Step::Promote, &[WEB]).await;
    assert!(stage.audit().contains(&format!("assumed: {WEB}")), "{}", stage.audit());
    cart.renew(&stage).await;
    let below_b = Workload { chain: cart.chain.clone(), key: KeyPair::generate().unwrap(), roots: cart.roots.clone() };
    assert_eq!(done(&stage, Step::Abort, &[]).await.phase, "started");
    at_peace(&stage, "taken back, before renewal", &[&cart, &web]);
    cart.renew(&stage).await;
    at_peace(&stage, "taken back, renewed", &[&cart, &web, &below_b]);
    // The certificate below B lasts a day: B stays published.
    let refused = step(&stage, Step::Abort, &[]).await;
    assert_eq!((lacking(&refused), refused.phase.as_str()), (vec![(CART, "certificate")], "started"));
    // And forward again.
    done(&stage, Step::Promote, &[WEB]).await;
}

#[tokio::test]
async fn a_rotation_to_a_root_that_is_published_or_foreign_is_refused() {
    let stage = Stage::start(&identities()).await;
    assert!(step(&stage, Step::Start, &[]).await.refused.is_some(), "there is no next CA");
    let folder = stage.path("next");
    std::fs::create_dir(&folder).unwrap();
    for name in ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] {
        std::fs::copy(stage.path(name), folder.join(name)).unwrap();
    }
    let same = step(&stage, Step::Start, &[]).await;
    assert!(same.refused.unwrap().contains("published already"));
    let status = step(&stage, Step::Status, &[]).await;
    assert_eq!(status.phase, "none");
    let dir = stage.folder.path().to_owned();
    let answer = tokio::task::spawn_blocking(move || ask(&dir)).await.unwrap().unwrap();
    assert_eq!(answer.roots_until.len(), 1);
}

#[tokio::test]
async fn a_phase_that_does_not_get_to_the_disk_is_not_entered_and_the_audit_says_so() {
    let stage = Stage::start(&identities()).await;
    next(stage.folder.path());
    // A folder with something in it, where the file is to be.
    let obstacle = stage.path("rotation.json");
    std::fs::create_dir_all(obstacle.join("x")).unwrap();
    assert!(step(&stage, Step::Start, &[]).await.refused.is_some());
    assert_eq!(step(&stage, Step::Status, &[]).await.phase, "none");
    let audit = stage.audit();
    let lines: Vec<_> = audit.lines().filter(|line| line.contains(r#""reason":"started""#)).collect();
    assert!(lines.len() == 2 && lines[1].contains("not entered: "), "{audit}");
    std::fs::remove_dir_all(obstacle).unwrap();
    assert_eq!(done(&stage, Step::Start, &[]).await.phase, "started");
}
