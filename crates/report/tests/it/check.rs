//! Checks of the mesh: what is wrong is told, and what is not known is no pass.

use portcullis_api::{
    BreakGlass, Capture, CaptureListener, CaptureRules, Certificate, Certs, Client, ConfigChange, ConfigFile,
    Direction, IdentitySource, IgnoredFile, Ledger, Mode, NamedPlace, Observation, Observations, PeerAuthentication,
    Policies, PortMode, Problem, ProxyInfo, Status, Timestamp, Transport, TrustDomainRoots, WorkloadCertificate,
};
use portcullis_report::check::{
    Check, CheckResult, Configuration, Facts, Id, Known, MeshedService, NoAnswer, Runs, Sidecar, State, evaluate,
    evaluate_configuration, overall,
};

use crate::model::{DAY, HOUR, NOW};

pub(crate) fn at(ago: i64) -> Timestamp {
    Timestamp::from_unix(NOW - ago)
}

pub(crate) fn certificate(subject: &str, from: i64, until: i64) -> Certificate {
    Certificate {
        subject: subject.to_owned(),
        pem: format!("pem of {subject}"),
        valid_from: Some(Timestamp::from_unix(NOW + from)),
        expiration_time: Some(Timestamp::from_unix(NOW + until)),
        ..Certificate::default()
    }
}

/// A sidecar that has everything as it should be.
pub(crate) fn well(name: &str) -> Known {
    let leaf = certificate(name, -HOUR, 23 * HOUR);
    let own = WorkloadCertificate {
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}"),
        state: "Available".to_owned(),
        cert_chain: vec![leaf],
        renews_at: Some(Timestamp::from_unix(NOW + 11 * HOUR)),
    };
    let roots = vec![certificate("root", -DAY, 3650 * DAY)];
    let mesh_wide = PeerAuthentication {
        namespace: "istio-system".to_owned(),
        name: "default".to_owned(),
        mode: "STRICT".to_owned(),
        file: "/p/mesh.yaml".to_owned(),
        line: 1,
        ..PeerAuthentication::default()
    };
    Known {
        label: format!("{name}.shop"),
        proxy: ProxyInfo {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            root_namespace: "istio-system".to_owned(),
            default_mode: Mode::Permissive,
            version: "1.0.0".to_owned(),
            state: "LIVE".to_owned(),
            now: at(0),
            ..ProxyInfo::default()
        },
        asked_at: at(0),
        answered_at: at(0),
        policies: Policies {
            hash: Some("aaaa".to_owned()),
            folder: Some("/p".to_owned()),
            loaded_at: Some(at(DAY)),
            policies: vec![mesh_wide],
            break_glass: Some(Vec::new()),
            ..Policies::default()
        },
        certs: Certs {
            certificates: vec![own],
            trust_bundles: vec![TrustDomainRoots { trust_domain: "cluster.local".to_owned(), root_certs: roots }],
        },
        chain: Ok(()),
        observations: Some(Observations::default()),
        status: Some(Status {
            config_file: ConfigFile { change: ConfigChange::Unchanged, source: "c.yaml".to_owned(), problem: None },
            identity: IdentitySource {
                kind: Some("ca".to_owned()),
                name: "the CA".to_owned(),
                ..IdentitySource::default()
            },
            ignored_files: Some(Vec::new()),
            ledger: Ledger { folder: Some("/l".to_owned()), is_persistent: true, ..Ledger::default() },
            ..Status::default()
        }),
    }
}

pub(crate) fn facts(sidecars: Vec<Known>) -> Facts {
    let sidecars = sidecars.into_iter().map(|known| Sidecar { label: known.proxy.name.clone(), answer: Ok(known) });
    Facts { now: at(0), version: "1.0.0".to_owned(), sidecars: sidecars.collect(), containers: None, meshed: None }
}

fn silent() -> Sidecar {
    let answer = NoAnswer { message: "connection refused".to_owned(), is_other: false };
    Sidecar { label: "10.0.0.9:15000".to_owned(), answer: Err(answer) }
}

pub(crate) fn find(checks: &[Check], id: Id) -> &Check {
    checks.iter().find(|check| check.id == id).unwrap()
}

/// What a check says of two sidecars, of which the second one has been changed.
fn changed(id: Id, change: impl FnOnce(&mut Known)) -> Check {
    let mut web = well("web");
    change(&mut web);
    let checks = evaluate(&facts(vec![well("cart"), web]));
    let others = checks.iter().filter(|check| check.id != id && check.state > State::Passed);
    assert_eq!(others.map(|check| check.name).collect::<Vec<_>>(), Vec::<&str>::new(), "nothing else is wrong");
    find(&checks, id).clone()
}

fn status(known: &mut Known) -> &mut Status {
    known.status.as_mut().unwrap()
}

fn worst(check: &Check) -> (State, &str, &[String]) {
    let finding = &check.findings[0];
    if finding.state > State::Passed {
        assert_eq!(finding.proxies, ["web.shop"]);
        assert!(finding.remedy.is_some(), "{finding:?}");
    }
    (finding.state, finding.message.as_str(), &finding.why)
}

#[test]
fn a_mesh_without_fault_is_well_and_every_check_is_there_in_order() {
    let checks = evaluate(&facts(vec![well("cart"), well("web")]));
    let ids: Vec<Id> = checks.iter().map(|check| check.id).collect();
    let expected: Vec<Id> = Id::ALL.into_iter().filter(|id| *id >= Id::ProxyAnswers).collect();
    assert_eq!(ids, expected);
    assert!(checks.iter().all(|check| check.state <= State::Passed), "{checks:?}");
    assert_eq!(overall(&checks), CheckResult::Well);
}

#[test]
fn a_proxy_that_does_not_answer_is_named_and_the_others_are_checked() {
    let mut facts = facts(vec![well("cart")]);
    facts.sidecars.push(silent());
    let checks = evaluate(&facts);
    let answers = find(&checks, Id::ProxyAnswers);
    assert_eq!((answers.state, &answers.findings[0].proxies[..]), (State::Failed, &["10.0.0.9:15000".to_owned()][..]));
    assert_eq!(find(&checks, Id::ProxyReady).state, State::Passed);
    assert_eq!(overall(&checks), CheckResult::Unanswered);
    facts.sidecars = vec![silent()];
    let none = evaluate(&facts);
    let of_engine = |id| matches!(id, Id::ContainersSidecars | Id::ContainersCaptured);
    assert!(none.iter().skip(1).all(|check| check.state == State::Unchecked || of_engine(check.id)));
}

#[test]
fn near_expiry_is_a_failure() {
    let leaf = |change: fn(&mut WorkloadCertificate)| {
        changed(Id::CertificateTime, |web| change(&mut web.certs.certificates[0]))
    };
    let overdue = leaf(|own| own.renews_at = Some(at(2 * HOUR)));
    assert!(worst(&overdue).1.starts_with("its renewal is 2h overdue; it ends in 23h"), "{overdue:?}");
    let third = leaf(|own| {
        own.renews_at = None;
        own.cert_chain = vec![certificate("web", -17 * HOUR, 7 * HOUR)];
    });
    assert!(worst(&third).1.starts_with("it ends in 7h"), "{third:?}");
    let over = leaf(|own| own.cert_chain = vec![certificate("web", -25 * HOUR, -HOUR)]);
    assert!(worst(&over).1.starts_with("it expired 1h ago"), "{over:?}");
    for check in [&overdue, &third, &over] {
        assert_eq!((check.state, overall(std::slice::from_ref(check))), (State::Failed, CheckResult::Expired));
    }
    let unknown = leaf(|own| own.cert_chain = vec![Certificate::default()]);
    assert_eq!(unknown.state, State::Unchecked);
}

#[test]
fn a_ca_warns_long_before_its_end_and_fails_shortly_before_it() {
    let state = |from: i64, left: i64| {
        let mut web = well("web");
        web.certs.trust_bundles[0].root_certs = vec![certificate("root", from, left)];
        web.certs.certificates[0].cert_chain.push(certificate("intermediate", from, left));
        let checks = evaluate(&facts(vec![web]));
        (find(&checks, Id::RootTime).state, find(&checks, Id::IntermediateTime).state)
    };
    use State::{Failed, Passed, Warning};
    assert_eq!(state(-3650 * DAY, 200 * DAY), (Passed, Passed));
    assert_eq!(state(-3650 * DAY, 179 * DAY), (Warning, Passed));
    assert_eq!(state(-3650 * DAY, 59 * DAY), (Warning, Warning));
    assert_eq!(state(-3650 * DAY, 29 * DAY), (Failed, Warning));
    assert_eq!(state(-3650 * DAY, 6 * DAY), (Failed, Failed));
    assert_eq!(state(-3650 * DAY, -DAY), (Failed, Failed));
    // One of short life, as SPIRE makes them.
    assert_eq!(state(-12 * HOUR, 12 * HOUR), (Passed, Passed));
    assert_eq!(state(-20 * HOUR, 4 * HOUR), (Warning, Warning));
    assert_eq!(state(-23 * HOUR, HOUR), (Failed, Failed));
}

#[test]
fn what_differs_between_proxies_is_told_of_the_one_that_differs() {
    let mut third = well("pay");
    third.policies.hash = Some("bbbb".to_owned());
    let checks = evaluate(&facts(vec![well("cart"), well("web"), third]));
    let equal = find(&checks, Id::PolicyEqual);
    assert_eq!((equal.state, &equal.findings[0].proxies[..]), (State::Failed, &["pay.shop".to_owned()][..]));
    assert_eq!(equal.findings[0].why, ["most proxies have aaaa"]);
    assert_eq!(equal.findings[1].proxies, ["cart.shop", "web.shop"], "those that say the same are one");

    let lacks = changed(Id::TrustBundles, |web| {
        web.certs.trust_bundles[0].root_certs = vec![certificate("other root", -DAY, 3650 * DAY)];
    });
    assert_eq!(lacks.findings.len(), 2, "each lacks the other's");
    assert_eq!(lacks.findings[0].why, ["web.shop trusts a root that it does not trust"]);

    // Replicas of one workload have the same name.
    let replica = |address: &str, root: &str| {
        let mut known = well("cart");
        known.label = format!("cart.shop ({address})");
        known.certs.trust_bundles[0].root_certs = vec![certificate(root, -DAY, 3650 * DAY)];
        known
    };
    let replicas =
        evaluate(&facts(vec![replica("10.0.0.1", "root"), replica("10.0.0.2", "root"), replica("10.0.0.3", "other")]));
    let bundles = find(&replicas, Id::TrustBundles);
    let lacking: Vec<&str> = bundles.findings.iter().flat_map(|finding| &finding.proxies).map(String::as_str).collect();
    assert_eq!((bundles.state, lacking.len()), (State::Failed, 3), "{bundles:?}");

    let version = evaluate(&facts(vec![well("cart"), {
        let mut web = well("web");
        web.proxy.version = "0.9.0".to_owned();
        web
    }]));
    assert_eq!(find(&version, Id::ProxyVersions).state, State::Warning);
}

#[test]
fn a_clock_that_is_off_is_a_failure_from_the_time_on_by_which_certificates_are_backdated() {
    let state = |by: i64| {
        let mut web = well("web");
        web.proxy.now = Timestamp::from_unix(NOW + by);
        (web.asked_at, web.answered_at) = (at(3), at(0));
        find(&evaluate(&facts(vec![web])), Id::ProxyClocks).state
    };
    use State::{Failed, Passed, Warning};
    assert_eq!(
        [-4, 0, 1, 5, 6, 60, 61, -9, -100].map(state),
        [Passed, Passed, Passed, Passed, Warning, Warning, Failed, Warning, Failed]
    );
}

#[test]
fn each_fact_of_a_proxy_that_is_wrong_is_told_with_its_remedy() {
    let ready = changed(Id::ProxyReady, |web| status(web).pending = vec!["credentials (no answer yet)".to_owned()]);
    assert_eq!(worst(&ready).2, ["pending: credentials (no answer yet)"]);
    let config = changed(Id::ProxyConfig, |web| status(web).config_file.change = ConfigChange::Changed);
    assert_eq!((config.state, config.findings[0].location.as_deref()), (State::Warning, Some("c.yaml")));
    let chain = changed(Id::CertificateChain, |web| web.chain = Err("unknown CA".to_owned()));
    assert_eq!(worst(&chain).2, ["unknown CA"]);
    let problem = Problem { reason: "refused".to_owned(), message: "no\nroute".to_owned(), since: Some(at(HOUR)) };
    let source = changed(Id::CertificateSource, |web| status(web).identity.problem = Some(problem));
    assert!(worst(&source).1.starts_with("the CA gives no certificate for 1h"), "{source:?}");
    assert_eq!(worst(&source).2, ["no", "route"]);
    let message = "/p/a.yaml:4:9: spec.mtls.mode: unknown\n/p/b.yaml:1:1: kind".to_owned();
    let problem = Problem { reason: "refused".to_owned(), message, since: Some(at(2 * HOUR)) };
    let files = changed(Id::PolicyFiles, |web| web.policies.problem = Some(problem));
    assert_eq!((worst(&files).2.len(), files.findings[0].location.as_deref()), (2, Some("/p/a.yaml:4:9")));
    assert!(files.findings[0].remedy.as_ref().unwrap().contains("portcullis validate -f /p"), "{files:?}");
    let ignored = IgnoredFile { file: "/p/x.txt".to_owned(), reason: "extension".to_owned() };
    let ignored = changed(Id::PolicyIgnoredFiles, |web| status(web).ignored_files = Some(vec![ignored]));
    assert_eq!(ignored.state, State::Warning);
    let mesh_wide = changed(Id::PolicyMeshWide, |web| web.policies.policies[0].mode = "UNSET".to_owned());
    assert_eq!((mesh_wide.state, mesh_wide.findings[0].location.as_deref()), (State::Warning, Some("/p/mesh.yaml:1")));
    let place = NamedPlace { namespace: "shop".to_owned(), name: "old".to_owned(), file: "d.yaml".to_owned(), line: 7 };
    let services = changed(Id::ServicesSidecars, |web| status(web).without_sidecar = vec![place]);
    assert!(worst(&services).1.contains("shop/old (d.yaml:7)"), "{services:?}");
    let written = changed(Id::LedgerWritten, |web| status(web).ledger.is_persistent = false);
    assert_eq!(written.state, State::Failed);
    let complete = changed(Id::LedgerComplete, |web| status(web).ledger.evicted = 3);
    assert_eq!(complete.state, State::Warning);
}

#[test]
fn capture_passes_only_by_its_rules_or_by_a_connection_that_they_redirected() {
    let rules = |rules, captured_at| {
        let listener = CaptureListener { listen: "0.0.0.0:15006".to_owned(), captured_at };
        let inbound = Some(listener);
        let capture = Capture { inbound, outbound: None, rules, detail: Some("denied".to_owned()) };
        changed(Id::CaptureRules, |web| status(web).capture = capture).state
    };
    use State::{Failed, Passed, Unchecked, Warning};
    assert_eq!(rules(CaptureRules::AsPlanned, None), Passed);
    assert_eq!(rules(CaptureRules::Missing, Some(at(9))), Failed);
    assert_eq!(rules(CaptureRules::Different, Some(at(9))), Warning);
    assert_eq!(rules(CaptureRules::Unknown, Some(at(9))), Passed);
    assert_eq!(rules(CaptureRules::Unknown, None), Unchecked);
}

#[test]
fn containers_without_a_sidecar_are_a_warning_if_an_engine_was_asked() {
    let of = |containers: Option<Vec<String>>| {
        let checks = evaluate(&Facts { containers, ..facts(vec![well("cart")]) });
        find(&checks, Id::ContainersSidecars).state
    };
    assert_eq!(of(None), State::Skipped);
    assert_eq!(of(Some(Vec::new())), State::Passed);
    assert_eq!(of(Some(vec!["cron".to_owned()])), State::Warning);
}

#[test]
fn a_service_that_does_not_run_behind_its_sidecar_fails_with_the_command_that_mends_it() {
    let meshed = |runs| MeshedService {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        runs,
        explanation: "it is so".to_owned(),
        remedy: "docker-compose restart web".to_owned(),
    };
    let among = |sidecars, meshed| {
        let checks = evaluate(&Facts { meshed, ..facts(sidecars) });
        (find(&checks, Id::ContainersCaptured).clone(), overall(&checks))
    };
    // Also where no proxy answers: the engine knows it all the same.
    let of = |meshed| among(Vec::new(), meshed).0;
    assert_eq!(of(None).state, State::Skipped);
    assert_eq!(of(Some(Ok(Vec::new()))).state, State::Skipped);
    assert_eq!(of(Some(Err("no".to_owned()))).state, State::Unchecked);
    assert_eq!(of(Some(Ok(vec![meshed(Runs::Captured)]))).state, State::Passed);
    // A job that has ended, in a stack that runs; and a stack that does not.
    let (stopped, _) = among(vec![well("cart")], Some(Ok(vec![meshed(Runs::Stopped)])));
    assert_eq!(stopped.state, State::Warning);
    let (stopped, verdict) = among(Vec::new(), Some(Ok(vec![meshed(Runs::Stopped)])));
    assert_eq!((stopped.state, verdict), (State::Failed, CheckResult::Failed));
    assert_eq!(stopped.findings[0].remedy.as_deref(), Some("docker-compose restart web"));
    let wrong = of(Some(Ok(vec![meshed(Runs::Captured), meshed(Runs::Wrong)])));
    assert_eq!(wrong.state, State::Failed);
    assert!(wrong.findings.iter().any(|finding| {
        finding.remedy.as_deref() == Some("docker-compose restart web")
            && finding.message.contains("web (project shop)")
    }));
}

#[test]
fn a_configuration_with_a_mistake_is_not_checked_further() {
    let mut config = Configuration::new("c.yaml".to_owned());
    config.mistakes = vec!["c.yaml:3:1: workload: missing".to_owned()];
    let checks = evaluate_configuration(&config, at(0));
    assert_eq!((checks.len(), checks[0].state), (1, State::Failed));
    assert_eq!(checks[0].findings[0].location.as_deref(), Some("c.yaml:3:1"));
    config.mistakes.clear();
    config.missing = vec!["c.yaml:4:1: policies: there is no folder".to_owned()];
    config.awaited = vec!["c.yaml:5:1: identity.ca.trustBundle: there is no file".to_owned()];
    let checks = evaluate_configuration(&config, at(0));
    let paths = find(&checks, Id::ConfigPaths);
    assert_eq!(paths.findings.iter().map(|finding| finding.state).collect::<Vec<_>>(), [State::Failed, State::Warning]);
    assert_eq!(overall(&checks), CheckResult::Failed);
    let udp = |config: &Configuration| find(&evaluate_configuration(config, at(0)), Id::ConfigUdp).state;
    assert_eq!(udp(&config), State::Skipped);
    config.capture.inbound = Some(CaptureListener::default());
    assert_eq!(udp(&config), State::Passed);
    config.udp = Ok(vec!["user 1000 has a socket on 0.0.0.0:53".to_owned()]);
    assert_eq!(udp(&config), State::Warning);
    config.udp = Err("denied".to_owned());
    assert_eq!(udp(&config), State::Unchecked);
}

#[test]
fn a_proxy_that_shows_very_many_certificates_is_not_checked_and_takes_no_time() {
    let mut web = well("web");
    let domains = (0..40_000).map(|n| TrustDomainRoots {
        trust_domain: format!("d{n}"),
        root_certs: vec![certificate(&format!("root {n}"), -DAY, DAY)],
    });
    web.certs.trust_bundles = domains.collect();
    web.certs.certificates[0].cert_chain =
        (0..40_000).map(|n| certificate(&format!("intermediate {n}"), -DAY, DAY)).collect();
    let begun = std::time::Instant::now();
    let checks = evaluate(&facts(vec![well("cart"), web.clone(), web]));
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    for id in [Id::RootTime, Id::IntermediateTime, Id::TrustBundles] {
        assert_eq!(find(&checks, id).state, State::Unchecked, "{id:?}");
    }
}

#[test]
fn what_a_proxy_calls_itself_controls_no_terminal() {
    let mut web = well("web\u{1b}[2J");
    assert!(web.label.contains('\u{1b}'));
    web.chain = Err("\u{202e}evil\n".to_owned());
    let checks = evaluate(&facts(vec![web]));
    let text = serde_json::to_string(&checks).unwrap();
    assert!(!text.contains("\\u001b") && !text.contains('\u{202e}'), "{text}");
}

#[test]
fn an_open_break_glass_is_a_warning_where_it_holds() {
    let document = |name: &str, labels: Option<(&str, &str)>, is_active: bool| BreakGlass {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        selector: labels.map(|(key, value)| [(key.to_owned(), value.to_owned())].into()),
        until: Some(Timestamp::from_unix(NOW + HOUR)),
        is_active,
        reason: "import fails".to_owned(),
        owner: Some("ops".to_owned()),
        ..BreakGlass::default()
    };
    let of = |documents: Option<Vec<BreakGlass>>| {
        let mut cart = well("cart");
        cart.policies.break_glass = documents;
        let checks = evaluate(&facts(vec![cart]));
        let check = checks.into_iter().find(|check| check.id == Id::PolicyBreakGlass).unwrap();
        (check.state, check.findings[0].message.clone())
    };
    let (state, message) = of(Some(vec![document("open", None, true)]));
    assert_eq!(state, State::Warning);
    assert_eq!(message, "shop/open lets plaintext in for 1h more: import fails, ops");
    for none in [document("ended", None, false), document("other", Some(("app", "web")), true)] {
        assert_eq!(of(Some(vec![none])).0, State::Passed);
    }
    assert_eq!(of(None).0, State::Unchecked, "a sidecar that does not say");
}

/// A connection in plaintext as one of its sides saw it.
fn plaintext(known: &mut Known, direction: Direction, peer: Client, ago: i64) {
    let observation = Observation {
        direction,
        port: 8080,
        transport: Transport::Plaintext,
        peer,
        allowed: 3,
        refused: 0,
        bytes_received: 0,
        bytes_sent: 0,
        first_seen: at(ago),
        last_seen: at(ago),
        last_refusal: None,
        days: Vec::new(),
    };
    let observations = known.observations.get_or_insert_default();
    observations.proxy = known.proxy.clone();
    observations.observations.push(observation);
}

/// `web` has called `cart` in plaintext, and both sidecars saw it.
fn called_in_plaintext(change: impl FnOnce(&mut Known, &mut Known)) -> Check {
    let (mut web, mut cart) = (well("web"), well("cart"));
    let ip = |last: u8| Some([10, 0, 0, last].into());
    plaintext(&mut web, Direction::Outbound, Client { address: ip(2), ..Client::default() }, 60);
    let client = Client { address: ip(3), dialled: ip(2), ..Client::default() };
    plaintext(&mut cart, Direction::Inbound, client, 60);
    change(&mut web, &mut cart);
    find(&evaluate(&facts(vec![cart, web])), Id::ServicesPlaintext).clone()
}

#[test]
fn plaintext_from_one_sidecar_to_another_is_told_with_its_reason() {
    let check = called_in_plaintext(|_, _| ());
    let [finding, _] = check.findings.as_slice() else { panic!("{check:?}") };
    assert_eq!((check.state, finding.proxies.as_slice()), (State::Warning, &["web.shop".to_owned()][..]));
    assert!(finding.why[0].contains("cart.shop has a sidecar at 10.0.0.2, port 8080"), "{:?}", finding.why);
    assert!(finding.remedy.as_ref().unwrap().contains("ServiceEntry"));
    let other_root = called_in_plaintext(|_, cart| {
        cart.certs.trust_bundles[0].root_certs = vec![certificate("another", -DAY, 3650 * DAY)];
    });
    let finding = &other_root.findings[0];
    assert!(
        finding.why[0].contains("no common root") && finding.remedy.as_ref().unwrap().contains("--ca"),
        "{finding:?}"
    );
}

#[test]
fn plaintext_that_is_meant_is_over_or_may_be_of_somebody_else_is_not_told() {
    let passed = |change: fn(&mut Known, &mut Known)| {
        let check = called_in_plaintext(change);
        assert_eq!(check.state, State::Passed, "{check:?}");
    };
    passed(|_, cart| {
        let ports = &mut cart.observations.as_mut().unwrap().ports;
        let decided_by = portcullis_api::DecidingPolicy::default();
        ports.push(PortMode { port: Some(8080), mode: Mode::Disable, decided_by, server_first: false });
    });
    passed(|web, _| web.observations.as_mut().unwrap().observations[0].last_seen = at(2 * HOUR));
    // Two sidecars behind one address: which of them it was is not known.
    passed(|web, _| {
        let dialled = Some([10, 0, 0, 2].into());
        plaintext(web, Direction::Inbound, Client { dialled, ..Client::default() }, 60);
    });
    let unknown = called_in_plaintext(|_, cart| cart.observations = None);
    assert_eq!(unknown.state, State::Unchecked, "{unknown:?}");
}
