//! Laws of authorization, against the plain evaluation.

use portcullis_policy::authorization::{
    Authorization, AuthorizationAction, AuthorizationPolicy, Condition, Facts, KnownFacts, NamespaceMatch, Rule,
    ServiceAccount, Values,
};
use portcullis_policy::{Cidr, Documentation, Evaluation};
use proptest::prelude::*;

use crate::authorization_model::{
    Connection, Labels, PRINCIPALS, Scene, Verdict, connection, identity_condition, peers, plain, policies, policy,
    rule, scene, strings,
};

/// Many: these laws are what access rests on.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 3000, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

fn shuffled(scene: Scene) -> impl Strategy<Value = (Scene, Scene)> {
    let permuted = Just(scene.policies.clone()).prop_shuffle();
    permuted.prop_map(move |policies| (scene.clone(), Scene { policies, ..scene.clone() }))
}

fn verdict(scene: &Scene, connection: &Connection) -> Verdict {
    scene.authorizer().authorize(&connection.facts()).into()
}

fn one(policy: AuthorizationPolicy) -> Scene {
    Scene {
        namespace: "shop".to_owned(),
        policies: vec![policy],
        labels: Labels::new(),
        evaluation: Evaluation::Enforced,
    }
}

fn of(action: AuthorizationAction, name: &str, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        created: None,
        selector: Labels::new(),
        action,
        dry_run: false,
        documentation: Documentation::default(),
        for_targets: false,
        rules,
        file: "shop.yaml".to_owned(),
        line: 1,
        column: 1,
    }
}

/// Unknown facts leave an answer open only where it depends on them.
#[test]
fn an_unknown_address_matters_only_where_a_rule_would_turn_on_it() {
    let block = Condition::SourceIp(Values::new(vec![Cidr::parse("10.0.0.0/8").unwrap()], Vec::new()));
    let port = |port: u16| Condition::Port(Values::new(vec![port], Vec::new()));
    let rule = |when: Vec<Condition>| Rule { when, line: 7, ..Rule::default() };
    let known = KnownFacts { source: false, remote: false, destination: true, sni: true };
    let connection = anonymous();
    let allow = |name: &str, rules| of(AuthorizationAction::Allow, name, rules);
    let deny = |name: &str, rules| of(AuthorizationAction::Deny, name, rules);
    for (policies, expected) in [
        (vec![allow("a", vec![rule(vec![block.clone()])])], Err(("shop/a".to_owned(), 7, "source.ip"))),
        (vec![allow("a", vec![rule(vec![block.clone()]), rule(vec![port(80)])])], Ok(true)),
        (vec![allow("a", vec![rule(vec![block.clone(), port(81)])])], Ok(false)),
        (vec![deny("d", vec![rule(vec![block.clone()])])], Err(("shop/d".to_owned(), 7, "source.ip"))),
        (vec![deny("d", vec![rule(vec![block.clone()])]), allow("a", vec![rule(vec![port(81)])])], Ok(false)),
        (vec![deny("d", vec![rule(vec![block, port(81)])])], Ok(true)),
    ] {
        let scene = Scene { policies, ..one(allow("unused", Vec::new())) };
        let authorizer = scene.authorizer();
        let answer = authorizer.authorize_known(&connection.facts(), known);
        let answer = answer.map(|decided| decided.is_allowed());
        assert_eq!(answer.map_err(|open| (open.rule.label.to_string(), open.rule.line, open.key)), expected);
    }
}

fn anonymous() -> Connection {
    let address = "192.0.2.1".parse().unwrap();
    Connection { peer: None, source: address, remote: address, destination: address, port: 80, sni: None }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_index_answers_as_the_plain_evaluation((scene, all) in (scene(), prop::collection::vec(connection(), 8))) {
        let authorizer = scene.authorizer();
        for connection in all {
            let facts = connection.facts();
            prop_assert_eq!(Verdict::from(authorizer.authorize(&facts)), plain::authorize(&scene, &facts));
            let audit = authorizer.audit(&facts).map(|by| (by.policy.label(), by.rule));
            prop_assert_eq!(audit, plain::first(&scene, AuthorizationAction::Audit, &facts));
        }
    }

    #[test]
    fn what_is_decided_without_some_facts_holds_whatever_they_are(
        (scene, connection, others, [source, remote, destination, sni]) in
            (scene(), connection(), prop::collection::vec(connection(), 8), any::<[bool; 4]>())
    ) {
        let authorizer = scene.authorizer();
        let known = KnownFacts { source, remote, destination, sni };
        let partial = authorizer.authorize_known(&connection.facts(), known);
        let mut allowed = Vec::new();
        for other in others.into_iter().chain([connection.clone()]) {
            let of = |is_known: bool, ours, theirs| if is_known { ours } else { theirs };
            let completed = Connection {
                source: of(source, connection.source, other.source),
                remote: of(remote, connection.remote, other.remote),
                destination: of(destination, connection.destination, other.destination),
                sni: if sni { connection.sni.clone() } else { other.sni },
                ..connection.clone()
            };
            allowed.push(authorizer.authorize(&completed.facts()).is_allowed());
        }
        match partial {
            Ok(decided) => prop_assert!(allowed.iter().all(|allowed| *allowed == decided.is_allowed()), "{decided:?}"),
            Err(open) => prop_assert!(!open.key.is_empty() && open.rule.policy.action != AuthorizationAction::Audit),
        }
    }

    #[test]
    fn with_every_fact_known_the_answer_is_that_of_the_index((scene, connection) in (scene(), connection())) {
        let authorizer = scene.authorizer();
        let all = KnownFacts { source: true, remote: true, destination: true, sni: true };
        let facts = connection.facts();
        let known = authorizer.authorize_known(&facts, all).map(Verdict::from).map_err(|open| open.key);
        prop_assert_eq!(known, Ok(Verdict::from(authorizer.authorize(&facts))));
    }

    #[test]
    fn the_order_of_policies_does_not_matter((pair, connection) in (scene().prop_flat_map(shuffled), connection())) {
        let (scene, permuted) = pair;
        prop_assert_eq!(verdict(&scene, &connection), verdict(&permuted, &connection));
        prop_assert_eq!(scene.authorizer(), permuted.authorizer());
    }

    #[test]
    fn deny_wins((mut scene, connection) in (scene(), connection())) {
        // The empty rule matches everything; whatever else there is, nothing is let through.
        scene.policies.push(AuthorizationPolicy { namespace: scene.namespace.clone(), ..of(AuthorizationAction::Deny, "zz", vec![Rule::default()]) });
        prop_assert!(matches!(verdict(&scene, &connection), Verdict::Denied(..)));
    }

    #[test]
    fn one_more_deny_gives_nothing((mut scene, more, connection) in (scene(), policy(), connection())) {
        let before = verdict(&scene, &connection);
        let name = "zz".to_owned();
        scene.policies.push(AuthorizationPolicy { action: AuthorizationAction::Deny, name, ..more });
        prop_assert!(before.is_allowed() || !verdict(&scene, &connection).is_allowed());
    }

    #[test]
    fn one_more_allow_takes_nothing_where_there_is_one((mut scene, more, connection) in (scene(), policy(), connection())) {
        scene.policies.push(AuthorizationPolicy { namespace: scene.namespace.clone(), ..of(AuthorizationAction::Allow, "zy", Vec::new()) });
        let before = verdict(&scene, &connection);
        let name = "zz".to_owned();
        scene.policies.push(AuthorizationPolicy { action: AuthorizationAction::Allow, name, ..more });
        prop_assert!(!before.is_allowed() || verdict(&scene, &connection).is_allowed());
    }

    #[test]
    fn audit_decides_nothing((mut scene, more, connection) in (scene(), policy(), connection())) {
        let before = verdict(&scene, &connection);
        let name = "zz".to_owned();
        scene.policies.push(AuthorizationPolicy { action: AuthorizationAction::Audit, name, ..more });
        prop_assert_eq!(before, verdict(&scene, &connection));
    }

    #[test]
    fn no_identity_matches_no_positive_identity_rule((condition, mut rule, connection) in (identity_condition(), rule(), connection())) {
        let has_values = match &condition {
            Condition::Principal(values) | Condition::TrustDomain(values) => !values.values().is_empty(),
            Condition::Namespace(values) => !values.values().is_empty(),
            Condition::ServiceAccount(values) => !values.values().is_empty(),
            _ => false,
        };
        rule.when.push(condition);
        let scene = one(of(AuthorizationAction::Allow, "a", vec![rule]));
        let anonymous = Connection { peer: None, ..connection };
        prop_assert!(!has_values || !verdict(&scene, &anonymous).is_allowed());
    }

    #[test]
    fn what_does_not_apply_changes_nothing((scene, more, connection) in (scene(), policies(4), connection())) {
        let before = verdict(&scene, &connection);
        let elsewhere = more.into_iter().map(|policy| AuthorizationPolicy { namespace: "elsewhere".to_owned(), ..policy });
        let policies = scene.policies.iter().cloned().chain(elsewhere).collect();
        prop_assert_eq!(before, verdict(&Scene { policies, ..scene }, &connection));
    }
}

/// Every pattern about identities, in both forms and under both actions, with every peer and none.
#[test]
fn every_identity_pattern_with_every_peer() {
    let mut conditions: Vec<(bool, Condition)> = Vec::new();
    for form in strings(&PRINCIPALS) {
        conditions.push((true, Condition::Principal(Values::new(vec![form.clone()], Vec::new()))));
        conditions.push((false, Condition::Principal(Values::new(Vec::new(), vec![form]))));
    }
    for form in strings(&["td", "old", "cluster.local", "t*", "*d", "*", "other", "td/*"]) {
        conditions.push((true, Condition::TrustDomain(Values::new(vec![form.clone()], Vec::new()))));
        conditions.push((false, Condition::TrustDomain(Values::new(Vec::new(), vec![form]))));
    }
    for form in ["a", "b", "a*", "*a", "a*b", "*", "a/sa"].map(NamespaceMatch::new) {
        conditions.push((true, Condition::Namespace(Values::new(vec![form.clone()], Vec::new()))));
        conditions.push((false, Condition::Namespace(Values::new(Vec::new(), vec![form]))));
    }
    for (namespace, name) in [("a", "x"), ("b", "x"), ("aab", "x")] {
        let account = ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() };
        conditions.push((true, Condition::ServiceAccount(Values::new(vec![account.clone()], Vec::new()))));
        conditions.push((false, Condition::ServiceAccount(Values::new(Vec::new(), vec![account]))));
    }
    let everybody: Vec<_> = std::iter::once(None).chain(peers().into_iter().map(Some)).collect();
    let mut matched = 0;
    for (is_positive, condition) in conditions {
        for action in [AuthorizationAction::Allow, AuthorizationAction::Deny] {
            let rule = Rule { from: vec![vec![condition.clone()]], line: 1, ..Rule::default() };
            let scene = one(of(action, "a", vec![rule]));
            let authorizer = scene.authorizer();
            for peer in &everybody {
                let connection = Connection { peer: peer.clone(), ..anonymous() };
                let facts = connection.facts();
                let got = Verdict::from(authorizer.authorize(&facts));
                assert_eq!(got, plain::authorize(&scene, &facts), "{condition:?} {peer:?}");
                let matches = matches!(got, Verdict::Allowed(..) | Verdict::Denied(..));
                assert!(peer.is_some() || matches != is_positive, "{condition:?} without an identity");
                matched += usize::from(matches);
            }
        }
    }
    assert!(matched > 1000, "{matched}");
}

/// For each action: no policy, one without rules, one that does not match, one that matches.
#[test]
fn the_whole_table_of_actions() {
    let port = |port| Rule { to: vec![vec![Condition::Port(Values::new(vec![port], Vec::new()))]], ..Rule::default() };
    let choices = |action: AuthorizationAction, name: &str| {
        let with = |rules| vec![of(action, name, rules)];
        [Vec::new(), with(Vec::new()), with(vec![port(1)]), with(vec![port(1), port(80)])]
    };
    for (deny, denying) in choices(AuthorizationAction::Deny, "d").iter().enumerate() {
        for (allow, allowing) in choices(AuthorizationAction::Allow, "a").iter().enumerate() {
            for (audit, auditing) in choices(AuthorizationAction::Audit, "u").iter().enumerate() {
                let policies = [auditing.clone(), allowing.clone(), denying.clone()].concat();
                let scene = Scene {
                    policies,
                    namespace: "shop".to_owned(),
                    labels: Labels::new(),
                    evaluation: Evaluation::Enforced,
                };
                let expected = match (deny, allow) {
                    (3, _) => Verdict::Denied("shop/d".to_owned(), 1),
                    (_, 0) => Verdict::Unrestricted,
                    (_, 3) => Verdict::Allowed("shop/a".to_owned(), 1),
                    _ => Verdict::NotAllowed(vec!["shop/a".to_owned()]),
                };
                assert_eq!(verdict(&scene, &anonymous()), expected, "{deny} {allow} {audit}");
                let authorizer = scene.authorizer();
                let audited = authorizer.audit(&anonymous().facts()).map(|by| by.rule);
                assert_eq!(audited, (audit == 3).then_some(1));
            }
        }
    }
}

/// Where policies are many and the decision is made for each connection, no memory is asked for.
#[test]
fn a_decision_allocates_nothing() {
    let rules = |n: usize| {
        let principal = format!("td/ns/n{}/sa/s{n}", n % 10);
        let prefix = format!("td/ns/p{n}/*");
        let from = vec![Condition::Principal(Values::new(strings(&[&principal, &prefix, "*/sa/suffix"]), Vec::new()))];
        let namespaces = Values::new(vec![NamespaceMatch::new("n*1"), NamespaceMatch::new("exact")], Vec::new());
        let accounts = vec![ServiceAccount { namespace: "a".to_owned(), name: format!("s{n}") }];
        let ranges = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        vec![
            Rule { from: vec![from], line: 1, ..Rule::default() },
            Rule { when: vec![Condition::Namespace(namespaces)], line: 2, ..Rule::default() },
            Rule {
                when: vec![Condition::ServiceAccount(Values::new(accounts, Vec::new()))],
                line: 3,
                ..Rule::default()
            },
            Rule { when: vec![Condition::SourceIp(Values::new(ranges, Vec::new()))], line: 4, ..Rule::default() },
            Rule {
                when: vec![Condition::Sni(Values::new(strings(&["*.test", "b"]), Vec::new()))],
                line: 5,
                ..Rule::default()
            },
            Rule { when: vec![Condition::Port(Values::new(vec![8080], Vec::new()))], line: 6, ..Rule::default() },
        ]
    };
    let actions = [AuthorizationAction::Deny, AuthorizationAction::Allow, AuthorizationAction::Audit];
    let policies = (0..300).map(|n| of(actions[n % 3], &format!("p{n:03}"), rules(n))).collect();
    let scene =
        Scene { policies, namespace: "shop".to_owned(), labels: Labels::new(), evaluation: Evaluation::Enforced };
    let authorizer = scene.authorizer();
    let everybody: Vec<_> = std::iter::once(None).chain(peers().into_iter().map(Some)).collect();
    let mut answers = [0_u32; 4];
    for peer in &everybody {
        for (source, port, sni) in [("10.1.2.3", 8080, Some("a.test")), ("192.0.2.1", 80, None)] {
            let (peer, source, sni) = (peer.clone(), source.parse().unwrap(), sni.map(str::to_owned));
            let connection = Connection { peer, source, port, sni, ..anonymous() };
            let facts: Facts<'_> = connection.facts();
            let mut answer = 0;
            let counted = allocation_counter::measure(|| {
                answer = match authorizer.authorize(&facts) {
                    Authorization::Unrestricted => 0,
                    Authorization::Allowed(_) => 1,
                    Authorization::Denied(_) => 2,
                    Authorization::NotAllowed(_) => 3,
                };
                let _audited = authorizer.audit(&facts);
            });
            assert_eq!(counted.count_total, 0, "{connection:?}");
            answers[answer] += 1;
        }
    }
    assert!(answers[2] > 0 && answers[3] > 0, "{answers:?}");
    // The counter counts.
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}
