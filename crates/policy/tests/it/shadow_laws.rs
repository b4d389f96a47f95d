//! What a policy that is not enforced says is what enforcing it would do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{
    AuthorizationAction, AuthorizationPolicy, Condition, Facts, Rule, StringMatch, Values,
};
use portcullis_policy::{
    Action, Answer, Documentation, EffectivePolicy, Evaluation, MeshSettings, Mode, PeerAuthentication, PolicySet,
    decide,
};
use portcullis_wire::Opening;
use proptest::prelude::*;
use time::OffsetDateTime;

const PORT: u16 = 8080;
const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

/// What a client is, whether or not a proxy finds out.
#[derive(Clone, Debug)]
struct Client {
    opening: Opening,
    /// The identity that it proves when it is asked.
    certificate: Option<SpiffeId>,
}

fn client() -> impl Strategy<Value = Client> {
    let id = |name: &str| SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap();
    let certificate = prop::option::of(prop::sample::select(vec![id("a"), id("b")]));
    (prop::sample::select(Opening::ALL.to_vec()), certificate).prop_map(|(opening, certificate)| {
        // Where the whole ClientHello is looked at, this does not occur; and who speaks no TLS proves nothing.
        let opening = if opening == Opening::UnreadTls { Opening::MeshTls } else { opening };
        let speaks_tls = matches!(opening, Opening::MeshTls | Opening::ForeignTls);
        Client { opening, certificate: certificate.filter(|_| speaks_tls) }
    })
}

fn facts(peer: Option<&SpiffeId>) -> Facts<'_> {
    Facts { peer, source: SOURCE, remote: SOURCE, destination: SOURCE, port: PORT, sni: None }
}

/// What the proxy that enforces the policy does with the client, and what it has seen of it by then.
struct Enforced<'c> {
    allowed: bool,
    opening: Option<Opening>,
    peer: Option<&'c SpiffeId>,
}

fn enforce<'c>(policy: &EffectivePolicy, client: &'c Client) -> Enforced<'c> {
    let mode = policy.mode(PORT).mode;
    let authorized = |peer| policy.authorizer().authorize(&facts(peer)).is_allowed();
    if mode == Mode::Disable {
        return Enforced { allowed: authorized(None), opening: None, peer: None };
    }
    let opening = Some(client.opening);
    match decide(mode, client.opening) {
        Action::Terminate => {
            let peer = client.certificate.as_ref();
            Enforced { allowed: peer.is_some() && authorized(peer), opening, peer }
        }
        Action::PassThrough(_) => Enforced { allowed: authorized(None), opening, peer: None },
        Action::Refuse(_) => Enforced { allowed: false, opening, peer: None },
    }
}

fn peer_authentication() -> impl Strategy<Value = PeerAuthentication> {
    let selector = prop::bool::ANY.prop_map(|selects| {
        if selects { BTreeMap::from([("app".to_owned(), "cart".to_owned())]) } else { BTreeMap::new() }
    });
    let mode = prop::option::of(prop::sample::select(Mode::ALL.to_vec()));
    let namespace = prop::sample::select(vec!["shop", "istio-system"]);
    ("[a-c]", namespace, selector, mode, 1_i64..3, prop::bool::ANY).prop_map(
        |(name, namespace, selector, mode, created, dry_run)| PeerAuthentication {
            namespace: namespace.to_owned(),
            name,
            created: Some(OffsetDateTime::from_unix_timestamp(created).unwrap()),
            dry_run,
            documentation: Documentation::default(),
            selector,
            mode,
            ports: BTreeMap::new(),
            file: "p.yaml".to_owned(),
            line: 1,
            column: 1,
        },
    )
}

fn authorization_policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let form = prop::sample::select(vec!["cluster.local/ns/shop/sa/a", "*/b", "*"]).prop_map(StringMatch::new);
    let values = (prop::collection::vec(form.clone(), 0..2), prop::collection::vec(form, 0..2));
    let from = values.prop_map(|(values, not_values)| {
        let values = Values::new(values, not_values);
        if values.is_empty() { Vec::new() } else { vec![vec![Condition::Principal(values)]] }
    });
    let rules = prop::collection::vec(from.prop_map(|from| Rule { from, ..Rule::default() }), 0..3);
    let action = prop::sample::select(AuthorizationAction::ALL.to_vec());
    ("[a-c]", action, rules, prop::bool::ANY).prop_map(|(name, action, rules, dry_run)| AuthorizationPolicy {
        namespace: "shop".to_owned(),
        name,
        created: None,
        selector: BTreeMap::new(),
        action,
        dry_run,
        documentation: Documentation::default(),
        for_targets: false,
        rules,
        file: "a.yaml".to_owned(),
        line: 1,
        column: 1,
    })
}

#[derive(Clone, Debug)]
struct Policies {
    modes: Vec<PeerAuthentication>,
    rules: Vec<AuthorizationPolicy>,
}

fn policies() -> impl Strategy<Value = Policies> {
    let modes = prop::collection::vec(peer_authentication(), 0..5);
    let rules = prop::collection::vec(authorization_policy(), 0..5);
    (modes, rules).prop_map(|(modes, rules)| {
        // Without two of one name, as loading guarantees.
        let modes: BTreeMap<_, _> =
            modes.into_iter().map(|one| ((one.namespace.clone(), one.name.clone()), one)).collect();
        let rules: BTreeMap<_, _> = rules.into_iter().map(|one| (one.name.clone(), one)).collect();
        Policies { modes: modes.into_values().collect(), rules: rules.into_values().collect() }
    })
}

impl Policies {
    fn set(&self) -> PolicySet {
        PolicySet::from_parts(self.modes.iter().cloned(), self.rules.iter().cloned())
    }

    fn evaluate(&self, evaluation: Evaluation) -> EffectivePolicy {
        let labels = BTreeMap::from([("app".to_owned(), "cart".to_owned())]);
        EffectivePolicy::evaluate(&self.set(), &MeshSettings::default(), "shop", &labels, evaluation)
    }

    /// As if the annotation were taken off, and each PeerAuthentication that had it were the oldest of its scope.
    fn with_dry_run_enforced(&self) -> Self {
        let mut all = self.clone();
        for policy in all.modes.iter_mut().filter(|policy| policy.dry_run) {
            policy.dry_run = false;
            let age = policy.created.unwrap().unix_timestamp() - 100;
            policy.created = Some(OffsetDateTime::from_unix_timestamp(age).unwrap());
        }
        all.rules.iter_mut().for_each(|policy| policy.dry_run = false);
        all
    }
}

proptest! {
    #[test]
    fn a_shadow_answers_what_enforcing_it_would_do(live in policies(), shadow in policies(), client in client()) {
        let (live, shadow) = (live.evaluate(Evaluation::Enforced), shadow.evaluate(Evaluation::Enforced));
        let seen = enforce(&live, &client);
        let truth = enforce(&shadow, &client).allowed;
        match shadow.answer(seen.opening, &facts(seen.peer)) {
            Answer::Unknown => prop_assert_eq!(live.mode(PORT).mode, Mode::Disable),
            // The app's own TLS was let through unread: whether its client could prove an identity does not show.
            Answer::Unauthenticated if client.opening == Opening::ForeignTls => {
                prop_assert!(client.certificate.is_some() || !truth);
            }
            Answer::Allow => prop_assert!(truth),
            Answer::Refuse(_) | Answer::Unauthenticated | Answer::Denied(_) | Answer::NotAllowed(_) => prop_assert!(!truth),
        }
    }

    #[test]
    fn the_policy_in_force_answers_what_it_did(live in policies(), client in client()) {
        let live = live.evaluate(Evaluation::Enforced);
        let seen = enforce(&live, &client);
        match live.answer(seen.opening, &facts(seen.peer)) {
            Answer::Unknown => prop_assert!(false, "nothing of its own is unknown to it"),
            answer => prop_assert_eq!(matches!(answer, Answer::Allow), seen.allowed),
        }
    }

    #[test]
    fn a_dry_run_is_what_taking_the_annotation_off_would_be(policies in policies(), client in client()) {
        let dry_run = policies.evaluate(Evaluation::DryRun);
        let enforced = policies.with_dry_run_enforced().evaluate(Evaluation::Enforced);
        prop_assert_eq!(dry_run.mode(PORT).mode, enforced.mode(PORT).mode);
        prop_assert_eq!(enforce(&dry_run, &client).allowed, enforce(&enforced, &client).allowed);
    }

    #[test]
    fn a_dry_run_changes_nothing_that_is_enforced(policies in policies(), client in client()) {
        let mut without = policies.clone();
        without.modes.retain(|policy| !policy.dry_run);
        without.rules.retain(|policy| !policy.dry_run);
        let (with, without) = (policies.evaluate(Evaluation::Enforced), without.evaluate(Evaluation::Enforced));
        prop_assert_eq!(with.mode(PORT).mode, without.mode(PORT).mode);
        prop_assert_eq!(enforce(&with, &client).allowed, enforce(&without, &client).allowed);
    }
}
