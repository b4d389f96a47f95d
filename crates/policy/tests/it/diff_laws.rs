//! What a comparison lists, against the plain answers to many connections.

use std::collections::BTreeMap;

use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{AuthorizationAction, AuthorizationPolicy, Condition, Rule};
use portcullis_policy::diff::{Change, Client, Comparison, Connection, DiffError, PortClass, WorkloadClass};
use portcullis_policy::{
    Answer, Documentation, EffectivePolicy, Evaluation, MeshSettings, Mode, PeerAuthentication, PolicySet, Source,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::authorization_model::{
    Connection as Plain, Labels, NAMESPACES, PORTS, ROOT, connection, labels, mesh, peers, policies, policy,
};

fn config() -> ProptestConfig {
    ProptestConfig { cases: 150, max_shrink_iters: 5000, ..ProptestConfig::default() }
}

fn mode() -> impl Strategy<Value = Option<Mode>> {
    prop::option::of(select(Mode::ALL.to_vec()))
}

fn peer_authentications() -> impl Strategy<Value = Vec<PeerAuthentication>> {
    let ports = prop::collection::btree_map(select(PORTS.to_vec()), mode(), 0..2);
    let one = (select(NAMESPACES.to_vec()), "[a-b]", labels(1), mode(), ports);
    let one = one.prop_map(|(namespace, name, selector, mode, ports)| PeerAuthentication {
        file: format!("{namespace}-{name}.yaml"),
        namespace: namespace.to_owned(),
        name,
        created: None,
        dry_run: false,
        documentation: Documentation::default(),
        ports: if selector.is_empty() { BTreeMap::new() } else { ports },
        selector,
        mode,
        line: 1,
        column: 1,
    });
    prop::collection::vec(one, 0..3).prop_map(|all| {
        let unique: BTreeMap<_, _> = all.into_iter().map(|it| ((it.namespace.clone(), it.name.clone()), it)).collect();
        unique.into_values().collect()
    })
}

#[derive(Clone, Debug)]
struct Policies {
    peer: Vec<PeerAuthentication>,
    authorization: Vec<AuthorizationPolicy>,
}

impl Policies {
    fn set(&self) -> PolicySet {
        PolicySet::from_iter(self.peer.iter().cloned()).with_authorization(self.authorization.iter().cloned())
    }
}

/// Two sets that mostly share their policies, as two versions of a folder do.
fn versions() -> impl Strategy<Value = (Policies, Policies)> {
    let authorization = || (policies(5), prop::option::of(policy()), any::<prop::sample::Index>(), any::<bool>());
    let peer = || (peer_authentications(), peer_authentications(), any::<bool>());
    (authorization(), peer()).prop_map(|((all, more, at, is_removed), (old_peer, new_peer, is_same))| {
        let mut changed = all.clone();
        if is_removed && !changed.is_empty() {
            changed.remove(at.index(changed.len()));
        }
        changed.extend(more.map(|policy| AuthorizationPolicy { name: "new".to_owned(), ..policy }));
        let new_peer = if is_same { old_peer.clone() } else { new_peer };
        (Policies { peer: old_peer, authorization: all }, Policies { peer: new_peer, authorization: changed })
    })
}

fn allows(set: &PolicySet, workload: &WorkloadClass, connection: &Connection) -> bool {
    let policy = EffectivePolicy::evaluate(set, &mesh(), &workload.namespace, &workload.labels, Evaluation::Enforced);
    matches!(policy.answer(Some(connection.client.opening()), &connection.facts()), Answer::Allow)
}

/// Whether a rule that decides compares the server name.
fn names_servers(set: &PolicySet, workload: &WorkloadClass) -> bool {
    let policies = set.authorization_policies().iter();
    let applied =
        policies.filter(|policy| !policy.dry_run && policy.applies_to(ROOT, &workload.namespace, &workload.labels));
    let decides = |policy: &AuthorizationPolicy, rule: &Rule| {
        let is_dropped = rule.conditions().any(|it| matches!(it, Condition::Http(_)));
        match policy.action {
            AuthorizationAction::Deny => true,
            AuthorizationAction::Allow => !is_dropped,
            AuthorizationAction::Audit => false,
        }
    };
    let has_name = |rule: &&Rule| rule.conditions().any(|it| matches!(it, Condition::Sni(_)));
    applied.into_iter().any(|policy| policy.rules.iter().filter(has_name).any(|rule| decides(policy, rule)))
}

fn compare<'p>(old: &'p PolicySet, new: &'p PolicySet, mesh: &'p MeshSettings) -> Comparison<'p> {
    Comparison { old, new, mesh, evaluation: Evaluation::Enforced }
}

/// As the client speaks, with a server name only where there is TLS, and an identity only where there is mTLS.
fn spoken(plain: &Plain, client: Client) -> Option<Connection> {
    // A certificate names a workload, so its ID has a path.
    let peer = plain.peer.clone().filter(|id| client == Client::Mtls && !id.path().is_empty());
    if client == Client::Mtls && peer.is_none() {
        return None;
    }
    let sni = plain.sni.clone().filter(|_| client != Client::Plaintext);
    let Plain { source, remote, destination, port, .. } = *plain;
    let to_canonical = |address: std::net::IpAddr| address.to_canonical();
    Some(Connection {
        client,
        peer,
        source: to_canonical(source),
        remote: to_canonical(remote),
        destination: to_canonical(destination),
        port,
        sni,
    })
}

fn is_listed(changes: &[Change], connection: &Connection) -> usize {
    changes.iter().filter(|change| change.contains(connection)).count()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_connection_is_listed_once_if_its_answer_changes_and_else_not(
        ((old, new), namespace, labels, sampled) in
            (versions(), select(NAMESPACES.to_vec()), labels(2), prop::collection::vec(connection(), 60))
    ) {
        let (old, new, mesh) = (old.set(), new.set(), mesh());
        let changes = compare(&old, &new, &mesh).workload(namespace, &labels).unwrap();
        let workload = WorkloadClass { namespace: namespace.to_owned(), any_other_namespace: false, labels };
        for change in &changes {
            let witness = &change.witness;
            prop_assert!(change.contains(witness), "{change:#?}");
            let answers = (allows(&old, &workload, witness), allows(&new, &workload, witness));
            prop_assert_eq!(answers, (change.was.allow, change.now.allow), "{:#?}", change);
            prop_assert!(change.was.allow != change.now.allow, "{change:#?}");
        }
        let everybody = peers();
        let names_servers = [&old, &new].into_iter().any(|set| names_servers(set, &workload));
        for (n, plain) in sampled.iter().enumerate() {
            for client in Client::ALL {
                // Every peer in turn, so that all are met.
                for peer in everybody.iter().skip(n % 7).step_by(7) {
                    let plain = Plain { peer: Some(peer.clone()), ..plain.clone() };
                    let Some(mut connection) = spoken(&plain, client) else { continue };
                    let is_changed = allows(&old, &workload, &connection) != allows(&new, &workload, &connection);
                    if client == Client::Tls && !names_servers {
                        // It is listed as plaintext.
                        connection = Connection { client: Client::Plaintext, sni: None, ..connection };
                    }
                    prop_assert_eq!(is_listed(&changes, &connection), usize::from(is_changed), "{:?}\n{:#?}", connection, changes);
                    if client != Client::Mtls { break; }
                }
            }
        }
    }

    #[test]
    fn a_set_differs_from_itself_in_nothing(((old, _), seed) in (versions(), any::<u64>())) {
        let mut shuffled = old.clone();
        shuffled.authorization.reverse();
        shuffled.authorization.iter_mut().for_each(|policy| policy.file = format!("{seed}.yaml"));
        let (old, new, mesh) = (old.set(), shuffled.set(), mesh());
        prop_assert_eq!(compare(&old, &new, &mesh).all_workloads().unwrap(), Vec::new());
    }
}

proptest! {
    // Each compares some fifty workloads, twice.
    #![proptest_config(ProptestConfig { cases: 25, ..config() })]

    #[test]
    fn all_workloads_are_what_each_of_them_is_alone(((old, new), namespace, labels) in
        (versions(), select([&NAMESPACES[..], &["elsewhere"]].concat()), labels(2)))
    {
        let (old, new, mesh) = (old.set(), new.set(), mesh());
        let comparison = compare(&old, &new, &mesh);
        let all = comparison.all_workloads().unwrap();
        let alone = comparison.workload(namespace, &labels).unwrap();
        // Some class of workloads has exactly these changes.
        let without_workload = |changes: &[Change]| -> Vec<String> {
            let all = changes.iter().map(|it| format!("{:?}{:?}{:?}{:?}{:?}", it.ports, it.conditions, it.was, it.now, it.witness));
            all.collect()
        };
        let mut by_workload: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in &all {
            by_workload.entry(format!("{:?}", change.workload)).or_default().push(change.clone());
        }
        prop_assert!(alone.is_empty() || by_workload.values().any(|one| without_workload(one) == without_workload(&alone)));
        prop_assert!(comparison.all_workloads().unwrap() == all);
    }
}

fn load(text: &str) -> PolicySet {
    let loaded = PolicySet::load(&[Source { file: "shop.yaml".to_owned(), text: text.as_bytes().to_vec() }]);
    assert_eq!(loaded.errors, []);
    loaded.set
}

fn authorization(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

fn changes(old: &str, new: &str) -> Vec<Change> {
    let (old, new, mesh) = (load(old), load(new), MeshSettings::default());
    compare(&old, &new, &mesh).workload("shop", &Labels::new()).unwrap()
}

fn witnesses(changes: &[Change]) -> Vec<(&str, bool)> {
    changes.iter().map(|it| (it.witness.peer.as_ref().map_or("-", SpiffeId::as_str), it.now.allow)).collect()
}

#[test]
fn witnesses_are_the_shortest_that_there_are() {
    let allow = |principals: &str| {
        authorization("a", &format!("{{rules: [{{from: [{{source: {{principals: [{principals}]}}}}]}}]}}"))
    };
    let base = allow("td/ns/a/sa/x");
    let case = |principals: &str| {
        let changes = changes(&base, &allow(&format!("td/ns/a/sa/x, {principals}")));
        assert_eq!(changes.len(), 1, "{changes:#?}");
        changes[0].witness.peer.as_ref().unwrap().to_string()
    };
    assert_eq!(case("td/ns/b/sa/x"), "spiffe://td/ns/b/sa/x");
    assert_eq!(case("'td/ns/b/*'"), "spiffe://td/ns/b/a");
    // The slash may be that of the scheme.
    assert_eq!(case("'*/sa/x'"), "spiffe://sa/x");
    assert_eq!(case("'*a/sa/x'"), "spiffe://a/sa/x");
    // All of the prefix but the one that was allowed already.
    assert_eq!(case("'td/ns/a/sa/x*'"), "spiffe://td/ns/a/sa/xa");
    assert_eq!(case("'*'"), "spiffe://a/a");
}

/// A prefix that adds nothing to what is there, since no ID has it.
#[test]
fn what_no_connection_can_have_is_no_change() {
    let allow = |principals: &str| {
        authorization("a", &format!("{{rules: [{{from: [{{source: {{principals: [{principals}]}}}}]}}]}}"))
    };
    for impossible in ["TD/ns/a/*", "td//*", "td/ns/a/sa/", "td/./x", "spiffe://td/ns/a/sa/x", "'*/'"] {
        assert_eq!(changes(&allow("x/y"), &allow(&format!("x/y, {impossible}"))), [], "{impossible}");
    }
    // The namespace of a principal implies what the principal says.
    let both = |list: &str| {
        authorization("a", &format!("{{rules: [{{from: [{{source: {{principals: [td/ns/a/sa/x], {list}}}}}]}}]}}"))
    };
    assert_eq!(changes(&allow("td/ns/a/sa/x"), &both("namespaces: [a]")), []);
    assert_eq!(changes(&allow("td/ns/a/sa/x"), &both("notNamespaces: ['b*']")), []);
    assert_eq!(
        witnesses(&changes(&allow("td/ns/a/sa/x"), &both("namespaces: [b]"))),
        [("spiffe://td/ns/a/sa/x", false)]
    );
}

#[test]
fn a_mode_changes_plaintext_only_and_the_first_allow_refuses_the_rest() {
    let mode = |mode: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: m, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let strict = changes(&mode("PERMISSIVE"), &mode("STRICT"));
    assert_eq!(strict.len(), 1, "{strict:#?}");
    assert_eq!(
        (strict[0].client, strict[0].now.reason, &strict[0].ports),
        (Client::Plaintext, "mtls_required", &PortClass::AllBut([].into()))
    );
    let kind = strict[0].now.decided_by.as_ref().map(|by| (by.kind, by.name.as_str(), by.line));
    assert_eq!(kind, Some(("PeerAuthentication", "m", 2)));

    let first =
        authorization("a", "{rules: [{from: [{source: {namespaces: [web]}}], to: [{operation: {ports: ['80']}}]}]}");
    let first = changes("", &first);
    // Port 80: all but namespace web, and plaintext. Other ports: everybody.
    let shown: Vec<_> = first.iter().map(|it| (it.client, it.ports.contains(80), it.conditions.len())).collect();
    let expected = [
        (Client::Mtls, true, 1),
        (Client::Plaintext, true, 0),
        (Client::Mtls, false, 0),
        (Client::Plaintext, false, 0),
    ];
    assert_eq!(shown, expected, "{first:#?}");
}

/// Many policies of one workload, of which one is new: the others cost no classes.
#[test]
fn three_hundred_policies_and_one_more() {
    let one = |n: usize| {
        authorization(
            &format!("p{n}"),
            &format!(
                "{{rules: [{{from: [{{source: {{principals: [td/ns/n{n}/sa/x, 'td/ns/n{n}/sa/y*'], notIpBlocks: [10.0.{}.0/24]}}}}, {{source: {{namespaces: [m{n}]}}}}]}}]}}",
                n % 256
            ),
        )
    };
    let old: String = (0..300).map(one).collect();
    let new = format!("{old}{}", authorization("zz", "{rules: [{from: [{source: {principals: ['td/ns/new/*']}}]}]}"));
    let changes = changes(&old, &new);
    assert!(!changes.is_empty());
    assert!(
        changes.iter().all(|change| change.now.allow
            && change.witness.peer.as_ref().unwrap().as_str().starts_with("spiffe://td/ns/new/")),
        "{:?}",
        witnesses(&changes)
    );
}

#[test]
fn too_many_kinds_of_workloads_are_an_error_that_names_them() {
    let selecting =
        |n: usize| authorization(&format!("p{n}"), &format!("{{selector: {{matchLabels: {{key{n}: x}}}}}}"));
    let all: String = (0..20).map(selecting).collect();
    let (old, new, mesh) =
        (load(""), load(&all), MeshSettings { root_namespace: ROOT.to_owned(), ..MeshSettings::default() });
    let error = compare(&old, &new, &mesh).all_workloads().unwrap_err();
    assert!(matches!(&error, DiffError::TooManyWorkloads { namespace, .. } if namespace == "shop"), "{error}");
    assert!(error.to_string().contains("namespace shop"));
}
