//! Laws of resolution and decision, against a model that is written from the rules again, naively.

use std::collections::BTreeMap;

use portcullis_policy::{
    Action, Documentation, EffectivePolicy, Explanation, MeshSettings, Mode, PassThroughReason, PeerAuthentication,
    PolicySet, Refusal, Scope, admit, decide, explain,
};
use portcullis_wire::Opening;
use proptest::prelude::*;
use time::OffsetDateTime;

type Labels = BTreeMap<String, String>;

/// Few names on purpose: policies shall meet.
const NAMESPACES: [&str; 3] = ["istio-system", "shop", "billing"];
const ROOT: &str = "istio-system";
const PORTS: [u16; 4] = [80, 8080, 8443, 9999];

fn labels(max: usize) -> impl Strategy<Value = Labels> {
    let pair = (prop::sample::select(vec!["app", "tier"]), prop::sample::select(vec!["cart", "back", ""]));
    prop::collection::btree_map(pair.0.prop_map(String::from), pair.1.prop_map(String::from), 0..=max)
}

/// `None` is UNSET.
fn mode() -> impl Strategy<Value = Option<Mode>> {
    prop::option::of(prop::sample::select(Mode::ALL.to_vec()))
}

fn policy() -> impl Strategy<Value = PeerAuthentication> {
    let ports = prop::collection::btree_map(prop::sample::select(PORTS.to_vec()), mode(), 0..3);
    let namespace = prop::sample::select(NAMESPACES.to_vec());
    let created = prop::option::of(0_i64..3);
    (namespace, "[a-c]{1,2}", created, labels(2), mode(), ports).prop_map(
        |(namespace, name, created, selector, mode, ports)| {
            // As validation has it: ports belong to policies with a selector.
            let ports = if selector.is_empty() { BTreeMap::new() } else { ports };
            let created = created.map(|at| OffsetDateTime::from_unix_timestamp(at).expect("time"));
            let file = format!("{namespace}-{name}.yaml");
            let namespace = namespace.to_owned();
            let dry_run = false;
            PeerAuthentication {
                namespace,
                name,
                created,
                dry_run,
                documentation: Documentation::default(),
                selector,
                mode,
                ports,
                file,
                line: 1,
                column: 1,
            }
        },
    )
}

/// Policies without two of one name, as loading guarantees.
fn policies() -> impl Strategy<Value = Vec<PeerAuthentication>> {
    prop::collection::vec(policy(), 0..12).prop_map(|all| {
        let unique: BTreeMap<_, _> =
            all.into_iter().map(|policy| ((policy.namespace.clone(), policy.name.clone()), policy)).collect();
        unique.into_values().collect()
    })
}

#[derive(Clone, Debug)]
struct World {
    policies: Vec<PeerAuthentication>,
    mesh: MeshSettings,
    namespace: String,
    labels: Labels,
}

impl World {
    fn set(&self) -> PolicySet {
        self.policies.iter().cloned().collect()
    }

    fn resolve(&self) -> EffectivePolicy {
        EffectivePolicy::resolve(&self.set(), &self.mesh, &self.namespace, &self.labels)
    }

    fn explain(&self, port: u16) -> Explanation {
        explain(&self.set(), &self.mesh, &self.namespace, &self.labels, port)
    }

    fn modes(&self) -> [Mode; PORTS.len()] {
        let effective = self.resolve();
        PORTS.map(|port| effective.mode(port).mode)
    }
}

fn world() -> impl Strategy<Value = World> {
    let default_mode = prop::sample::select(Mode::ALL.to_vec());
    let namespace = prop::sample::select(NAMESPACES.to_vec());
    (policies(), default_mode, namespace, labels(2)).prop_map(|(policies, default_mode, namespace, labels)| World {
        policies,
        mesh: MeshSettings { root_namespace: ROOT.to_owned(), default_mode, ..MeshSettings::default() },
        namespace: namespace.to_owned(),
        labels,
    })
}

/// The rules of precedence, one after the other, with sorting where the product compares once.
mod model {
    use super::{Labels, Mode, PeerAuthentication, World};

    fn pick(mut candidates: Vec<&PeerAuthentication>) -> Option<&PeerAuthentication> {
        candidates.sort_by_key(|policy| &policy.name);
        candidates.sort_by_key(|policy| policy.created.map_or(i64::MIN, |at| at.unix_timestamp()));
        candidates.first().copied()
    }

    fn subset(selector: &Labels, labels: &Labels) -> bool {
        selector.iter().all(|pair| labels.iter().any(|other| pair == other))
    }

    pub(crate) fn mode(world: &World, port: u16) -> Mode {
        let root = &world.mesh.root_namespace;
        let here = |policy: &&PeerAuthentication| policy.namespace == world.namespace && policy.namespace != *root;
        let all = || world.policies.iter();
        let mesh = pick(all().filter(|p| p.namespace == *root && p.selector.is_empty()).collect());
        let namespace = pick(all().filter(here).filter(|p| p.selector.is_empty()).collect());
        let selecting = all().filter(here).filter(|p| !p.selector.is_empty());
        let workload = pick(selecting.filter(|p| subset(&p.selector, &world.labels)).collect());

        let from_mesh = mesh.and_then(|policy| policy.mode).unwrap_or(world.mesh.default_mode);
        let from_namespace = namespace.and_then(|policy| policy.mode).unwrap_or(from_mesh);
        let resolved = workload.and_then(|policy| policy.mode).unwrap_or(from_namespace);
        match workload.and_then(|policy| policy.ports.get(&port)) {
            Some(Some(mode)) => *mode,
            Some(None) | None => resolved,
        }
    }
}

fn opening() -> impl Strategy<Value = Opening> {
    prop::sample::select(Opening::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_500) })]

    #[test]
    fn resolution_is_that_of_the_model(world in world()) {
        prop_assert_eq!(world.modes(), PORTS.map(|port| model::mode(&world, port)));
    }

    #[test]
    fn the_order_of_documents_does_not_matter(world in world(), seed in any::<u64>()) {
        let before = world.resolve();
        let mut shuffled = world;
        shuffled.policies.sort_by_key(|policy| {
            let bytes = policy.name.bytes().chain(policy.namespace.bytes());
            bytes.fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        });
        prop_assert_eq!(shuffled.resolve(), before.clone());
        shuffled.policies.reverse();
        prop_assert_eq!(shuffled.resolve(), before);
    }

    #[test]
    fn an_unset_port_inherits_what_unlisted_ports_have(world in world()) {
        let effective = world.resolve();
        let winner = world.explain(80).ladder.into_iter().find(|rung| rung.by.scope == Scope::Workload);
        let Some(winner) = winner else {
            prop_assert_eq!(effective.ports().count(), 0);
            return Ok(());
        };
        let written = world.policies.iter().find(|p| Some(&p.name) == winner.by.name.as_ref()
            && Some(&p.namespace) == winner.by.namespace.as_ref()).expect("winner");
        for (port, mode) in &written.ports {
            let decided = effective.mode(*port);
            match mode {
                Some(mode) => prop_assert_eq!((decided.mode, decided.by.scope), (*mode, Scope::Port)),
                None => prop_assert_eq!(decided, effective.workload()),
            }
        }
    }

    /// Taking the mode out of everything in a scope gives what the next wider scope has.
    #[test]
    fn unset_inherits_from_scope_to_scope(world in world()) {
        let mut world = world;
        let root = world.mesh.root_namespace.clone();
        let of = |world: &World| world.resolve().workload().mode;

        let (mut without_workload, mut unset_workload) = (world.clone(), world.clone());
        without_workload.policies.retain(|p| p.selector.is_empty());
        for policy in unset_workload.policies.iter_mut().filter(|p| !p.selector.is_empty()) {
            policy.mode = None;
        }
        prop_assert_eq!(of(&unset_workload), of(&without_workload));

        world = without_workload;
        let (mut without_namespace, mut unset_namespace) = (world.clone(), world.clone());
        without_namespace.policies.retain(|p| p.namespace == root);
        for policy in unset_namespace.policies.iter_mut().filter(|p| p.namespace != root) {
            policy.mode = None;
        }
        prop_assert_eq!(of(&unset_namespace), of(&without_namespace));

        let mut unset_mesh = without_namespace;
        for policy in &mut unset_mesh.policies {
            policy.mode = None;
        }
        prop_assert_eq!(of(&unset_mesh), unset_mesh.mesh.default_mode);
        prop_assert_eq!(unset_mesh.resolve().workload().by.scope, Scope::Default);
    }

    #[test]
    fn nothing_defined_is_the_default(mut world in world()) {
        world.policies.clear();
        prop_assert_eq!(world.modes(), [world.mesh.default_mode; PORTS.len()]);
        prop_assert_eq!(MeshSettings::default().default_mode, Mode::Permissive);
    }

    #[test]
    fn only_policies_with_a_selector_set_ports(mut world in world()) {
        for policy in world.policies.iter_mut().filter(|policy| policy.selector.is_empty()) {
            // Validation refuses this; should it get here all the same, it has no effect.
            policy.ports.insert(8080, Some(Mode::Disable));
        }
        for port in PORTS {
            let decided = world.resolve().mode(port).clone();
            if decided.by.scope == Scope::Port {
                let by = world.policies.iter().find(|p| Some(&p.name) == decided.by.name.as_ref()
                    && Some(&p.namespace) == decided.by.namespace.as_ref()).expect("policy");
                prop_assert!(!by.selector.is_empty() && by.namespace != ROOT);
            }
            prop_assert_eq!(decided.mode, model::mode(&world, port));
        }
    }

    #[test]
    fn an_unrelated_policy_changes_nothing(world in world(), stranger in policy(), position in any::<prop::sample::Index>()) {
        let before = world.resolve();
        let elsewhere = PeerAuthentication { namespace: "elsewhere".to_owned(), ..stranger.clone() };
        let with_selector = Labels::from([("app".to_owned(), "no-such-app".to_owned())]);
        let mismatch = PeerAuthentication {
            namespace: world.namespace.clone(), name: "stranger".to_owned(), selector: with_selector, ..stranger.clone()
        };
        let in_root = PeerAuthentication {
            namespace: ROOT.to_owned(), name: "stranger".to_owned(), selector: world.labels.clone(), ..stranger
        };
        for unrelated in [elsewhere, mismatch, in_root] {
            // Without labels it would be a mesh policy, and related.
            if unrelated.namespace == ROOT && unrelated.selector.is_empty() {
                continue;
            }
            let mut larger = world.clone();
            larger.policies.insert(position.index(larger.policies.len() + 1), unrelated);
            prop_assert_eq!(&larger.resolve(), &before);
        }
    }

    /// The losers of a scope say nothing, so taking them away changes nothing; and every policy is accounted for once.
    #[test]
    fn the_explanation_is_the_resolution(world in world()) {
        for port in PORTS {
            let explained = world.explain(port);
            let effective = world.resolve();
            prop_assert_eq!((explained.mode, &explained.decided_by), (effective.mode(port).mode, &effective.mode(port).by));

            let scopes: Vec<_> = explained.ladder.iter().map(|rung| rung.by.scope).collect();
            prop_assert!(scopes.is_sorted() && !scopes.contains(&Scope::Default), "{:?}", scopes);
            let applied: Vec<_> = explained.ladder.iter().filter(|rung| rung.applied).collect();
            match explained.decided_by.scope {
                Scope::Default => prop_assert!(applied.is_empty()),
                _ => {
                    prop_assert_eq!(applied.len(), 1);
                    prop_assert_eq!((&applied[0].by, applied[0].mode), (&explained.decided_by, explained.mode.as_str()));
                }
            }

            let policies = explained.ladder.iter().filter(|rung| rung.by.scope != Scope::Port).count();
            prop_assert_eq!(policies + explained.ignored.len(), world.policies.len());

            let mut winners = world.clone();
            winners.policies.retain(|policy| explained.ladder.iter().any(|rung| {
                rung.by.name.as_ref() == Some(&policy.name) && rung.by.namespace.as_ref() == Some(&policy.namespace)
            }));
            prop_assert_eq!(winners.resolve(), effective);
        }
    }

    /// A warning names a policy that has no effect: without it everything is the same.
    #[test]
    fn who_is_warned_about_has_no_effect(world in world()) {
        let before = world.resolve();
        for warning in world.set().warnings_for(&world.mesh, &world.namespace, &world.labels) {
            let mut smaller = world.clone();
            smaller.policies.retain(|policy| policy.file != warning.file);
            prop_assert_eq!(smaller.policies.len() + 1, world.policies.len());
            prop_assert_eq!(&smaller.resolve(), &before);
        }
    }

    #[test]
    fn strict_never_passes_through(opening in opening()) {
        prop_assert!(!matches!(decide(Mode::Strict, opening), Action::PassThrough(_)));
    }

    #[test]
    fn strict_terminates_whatever_may_be_tls_and_nothing_else(opening in opening()) {
        let tls = !matches!(opening, Opening::Plain | Opening::Silent);
        prop_assert_eq!(decide(Mode::Strict, opening) == Action::Terminate, tls);
    }

    #[test]
    fn disable_never_inspects(opening in opening()) {
        prop_assert_eq!(decide(Mode::Disable, opening), Action::PassThrough(PassThroughReason::Disabled));
    }

    #[test]
    fn permissive_terminates_mesh_tls_only(opening in opening()) {
        let action = decide(Mode::Permissive, opening);
        prop_assert_eq!(action == Action::Terminate, opening == Opening::MeshTls);
        // What was not read to the end is never forwarded: its protocol is unknown.
        let readable = matches!(opening, Opening::Plain | Opening::ForeignTls);
        prop_assert_eq!(matches!(action, Action::PassThrough(_)), readable);
    }

    #[test]
    fn the_reason_is_that_of_the_opening(mode in prop::sample::select(Mode::ALL.to_vec()), opening in opening()) {
        match decide(mode, opening) {
            Action::Refuse(Refusal::SilentClient) => prop_assert_eq!(opening, Opening::Silent),
            Action::Refuse(Refusal::PlaintextInStrict) => {
                prop_assert_eq!((mode, opening), (Mode::Strict, Opening::Plain));
            }
            Action::Refuse(Refusal::MalformedHello) => prop_assert_eq!(opening, Opening::Malformed),
            Action::Refuse(Refusal::IncompleteHello) => {
                prop_assert!(matches!(opening, Opening::Incomplete | Opening::UnreadTls));
            }
            Action::PassThrough(PassThroughReason::Plaintext) => prop_assert_eq!(opening, Opening::Plain),
            Action::PassThrough(PassThroughReason::ForeignTls) => prop_assert_eq!(opening, Opening::ForeignTls),
            Action::PassThrough(PassThroughReason::Disabled) => prop_assert_eq!(mode, Mode::Disable),
            Action::PassThrough(PassThroughReason::ServerFirst) => prop_assert!(false, "no bytes decide that"),
            Action::Terminate => prop_assert!(mode != Mode::Disable),
        }
    }

    /// A connection that a mode admitted may stay open under that mode; STRICT keeps only verified peers.
    #[test]
    fn an_admitted_connection_may_stay_open(mode in prop::sample::select(Mode::ALL.to_vec()), opening in opening()) {
        let authenticated = match decide(mode, opening) {
            Action::Terminate => true,
            Action::PassThrough(_) => false,
            Action::Refuse(_) => return Ok(()),
        };
        prop_assert!(admit(mode, authenticated));
        prop_assert_eq!(admit(Mode::Strict, authenticated), authenticated);
    }
}
