//! Root rotation: workloads that follow the phases never refuse each other.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_ca::Root;
use portcullis_ca_server::{RotateRequest, RotationStatus, Step, finish_unused, rotate, status_of};
use portcullis_identity::TrustDomain;
use portcullis_identity::leaf::{Compat, Role};
use portcullis_tls::{Clock, TrustBundle, TrustBundles, bundle_digest};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use crate::support::{CART, Stage, WEB, csr, der, pem, private, registered, without_root};

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

async fn step(stage: &Stage, step: Step, assume: &[&str]) -> RotationStatus {
    let dir = stage.folder.path().to_owned();
    let request = RotateRequest { step, assume: assume.iter().map(ToString::to_string).collect() };
    tokio::task::spawn_blocking(move || rotate(&dir, &request)).await.unwrap().unwrap()
}

/// A step that is done; before a promotion the time passes for which the new root has to be published.
async fn done(stage: &Stage, which: Step, assume: &[&str]) -> RotationStatus {
    let status = step(stage, which, assume).await;
    let Some(why) = &status.refused else { return status };
    assert!(status.seconds_left > 0 && status.behind.is_empty(), "{which:?}: {why} {:?}", status.behind);
    // Not a second earlier than it says.
    stage.advance(u64::try_from(status.seconds_left).unwrap() - 1);
    assert!(step(stage, which, assume).await.refused.is_some(), "{which:?}");
    stage.advance(1);
    let status = step(stage, which, assume).await;
    assert_eq!(status.refused, None, "{which:?}");
    status
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
    async fn enrolled(stage: &Stage, id: &str, seconds: i64) -> Self {
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

    /// Takes the published roots, and reports them at the next poll.
    async fn poll(&mut self, stage: &Stage) {
        // A report in the second in which a phase begins does not count.
        stage.advance(1);
        let answer = self.connect(stage).await.bundles(None, &self.digest()).await.unwrap();
        self.roots.clone_from(&answer.bundles[0].roots);
    }

    /// Polls until the CA has noted that this one uses what is published; a report in the second in which that began does
    /// not count.
    async fn follow(&mut self, stage: &Stage, id: &str) {
        let start = Instant::now();
        loop {
            self.poll(stage).await;
            let status = step(stage, Step::Status, &[]).await;
            if !status.behind.iter().any(|waited| waited.id == id && waited.lack != "certificate") {
                return;
            }
            assert!(start.elapsed() < crate::support::PATIENCE, "{status:?}");
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

/// Every workload accepts every other one.
fn at_peace(stage: &Stage, when: &str, all: &[&Workload]) {
    for (a, one) in all.iter().enumerate() {
        for (b, other) in all.iter().enumerate() {
            assert!(one.accepts(other, &stage.clock()), "{when}: {a} refuses {b}");
        }
    }
}

fn lacking(status: &RotationStatus) -> Vec<(&str, &str)> {
    status.behind.iter().map(|waited| (waited.id.as_str(), waited.lack.as_str())).collect()
}

#[tokio::test]
async fn no_workload_refuses_another_during_a_rotation() {
    let stage = Stage::start(&identities()).await;
    // Both end after a minute, so that the old root can go within the time of a test.
    let (mut cart, mut web) = (Workload::enrolled(&stage, CART, 60).await, Workload::enrolled(&stage, WEB, 60).await);
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
    crate::support::eventually("it has reported other bundles", behind).await;
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
    // A caller with a copy of the old root reaches the CA.
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
async fn finish(stage: &Stage) -> RotationStatus {
    let status = step(stage, Step::Finish, &[]).await;
    assert!(status.refused.is_some() && status.seconds_left > 0, "{status:?}");
    assert!(status.behind.iter().all(|waited| waited.lack == "certificate"), "{status:?}");
    stage.advance(u64::try_from(status.seconds_left).unwrap() - 1);
    let early = step(stage, Step::Finish, &[]).await;
    assert!(early.refused.is_some() && early.seconds_left == 1, "{early:?}");
    stage.advance(1);
    step(stage, Step::Finish, &[]).await
}

/// The instances that are waited for, and what each lacks.
fn instances(status: &RotationStatus) -> Vec<(String, &str)> {
    let mut all: Vec<_> = status
        .behind
        .iter()
        .map(|waited| (waited.instance.clone().expect("an instance"), waited.lack.as_str()))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn one_instance_of_an_identity_does_not_hide_another_that_is_behind() {
    let mut stage = Stage::start(&identities()).await;
    let mut first = Workload::enrolled(&stage, CART, 0).await;
    let mut second = Workload::enrolled(&stage, CART, 0).await;
    let gone = Workload::enrolled(&stage, CART, 0).await;
    next(stage.folder.path());
    done(&stage, Step::Start, &[]).await;
    let waited = step(&stage, Step::Status, &[]).await;
    assert_eq!(waited.behind.len(), 3, "{waited:?}");
    assert!(waited.behind.iter().all(|waited| waited.id == CART && waited.last_seen.is_some()), "{waited:?}");
    let until = async |stage: &Stage, mut one: Option<&mut Workload>, count: usize| {
        let start = Instant::now();
        loop {
            if let Some(one) = &mut one {
                one.poll(stage).await;
            }
            let status = step(stage, Step::Promote, &[]).await;
            if status.behind.len() == count {
                return status;
            }
            assert!(start.elapsed() < crate::support::PATIENCE, "{status:?}");
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
    let mut cart = Workload::enrolled(&stage, CART, 0).await;
    let before = cart.digest();
    assert!(step(&stage, Step::Abort, &[]).await.refused.is_some());
    next(stage.folder.path());
    done(&stage, Step::Start, &[]).await;
    let again = step(&stage, Step::Start, &[]).await;
    assert!(again.refused.unwrap().contains("is in progress already"));
    assert_eq!(done(&stage, Step::Abort, &[]).await.phase, "none");
    assert_eq!(step(&stage, Step::Status, &[]).await.bundle_digest, before);

    next(stage.folder.path());
    done(&stage, Step::Start, &[]).await;
    let web = Workload::enrolled(&stage, WEB, 0).await;
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
    let answer = tokio::task::spawn_blocking(move || status_of(&dir)).await.unwrap().unwrap();
    assert_eq!(answer.roots_until.len(), 1);
}

#[tokio::test]
async fn a_phase_that_cannot_be_written_is_not_entered_and_the_audit_records_it() {
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

/// Reported connections on the old root: live, sidecars, unknown, age of the oldest report.
fn on_old_root(status: &RotationStatus) -> (u64, usize, usize, Option<i64>) {
    let found = status.old_root_connections.as_ref().unwrap();
    (found.live, found.sidecars, found.unknown, found.oldest_report_seconds)
}

fn root_fingerprint(pem: &str) -> String {
    let bundle = TrustBundle::from_pem(pem.as_bytes(), crate::support::now()).unwrap();
    bundle.roots().next().unwrap().fingerprint().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_on_the_old_root_are_counted_and_can_be_waited_for() {
    let stage = Stage::start(&identities()).await;
    let (mut cart, mut web) = (Workload::enrolled(&stage, CART, 60).await, Workload::enrolled(&stage, WEB, 60).await);
    // Not one that reports: as Istio's agents.
    let _silent = Workload::enrolled(&stage, CART, 60).await;
    assert!(step(&stage, Step::Status, &[]).await.old_root_connections.is_none());
    let (a, b) = (root_fingerprint(&stage.root.bundle_pem()), root_fingerprint(&next(stage.folder.path())));
    let started = done(&stage, Step::Start, &[]).await;
    assert!(started.old_root_connections.is_none(), "there was no rotation when it was asked");
    for workload in [&mut cart, &mut web] {
        workload.poll(&stage).await;
    }
    let digest = cart.digest();
    let report = async |workload: &Workload, text: &str| {
        stage.advance(1);
        workload.connect(&stage).await.bundles_reporting(&digest, text).await.unwrap();
    };
    assert_eq!(on_old_root(&step(&stage, Step::Status, &[]).await), (0, 0, 3, None), "unknown, and not zero");
    // Real time passes beside the time that the test moves, so an age is at least what was moved.
    let known = async |(live, sidecars, unknown, age): (_, _, _, Option<i64>)| {
        let (found_live, found_sidecars, found_unknown, found_age) =
            on_old_root(&step(&stage, Step::Status, &[]).await);
        let same_age = match (age, found_age) {
            (Some(least), Some(found)) => (least..least + 20).contains(&found),
            (none, found) => none.is_none() && found.is_none(),
        };
        (found_live, found_sidecars, found_unknown) == (live, sidecars, unknown) && same_age
    };
    // A report is recorded after its answer, and none is recorded before the state knows the certificate that it came with.
    let reported = async |(cart, text_of_cart): (&Workload, &str), (web, text_of_web): (&Workload, &str), expected| {
        crate::support::eventually("both have reported", async || {
            report(cart, text_of_cart).await;
            report(web, text_of_web).await;
            for _ in 0..50 {
                if known(expected).await {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            false
        })
        .await;
    };
    reported((&cart, &format!("{a}=20,{b}=3")), (&web, &format!("{b}=7,{a}=1")), (21, 2, 1, Some(1))).await;
    stage.advance(9);
    assert!(known((21, 2, 1, Some(10))).await);
    // A malformed report changes nothing.
    for wrong in ["", "x", "20", &format!("{a}=-1"), &format!("{a}=99999999999"), &format!("{a}=1").repeat(9)] {
        report(&cart, wrong).await;
    }
    report(&web, &format!("{b}=7")).await;
    crate::support::eventually("the last report counts", async || {
        let (live, sidecars, unknown, _) = on_old_root(&step(&stage, Step::Status, &[]).await);
        (live, sidecars, unknown) == (20, 1, 1)
    })
    .await;
    stage.advance(61);
    let (live, _, unknown, age) = on_old_root(&step(&stage, Step::Status, &[]).await);
    assert_eq!((live, unknown, age), (0, 0, None), "their certificates have ended");

    let (mut cart, mut web) = (Workload::enrolled(&stage, CART, 300).await, Workload::enrolled(&stage, WEB, 300).await);
    for workload in [&mut cart, &mut web] {
        workload.poll(&stage).await;
    }
    reported((&cart, "none"), (&web, "none"), (0, 0, 0, Some(0))).await;
    stage.advance(61);
    assert_eq!(
        on_old_root(&step(&stage, Step::Status, &[]).await),
        (0, 0, 2, None),
        "a report that is too old is none"
    );
    done(&stage, Step::Promote, &[CART, WEB]).await;
    cart.renew(&stage).await;
    web.renew(&stage).await;
    reported((&cart, &format!("{a}=20")), (&web, "none"), (20, 1, 0, Some(1))).await;
    // Certificates below the old root are still valid. Nothing is changed when the time is over.
    let wait = async |wait: Duration| {
        let (dir, assume) = (stage.folder.path().to_owned(), [CART.to_owned(), WEB.to_owned()]);
        tokio::task::spawn_blocking(move || finish_unused(&dir, &assume, wait)).await.unwrap().unwrap()
    };
    let refused = wait(Duration::from_millis(1)).await;
    assert_eq!((refused.phase.as_str(), refused.refused.is_some()), ("promoted", true));
    assert!(refused.seconds_left > 0);
    stage.advance(400);
    assert_eq!(step(&stage, Step::Status, &[]).await.seconds_left, 0);
    reported((&cart, &format!("{a}=20")), (&web, "none"), (20, 1, 0, Some(1))).await;
    let refused = wait(Duration::from_millis(1)).await;
    assert!(refused.refused.as_ref().unwrap().contains("20 live connections of 1 sidecars"), "{refused:?}");
    let waiting = wait(crate::support::PATIENCE);
    // Only a report that comes after the wait has begun says something of now, so they go on reporting, as sidecars do.
    let reports = async {
        assert_eq!(step(&stage, Step::Status, &[]).await.phase, "promoted");
        loop {
            report(&cart, "none").await;
            report(&web, "none").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let finished = tokio::select! {
        finished = waiting => finished,
        () = reports => unreachable!("they never end"),
    };
    assert_eq!((finished.phase.as_str(), finished.refused.as_deref()), ("none", None));
    assert_eq!(finished.old_root_connections.unwrap().live, 0);
}
