//! The agent against an authority on real sockets, with valid and with invalid answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{CART, Running, rules};
use portcullis_ca_client::CredentialSink;
use portcullis_ca_client::ca::{CaAgent, Foreign, Inputs};
use portcullis_config::{CaClient, HostPort};
use portcullis_identity::{KeyType, TrustDomain};
use portcullis_testkit::certs::Authority;
use portcullis_testkit::istio_ca::{CaFault, IstioCa};
use portcullis_tls::{Clock, CredentialStore, bundle_digest};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// An authority and an agent of it.
struct Scene {
    root: Authority,
    ca: IstioCa,
    token: Arc<Mutex<Result<String, String>>>,
    foreign: watch::Sender<Foreign>,
    agent: Option<Running>,
    settings: CaClient,
    key_type: Arc<Mutex<KeyType>>,
    clock: Clock,
}

impl Scene {
    fn new() -> Self {
        let root = Authority::root("cluster.local");
        let ca = IstioCa::start(&root);
        ca.accept_token("first", CART);
        let address = HostPort { host: "127.0.0.1".to_owned(), port: ca.address.port() };
        let settings = CaClient {
            server_name: "localhost".to_owned(),
            address,
            trust_bundle: "unused".into(),
            token_file: None,
            renew_token: false,
            key_type: None,
            ttl: Some(Duration::from_secs(3600)),
            environment: portcullis_istio::AgentEnvironment::default(),
        };
        let token = Arc::new(Mutex::new(Ok("first".to_owned())));
        Self {
            root,
            ca,
            token,
            foreign: watch::channel(Vec::new()).0,
            agent: None,
            settings,
            key_type: Arc::default(),
            clock: Clock::system(),
        }
    }

    fn start(&mut self) {
        self.start_with(Some(self.root.bundle_pem()));
    }

    fn start_with(&mut self, bundle: Option<String>) {
        let (token, key_type) = (Arc::clone(&self.token), Arc::clone(&self.key_type));
        let inputs = Inputs {
            roots: Box::new(move || bundle.clone().map(String::into_bytes).ok_or_else(|| "not there".to_owned())),
            token: Some(Box::new(move || token.lock().unwrap().clone().map(Zeroizing::new))),
            key_type: Box::new(move || *key_type.lock().unwrap()),
            foreign: self.foreign.subscribe(),
            keep_token: None,
            keep_roots: None,
            connections: Box::new(BTreeMap::new),
        };
        let (store, reader) = CredentialStore::new();
        let sink = CredentialSink { store, reader: reader.clone() };
        let (agent, monitor) = CaAgent::new(self.settings.clone(), rules(), self.clock.clone(), inputs, sink, || ());
        self.agent = Some(Running::start(monitor, reader, agent.run()));
    }

    fn agent(&self) -> &Running {
        self.agent.as_ref().unwrap()
    }

    fn reaches(&self, generation: u64) {
        self.agent().eventually(&format!("generation {generation}"), |agent| agent.generation() >= generation);
    }
}

fn started() -> Scene {
    let mut scene = Scene::new();
    scene.start();
    scene.reaches(1);
    scene
}

#[test]
fn a_token_first_then_the_own_svid_and_always_a_new_key() {
    let scene = started();
    let first = scene.agent().reader.current().unwrap();
    assert_eq!((first.id().as_str(), first.svid().chain.len()), (CART, 1), "the root is not sent");
    let left = first.not_after_unix() - first.now_unix();
    assert!((3500..=3600).contains(&left), "{left}");
    scene.agent().monitor.renew_now();
    scene.reaches(2);
    let second = scene.agent().reader.current().unwrap();
    assert_ne!(first.svid().leaf.serial, second.svid().leaf.serial);

    let seen = scene.ca.seen();
    let asked: Vec<_> = seen.iter().filter(|seen| seen.call == "CreateCertificate").collect();
    assert_eq!((asked[0].by_token, asked[1].by_token), (true, false));
    assert_ne!(asked[0].spki, asked[1].spki);
    assert_eq!(asked[0].digest, None, "nothing is trusted yet");
    assert_eq!(asked[1].digest, Some(first.trust().digest()));
    // The certificate is in force a moment before its renewal is counted.
    scene.agent().eventually("both are counted", |agent| agent.monitor.status().renewals == 2);
    let status = scene.agent().monitor.status();
    assert_eq!((status.failures.len(), status.consecutive_failures), (0, 0), "{status:?}");
}

#[test]
fn each_kind_of_key_is_certified_and_another_one_is_for_the_next_request() {
    let scene = started();
    // Bytes of a SubjectPublicKeyInfo, in the order of the table.
    let lengths = [91, 120, 294, 422, 550, 44];
    for (generation, ((_, kind), length)) in (2..).zip(KeyType::ALL.into_iter().zip(lengths)) {
        *scene.key_type.lock().unwrap() = kind;
        scene.agent().monitor.renew_now();
        scene.reaches(generation);
        assert_eq!(scene.ca.seen().last().unwrap().spki.len(), length, "{kind}");
    }
}

/// Whatever the authority answers, the old SVID stays until a good one is there.
#[test]
fn invalid_answers_change_nothing() {
    let scene = started();
    let before = scene.agent().reader.current().unwrap();
    let faults = [
        (CaFault::OtherId, "own-id"),
        (CaFault::OtherDomain, "td-bundle"),
        (CaFault::CaCertificate, "leaf-ca"),
        (CaFault::KeyMismatch, "own-key"),
        (CaFault::Expired, "expired"),
        (CaFault::ChainTooLong, "chain-length"),
        (CaFault::NoSan, "no-uri-san"),
        (CaFault::TwoSans, "multi-uri-san"),
        (CaFault::GarbagePem, "pem"),
        (CaFault::ForeignSigner, "bad-signature"),
        (CaFault::Empty, "answer-empty"),
        (CaFault::Huge, "answer-too-large"),
        (CaFault::ClosesEarly, "connection"),
        (CaFault::Unauthenticated, "unauthenticated"),
    ];
    for (fault, reason) in faults {
        scene.ca.set_fault(Some(fault));
        scene.agent().fails(reason);
        let now = scene.agent().reader.current().unwrap();
        assert!(Arc::ptr_eq(&before, &now), "{fault:?}");
    }
    let status = scene.agent().monitor.status();
    assert!(status.consecutive_failures >= 14 && status.problem.is_some(), "{status:?}");
    scene.ca.set_fault(None);
    scene.agent().monitor.renew_now();
    scene.agent().eventually("it is taken back", |agent| {
        agent.monitor.renew_now();
        agent.generation() == 2
    });
    let status = scene.agent().monitor.status();
    assert_eq!((status.consecutive_failures, status.problem.is_none()), (0, true));
}

#[test]
fn the_first_answer_is_validated_too() {
    let mut scene = Scene::new();
    scene.ca.set_fault(Some(CaFault::OtherId));
    scene.start();
    scene.agent().fails("own-id");
    assert_eq!(scene.agent().generation(), 0);
    assert!(scene.agent().reader.current().is_err());
}

#[test]
fn a_ca_that_never_answers_times_out() {
    let scene = started();
    scene.ca.set_fault(Some(CaFault::NeverAnswers));
    scene.agent().fails("deadline");
    assert_eq!(scene.agent().generation(), 1);
}

#[test]
fn a_server_with_another_identity_gets_no_request() {
    let mut scene = Scene::new();
    scene.start_with(Some(Authority::root("cluster.local").bundle_pem()));
    scene.agent().fails("tls");
    assert!(scene.ca.seen().is_empty(), "no token went out");

    let mut scene = Scene::new();
    scene.settings.server_name = "ca.example".to_owned();
    scene.start();
    scene.agent().fails("tls");
    assert!(scene.ca.seen().is_empty(), "no token went out");
}

#[test]
fn what_is_missing_here_is_named_and_waited_for() {
    let mut scene = Scene::new();
    scene.start_with(None);
    scene.agent().fails("trust-bundle-file");

    let mut scene = Scene::new();
    *scene.token.lock().unwrap() = Err("no such file".to_owned());
    scene.start();
    scene.agent().fails("token-file");
    assert!(scene.ca.seen().is_empty());
    *scene.token.lock().unwrap() = Ok("first".to_owned());
    scene.reaches(1);
}

#[test]
fn it_goes_down_and_comes_back() {
    let mut scene = started();
    scene.ca.go_down();
    scene.agent().fails("connect");
    assert!(scene.agent().reader.current().is_ok());
    scene.ca.come_back();
    scene.agent().eventually("renewed", |agent| {
        agent.monitor.renew_now();
        agent.generation() > 1
    });
}

/// A wall clock that is set does not end the renewals, and does not make them spin.
#[test]
fn a_clock_step_is_survived() {
    let mut scene = Scene::new();
    let real = || u64::try_from(portcullis_testkit::certs::now()).unwrap();
    let clock = Arc::new(AtomicU64::new(real()));
    scene.clock = Clock::shared(Arc::clone(&clock));
    scene.start();
    scene.reaches(1);
    for step in [86_400_i64, -3600] {
        clock.store(real().checked_add_signed(step).unwrap(), Ordering::Release);
        let failures = || scene.agent().monitor.status().failures.values().sum::<u64>();
        let before = failures();
        scene.agent().monitor.renew_now();
        scene.agent().eventually("nothing holds by a wrong clock", |_| failures() > before);
        std::thread::sleep(Duration::from_secs(4));
        assert!(failures() - before <= 8, "{} in four seconds", failures() - before);
        clock.store(real(), Ordering::Release);
        assert!(scene.agent().reader.current().is_ok(), "what was valid is valid again");
        let generation = scene.agent().generation();
        scene.agent().eventually("renewed", |agent| {
            agent.monitor.renew_now();
            agent.generation() > generation
        });
    }
}

#[test]
fn a_short_life_is_renewed_again_and_again() {
    let mut scene = Scene::new();
    scene.settings.ttl = Some(Duration::from_secs(4));
    scene.start();
    scene.reaches(4);
    assert_eq!(scene.agent().monitor.status().failures.len(), 0);
    let seen = scene.ca.seen();
    assert_eq!(seen.iter().filter(|seen| seen.by_token).count(), 1, "{seen:?}");
}

#[test]
fn bundles_come_from_the_authority_and_change_without_a_new_certificate() {
    let mut scene = Scene::new();
    let (partner, next) = (Authority::root("partner.test"), Authority::root("cluster.local"));
    let root = scene.root.clone();
    scene.ca.hand_out(&[("cluster.local", &root), ("partner.test", &partner)], 1);
    scene.start();
    scene.reaches(1);
    let first = scene.agent().reader.current().unwrap();
    assert_eq!(first.trust().iter().count(), 2);
    scene.ca.hand_out(&[("cluster.local", &root), ("cluster.local", &next), ("partner.test", &partner)], 1);
    scene.agent().eventually("the second root", |agent| agent.generation() > 1);
    let second = scene.agent().reader.current().unwrap();
    assert_eq!(second.trust().bundle("cluster.local").unwrap().roots().count(), 2);
    assert_eq!(first.svid().leaf.serial, second.svid().leaf.serial);
    let digest = second.trust().digest();
    scene.agent().eventually("the new digest is reported", |_| {
        scene.ca.seen().iter().any(|seen| seen.digest.as_ref() == Some(&digest))
    });
    // Bundles that our own certificate does not rest on are not taken, whatever the authority says.
    scene.ca.hand_out(&[("cluster.local", &next)], 1);
    scene.agent().eventually("it is refused", |agent| !agent.monitor.status().bundle_failures.is_empty());
    let third = scene.agent().reader.current().unwrap();
    assert_eq!(third.trust().digest(), digest);
}

fn roots(scene: &Scene) -> usize {
    let now = scene.agent().reader.current().unwrap();
    now.trust().bundle("cluster.local").unwrap().roots().count()
}

/// A rotation of the root as a sidecar sees it: both roots, then certificates of the new one, then the new one alone.
#[test]
fn root_rotation_in_three_phases_is_followed() {
    let mut scene = Scene::new();
    let (old, new) = (scene.root.clone(), Authority::root("cluster.local"));
    scene.ca.hand_out(&[("cluster.local", &old)], 1);
    scene.start();
    scene.reaches(1);
    scene.ca.hand_out(&[("cluster.local", &old), ("cluster.local", &new)], 1);
    scene.agent().eventually("both roots", |_| roots(&scene) == 2);
    scene.ca.sign_with(&new);
    let renewals = scene.agent().monitor.status().renewals;
    scene.agent().monitor.renew_now();
    scene.agent().eventually("a certificate of the new root", |agent| agent.monitor.status().renewals > renewals);
    scene.ca.hand_out(&[("cluster.local", &new)], 1);
    scene.agent().eventually("the new root alone", |_| roots(&scene) == 1);
    let status = scene.agent().monitor.status();
    assert_eq!((status.failures.len(), status.bundle_failures.len()), (0, 0), "{status:?}");

    // A root that is dropped too early: both are asked for anew at once, and are right together.
    let third = Authority::root("cluster.local");
    let renewals = status.renewals;
    scene.ca.sign_with(&third);
    scene.ca.hand_out(&[("cluster.local", &third)], 1);
    scene.agent().eventually("renewed before its time", |agent| agent.monitor.status().renewals > renewals);
    let now = scene.agent().reader.current().unwrap();
    assert_eq!(now.trust().iter().next().unwrap().1.roots().next().unwrap().der(), third.root_der());
}

/// istiod knows no `GetTrustBundles`: its new root comes at the end of the chain, and counts beside the file's.
#[test]
fn a_root_at_the_end_of_the_chain_counts_where_no_bundles_are_handed_out() {
    let scene = started();
    assert_eq!(roots(&scene), 1);
    scene.ca.sign_with(&Authority::root("cluster.local"));
    scene.agent().monitor.renew_now();
    scene.reaches(2);
    assert_eq!(roots(&scene), 2);
}

#[test]
fn a_file_holds_for_the_domain_that_it_is_for() {
    let scene = started();
    let partner = Authority::root("partner.test");
    let domain = TrustDomain::parse("partner.test").unwrap();
    scene.foreign.send(vec![(domain, vec![partner.root_der().clone()])]).unwrap();
    scene.reaches(2);
    let now = scene.agent().reader.current().unwrap();
    assert!(now.trust().bundle("partner.test").is_some());
    // The CA does not know this bundle, so it is not reported.
    scene.agent().monitor.renew_now();
    scene.reaches(3);
    let own = bundle_digest([(&TrustDomain::parse("cluster.local").unwrap(), [scene.root.root_der()])]);
    assert_eq!(scene.ca.seen().last().unwrap().digest, Some(own));
}
