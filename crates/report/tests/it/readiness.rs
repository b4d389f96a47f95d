//! What `readiness` says about traffic.

use portcullis_api::{DecidingPolicy, Mode, Observations, PortMode, Timestamp, Transport};
use portcullis_report::readiness::{Level, Options, Port, PortReadiness, Readiness, What};
use portcullis_report::{Answer, Form, Names, NoSidecar, Paste, Status, Window};

use crate::model::*;

fn report(answers: &[Answer]) -> Readiness {
    Readiness::new(answers, &Names::default(), &[], &options())
}

/// The port 8080 of a workload with these connections.
fn port(connections: &[Connection]) -> Port {
    let report = report(&[answer(sidecar(ledger(connections)))]);
    assert_eq!(report.items.len(), 2);
    report.items[0].clone()
}

fn with(changed: impl FnOnce(&mut Observations)) -> Answer {
    let mut observations = sidecar(ledger(&often(&mtls("web", 60))));
    for mode in &mut observations.ports {
        mode.port = mode.port.filter(|port| *port != 9090);
    }
    observations.ports.dedup_by_key(|mode| mode.port);
    changed(&mut observations);
    answer(observations)
}

#[test]
fn only_mtls_is_ready_with_high_confidence() {
    let port = port(&often(&mtls("web", 60)));
    assert_eq!((port.verdict, port.confidence.level), (PortReadiness::Ready, Level::High), "{:?}", port.confidence);
    assert_eq!((port.mtls_connections, port.other_connections, port.last_seen), (183, 0, None));
    assert_eq!(report(&[with(|_| ())]).status, Status::Ready);
}

#[test]
fn a_plaintext_client_is_named_with_its_rhythm_and_a_fix() {
    let cron = (0..100).map(|n| plaintext("172.18.0.9", 7200 + n * 120));
    let connections: Vec<_> = cron.chain(often(&mtls("web", 60))).collect();
    let names = Names::from_iter([("172.18.0.9".parse().unwrap(), "cron-report".to_owned())]);
    let report = Readiness::new(&[answer(sidecar(ledger(&connections)))], &names, &[], &options());
    let port = &report.items[0];
    assert_eq!((port.verdict, report.status), (PortReadiness::NotReady, Status::NotReady));
    let [client] = &port.clients[..] else { panic!("{:?}", port.clients) };
    assert_eq!((client.client.as_str(), client.what, client.connections), ("cron-report", What::NoSidecar, 100));
    assert_eq!((client.interval_seconds, client.last_seen), (Some(120), Timestamp::from_unix(NOW - 7200)));
    let command = "portcullis compose add cron-report -n shop --apply";
    assert_eq!(client.fixes[0].paste, Paste::Command(command.to_owned()));
    assert!(matches!(&client.fixes[1].paste, Paste::Yaml(yaml) if yaml.contains("8080: {mode: PERMISSIVE}")));
}

#[test]
fn a_client_that_left_the_window_is_no_obstacle_but_a_doubt_while_it_may_return() {
    let weekly = |last: i64| (0..4).map(move |n| plaintext("10.0.0.5", last + n * 7 * DAY));
    let late: Vec<_> = weekly(8 * DAY).chain(often(&mtls("web", 60))).collect();
    let doubtful = port(&late);
    assert_eq!((doubtful.verdict, doubtful.confidence.level), (PortReadiness::Ready, Level::Low));
    assert!(doubtful.confidence.reasons[0].contains("about every 7d, last 8d ago"), "{:?}", doubtful.confidence);
    let minutely = (0..1000).map(|n| plaintext("10.0.0.5", 8 * DAY + n * MINUTE));
    let gone: Vec<_> = minutely.chain(often(&mtls("web", 60))).collect();
    assert_eq!(port(&gone).confidence.level, Level::High, "it called each minute, so it is gone");
}

#[test]
fn a_client_that_calls_once_in_a_week_lowers_the_confidence() {
    let rare = (0..3).map(|n| mtls("report", DAY + n * 6 * DAY));
    let port = port(&rare.chain(often(&mtls("web", 60))).collect::<Vec<_>>());
    assert_eq!((port.verdict, port.confidence.level), (PortReadiness::Ready, Level::Medium));
    assert_eq!(port.confidence.reasons, ["report.shop calls about every 6d only"]);
}

#[test]
fn a_batch_that_runs_once_a_week_is_rare_however_many_connections_it_makes() {
    let batch = |ago: i64| (0..500).map(move |n| mtls("batch", ago + n));
    let often = often(&mtls("web", 60));
    let level = |batches: Vec<Connection>| port(&[&batches[..], &often[..]].concat()).confidence;
    let weekly = level(batch(DAY).chain(batch(8 * DAY)).chain(batch(15 * DAY)).collect());
    assert_eq!(
        (weekly.level, &weekly.reasons[..]),
        (Level::Medium, &["batch.shop calls about every 6d only".to_owned()][..])
    );
    assert_eq!(level((0..8).flat_map(|day| batch(day * DAY)).collect()).level, Level::High);
}

#[test]
fn what_a_client_is_follows_from_what_other_sidecars_saw() {
    let web = Connection { address: "10.0.0.9".parse().unwrap(), ..mtls("web", 60) };
    let of = |address: &str| {
        let connections = [web.clone(), plaintext(address, 60)];
        port(&connections).clients[0].clone()
    };
    let beside = of("10.0.0.9");
    assert_eq!((beside.what, beside.sidecar.as_deref()), (What::BesideSidecar, Some("web.shop")));
    let Paste::Yaml(route) = &beside.fixes[0].paste else { panic!() };
    assert!(route.contains("cidrs: [\"10.0.0.2/32\"], ports: [8080], mode: mtls"), "{route}");
    assert_eq!(of("10.0.0.1").what, What::HostGateway);
    assert_eq!(of("127.0.0.1").what, What::ThisHost);
    assert_eq!(of("10.0.0.6").what, What::NoSidecar);
    let checks: Vec<_> = (0..50).map(|n| plaintext("10.0.0.1", n * 10)).collect();
    assert_eq!(port(&checks).clients[0].what, What::HealthCheck);
    let named = Connection { transport: Transport::Tls, ..plaintext("10.0.0.6", 5) };
    assert_eq!(port(&[named]).clients[0].what, What::OwnTls);
    let blind = Connection { transport: Transport::Unknown, ..plaintext("10.0.0.6", 5) };
    let blind = port(&[blind]);
    assert_eq!((blind.verdict, blind.clients[0].what), (PortReadiness::NotReady, What::NotInspected));
}

#[test]
fn a_client_that_has_got_its_sidecar_is_told_so_and_gets_no_advice() {
    let names = Names::from_iter([("172.18.0.9".parse().unwrap(), "cron-report".to_owned())]);
    let client = |since: i64| {
        let connections = [plaintext("172.18.0.9", 7200), mtls("cron-report", since)];
        let report = Readiness::new(&[answer(sidecar(ledger(&connections)))], &names, &[], &options());
        let text = report.render(Form::Table).unwrap();
        (report.items[0].verdict, report.items[0].clients[0].what, text.contains("compose add"))
    };
    assert_eq!(client(60), (PortReadiness::NotReady, What::SidecarNow, false));
    assert_eq!(client(7201), (PortReadiness::NotReady, What::NoSidecar, true), "it sent plaintext after that");
}

#[test]
fn an_address_that_has_got_another_owner_keeps_the_name_of_then() {
    let since = |ago: i64| {
        let named = ("172.18.0.9".parse().unwrap(), "cron-report".to_owned(), Timestamp::from_unix(NOW - ago));
        let before = Connection { address: "172.18.0.9".parse().unwrap(), ..mtls("web", 9000) };
        let connections = [before, plaintext("172.18.0.9", 7200)];
        let names = Names::from_iter([named]);
        let report = Readiness::new(&[answer(sidecar(ledger(&connections)))], &names, &[], &options());
        let client = &report.items[0].clients[0];
        (client.client.clone(), client.what)
    };
    // The container was there when it called, and the sidecar at its address was that of another.
    assert_eq!(since(8000), ("cron-report".to_owned(), What::NoSidecar));
    // It came later: whoever had the address then had a sidecar.
    assert_eq!(since(60), ("web.shop".to_owned(), What::BesideSidecar));
}

#[test]
fn a_documented_exception_is_none_of_the_clients_that_strict_refuses() {
    let report = |expires: i64| {
        let mut it = sidecar(ledger(&[plaintext("10.0.0.5", 60), mtls("web", 60)]));
        for mode in &mut it.ports {
            mode.mode = Mode::Strict;
        }
        let open = &mut it.ports[0];
        open.mode = Mode::Permissive;
        open.decided_by = DecidingPolicy {
            scope: "port".to_owned(),
            owner: Some("shop-team".to_owned()),
            reason: Some("people call it".to_owned()),
            expires: Some("2099-01-01".to_owned()),
            expires_at: Some(Timestamp::from_unix(expires)),
            ..open.decided_by.clone()
        };
        report(&[answer(it)])
    };
    let excepted = report(NOW + 20 * DAY);
    assert_eq!((excepted.items[0].verdict, excepted.status), (PortReadiness::Exception, Status::Ready));
    let text = excepted.render(Form::Table).unwrap();
    assert!(text.contains("1 of 2 ready. 1 exception."), "{text}");
    let told = "cart:8080 PERMISSIVE by shop/default: people call it; shop-team, until 2099-01-01 (20d left); used by 10.0.0.5";
    assert!(text.contains(told), "{text}");
    assert!(!text.contains("Clients that STRICT would refuse"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&excepted.render(Form::Json).unwrap()).unwrap();
    let item = &json["items"][0];
    assert_eq!((&item["verdict"], &item["exception"]["owner"]), (&"EXCEPTION".into(), &"shop-team".into()));
    let over = report(NOW);
    assert_eq!((over.items[0].verdict, over.status), (PortReadiness::NotReady, Status::NotReady));
    let text = over.render(Form::Table).unwrap();
    assert!(text.contains("no exception, since shop/default has passed its end"), "{text}");
}

#[test]
fn an_address_with_two_sidecars_belongs_to_neither() {
    let shared = [mtls("web", 60), mtls("api", 60), plaintext("10.0.0.9", 60)];
    assert_eq!(port(&shared).clients[0].what, What::NoSidecar);
}

#[test]
fn what_is_refused_already_is_apart() {
    let refused = Connection { refused: Some("plaintext_in_strict"), ..plaintext("10.0.0.5", 60) };
    let strict = |connections: &[Connection]| {
        let mut observations = sidecar(ledger(connections));
        for mode in &mut observations.ports {
            mode.mode = Mode::Strict;
        }
        report(&[answer(observations)])
    };
    let before = plaintext("10.0.0.5", DAY);
    let report = strict(&[refused, before, mtls("web", 60)]);
    let port = &report.items[0];
    assert_eq!((port.verdict, report.status), (PortReadiness::Enforced, Status::Ready));
    assert_eq!((port.refused[0].client.as_str(), port.refused[0].connections), ("10.0.0.5", 1));
    assert_eq!(port.refused[0].last.as_ref().unwrap().reason, "plaintext_in_strict");
}

#[test]
fn nothing_seen_is_no_readiness() {
    let idle = port(&[]);
    assert_eq!((idle.verdict, idle.confidence.level), (PortReadiness::NoData, Level::Low));
    assert_eq!(report(&[answer(sidecar(Vec::new()))]).status, Status::TooLittle);
    assert_eq!(report(&[]).status, Status::TooLittle);
}

#[test]
fn too_short_an_observation_is_no_readiness() {
    let young = with(|it| it.observed_seconds = 3600 * 23);
    let report = report(&[young]);
    assert_eq!((report.items[0].verdict, report.status), (PortReadiness::Ready, Status::TooLittle));
    let reasons = &report.items[0].confidence.reasons;
    assert!(reasons.iter().any(|why| why == "observed for 23h of 7d"), "{reasons:?}");
    let options = Options { min_observation: 3600, ..options() };
    let asked_for_less =
        Readiness::new(&[with(|it| it.observed_seconds = 3600 * 23)], &Names::default(), &[], &options);
    assert_eq!(asked_for_less.status, Status::Ready);
}

#[test]
fn each_doubt_has_its_reason() {
    for (answer, level, why) in [
        (with(|it| it.evicted = 3), Level::Low, "3 observations were given up"),
        (with(|it| it.is_persistent = false), Level::Medium, "the ledger is in memory only"),
        (with(|it| it.observed_seconds = 594_000), Level::Medium, "observed for 6d21h of 7d"),
        (with(|it| it.since = Timestamp::from_unix(NOW - 3 * DAY)), Level::Low, "observed for 3d of 7d"),
        (with(|it| it.observations = ledger(&[mtls("web", 60)])), Level::Low, "only 1 connection in the window"),
    ] {
        let confidence = &report(&[answer]).items[0].confidence;
        assert_eq!(confidence.level, level, "{why}");
        assert!(confidence.reasons[0].starts_with(why), "{confidence:?}");
    }
    let missing = report(&[with(|_| ()), silent()]);
    assert_eq!((missing.items[0].verdict, missing.status), (PortReadiness::Ready, Status::Unreachable));
    assert_eq!(missing.items[0].confidence.reasons, ["1 sidecar did not answer"]);
}

#[test]
fn a_known_no_comes_before_a_missing_answer() {
    let plain = answer(sidecar(ledger(&[plaintext("10.0.0.5", 60)])));
    assert_eq!(report(&[plain, silent()]).status, Status::NotReady);
}

#[test]
fn replicas_are_one_workload_and_the_least_strict_mode_counts() {
    let strict = with(|it| {
        for mode in &mut it.ports {
            *mode = PortMode { mode: Mode::Strict, decided_by: DecidingPolicy::default(), ..mode.clone() };
        }
    });
    let report = report(&[strict, with(|_| ())]);
    let [port] = &report.items[..] else { panic!("{:?}", report.items) };
    assert_eq!((port.replicas, port.verdict, port.mtls_connections), (2, PortReadiness::Ready, 366));
    assert_eq!(port.modes.iter().map(|mode| mode.mode).collect::<Vec<_>>(), [Mode::Permissive, Mode::Strict]);
    assert!(port.notes[0].contains("different modes"), "{:?}", port.notes);
}

#[test]
fn other_namespaces_and_workloads_with_a_sidecar_are_left_out() {
    let other = with(|it| it.proxy.namespace = "other".to_owned());
    let options = Options { namespace: Some("shop".to_owned()), ..options() };
    let known = |namespace: &str, name: &str| NoSidecar {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        written: "a.yaml:1".to_owned(),
    };
    let directory = [known("shop", "cart"), known("shop", "legacy"), known("other", "x")];
    let report = Readiness::new(&[with(|_| ()), other], &Names::default(), &directory, &options);
    assert_eq!(report.items.len(), 1);
    assert_eq!(report.without_sidecar, [known("shop", "legacy")]);
}

#[test]
fn a_short_window_is_exact() {
    let connections = [plaintext("10.0.0.5", 601), mtls("web", 60)];
    let of = |seconds: u64| {
        let options = Options { window: Window { seconds }, ..options() };
        let answers = [answer(sidecar(ledger(&connections)))];
        Readiness::new(&answers, &Names::default(), &[], &options).items[0].verdict
    };
    assert_eq!((of(600), of(601)), (PortReadiness::Ready, PortReadiness::NotReady));
}
