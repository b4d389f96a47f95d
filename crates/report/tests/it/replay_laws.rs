//! Laws of `replay`: what it says of observations is true of the connections that they sum up.

use portcullis_api::{Mode as ApiMode, Transport};
use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::Facts;
use portcullis_policy::diff::Client;
use portcullis_policy::{Answer, EffectivePolicy, Evaluation, MeshSettings, Mode, PolicySet};
use portcullis_report::replay::{Change, Replay};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::model::*;
use crate::replay::{replay, set};

const POLICIES: [&str; 14] = [
    "PeerAuthentication|mesh|istio-system|{mtls: {mode: STRICT}}",
    "PeerAuthentication|namespace|shop|{mtls: {mode: PERMISSIVE}}",
    "PeerAuthentication|a-disable|shop|{mtls: {mode: DISABLE}}",
    "PeerAuthentication|app|shop|{selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: PERMISSIVE}}}",
    "PeerAuthentication|app-port|shop|{selector: {matchLabels: {app: cart}}, portLevelMtls: {8080: {mode: STRICT}, 7: {mode: DISABLE}}}",
    "PeerAuthentication|other|shop|{selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}}",
    "AuthorizationPolicy|web|shop|{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}",
    "AuthorizationPolicy|network|shop|{rules: [{from: [{source: {ipBlocks: [10.0.0.0/29]}}], to: [{operation: {ports: [\"8080\"]}}]}]}",
    "AuthorizationPolicy|sni|istio-system|{rules: [{when: [{key: connection.sni, values: [\"a*\"]}]}, {to: [{operation: {ports: [\"9090\"]}}]}]}",
    "AuthorizationPolicy|deny-api|shop|{action: DENY, rules: [{from: [{source: {principals: [\"*/sa/api\"]}}]}]}",
    "AuthorizationPolicy|deny-network|shop|{action: DENY, rules: [{from: [{source: {ipBlocks: [10.0.0.9]}}]}]}",
    "AuthorizationPolicy|deny-not|shop|{action: DENY, rules: [{from: [{source: {notNamespaces: [shop]}}], to: [{operation: {notPorts: [\"8080\"]}}]}]}",
    "AuthorizationPolicy|deny-to|shop|{action: DENY, rules: [{when: [{key: destination.ip, values: [10.0.0.2]}, {key: source.ip, notValues: [\"10.0.0.0/8\"]}]}]}",
    "AuthorizationPolicy|deny-sni|shop|{action: DENY, rules: [{when: [{key: connection.sni, notValues: [a.test]}, {key: source.principal, values: [\"*\"]}]}]}",
];

fn policies() -> impl Strategy<Value = PolicySet> {
    let document = |text: &&str| {
        let [kind, name, namespace, spec] = text.split('|').collect::<Vec<_>>()[..] else { panic!("{text}") };
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    subsequence(POLICIES.to_vec(), 0..=5).prop_map(move |chosen| {
        let documents: Vec<String> = chosen.iter().map(document).collect();
        set(&documents.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

/// A connection as it is, whatever a sidecar sees of it.
#[derive(Clone, Debug)]
struct Made {
    client: Client,
    connection: Connection,
}

fn made() -> impl Strategy<Value = Made> {
    let addresses = || select(vec!["10.0.0.1", "10.0.0.9", "10.9.0.5", "fd00::5"]);
    let dialled = select(vec!["10.0.0.2", "10.0.0.3"]);
    let who = (select(Client::ALL.to_vec()), select(vec!["web", "api"]), select(vec!["shop", "other"]));
    let sni = prop::option::of(select(vec!["a.test", "b.test"]));
    (0..6 * DAY, who, addresses(), dialled, select(vec![8080_u16, 9090, 7]), sni).prop_map(
        |(ago, (client, account, namespace), address, dialled, port, sni)| {
            let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
            let connection = Connection {
                identity: (client == Client::Mtls).then_some(identity),
                dialled: dialled.parse().unwrap(),
                port,
                sni: sni.filter(|_| client != Client::Plaintext).map(str::to_owned),
                ..plaintext(address, ago)
            };
            Made { client, connection }
        },
    )
}

fn effective(set: &PolicySet) -> EffectivePolicy {
    let proxy = sidecar(Vec::new()).proxy;
    EffectivePolicy::evaluate(set, &MeshSettings::default(), &proxy.namespace, &proxy.labels, Evaluation::Enforced)
}

/// Why a set refuses a connection.
fn refusal(policy: &EffectivePolicy, made: &Made) -> Option<&'static str> {
    let Made { client, connection } = made;
    let peer = connection.identity.as_deref().map(|text| SpiffeId::parse(text).unwrap());
    let facts = Facts {
        peer: peer.as_ref(),
        source: connection.address,
        remote: connection.address,
        destination: connection.dialled,
        port: connection.port,
        sni: connection.sni.as_deref(),
    };
    match policy.answer(Some(client.opening()), &facts) {
        Answer::Allow => None,
        Answer::Denied(_) => Some("authorization_denied"),
        Answer::NotAllowed(_) => Some("authorization_not_allowed"),
        Answer::Refuse(_) | Answer::Unauthenticated => Some("plaintext_in_strict"),
        Answer::Unknown => panic!("every opening is known"),
    }
}

/// As a sidecar under a set records it.
fn recorded(policy: &EffectivePolicy, made: &Made) -> Connection {
    let is_blind = policy.mode(made.connection.port).mode == Mode::Disable;
    let transport = match made.client {
        _ if is_blind => Transport::Unknown,
        Client::Mtls => Transport::Mtls,
        Client::Plaintext => Transport::Plaintext,
        Client::Tls => Transport::Tls,
    };
    let mut connection = Connection { transport, refused: refusal(policy, made), ..made.connection.clone() };
    if is_blind {
        (connection.identity, connection.sni) = (None, None);
    }
    connection
}

fn observed(in_force: &PolicySet, all: &[Made]) -> portcullis_report::Answer {
    let policy = effective(in_force);
    let connections: Vec<_> = all.iter().map(|made| recorded(&policy, made)).collect();
    let mut observations = sidecar(ledger(&connections));
    observations.proxy.default_mode = ApiMode::Permissive;
    answer(observations)
}

/// The row about the client of a connection, as it is recorded.
fn changes(report: &Replay, connection: &Connection) -> Vec<Change> {
    let is_of = |row: &&portcullis_report::replay::Row| {
        let is_peer = match &connection.identity {
            Some(identity) => row.identity.as_ref() == Some(identity),
            None => row.identity.is_none() && row.address == Some(connection.address),
        };
        is_peer && row.port == connection.port && row.transport == connection.transport
    };
    report.items.iter().filter(is_of).map(|row| row.change).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_set_in_force_loses_nobody_who_was_let_through((in_force, all) in (policies(), prop::collection::vec(made(), 1..40))) {
        let answers = [observed(&in_force, &all)];
        for report in [replay(&answers, None, &in_force), replay(&answers, Some(&in_force), &in_force)] {
            prop_assert!(report.items.iter().all(|row| row.change == Change::NotDecided), "{:#?}", report.items);
        }
    }

    /// Nobody loses or gains silently, and nobody is said to who does not.
    #[test]
    fn what_is_said_is_true_of_every_connection((in_force, new, all) in (policies(), policies(), prop::collection::vec(made(), 1..40))) {
        let (old_policy, new_policy) = (effective(&in_force), effective(&new));
        let answers = [observed(&in_force, &all)];
        let (report, blind) = (replay(&answers, Some(&in_force), &new), replay(&answers, None, &new));
        for made in &all {
            let connection = recorded(&old_policy, made);
            let (was, now) = (connection.refused.is_none(), refusal(&new_policy, made).is_none());
            let said = changes(&report, &connection);
            match (was, now) {
                (true, false) => {
                    prop_assert!(said.contains(&Change::Loses) || said.contains(&Change::NotDecided), "{:?} {:?}", made, said);
                    prop_assert!(!changes(&blind, &connection).is_empty());
                }
                (false, true) => {
                    prop_assert!(said.contains(&Change::Gains) || said.contains(&Change::NotDecided), "{:?} {:?}", made, said);
                }
                (true, true) => prop_assert!(!said.contains(&Change::Loses), "{:?}", made),
                (false, false) => prop_assert!(!said.contains(&Change::Gains), "{:?}", made),
            }
        }
    }
}
