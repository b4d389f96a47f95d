//! Laws of `migrate`.

use std::collections::BTreeMap;

use portcullis_api::{DecidingPolicy, Mode as ApiMode, PortMode, Timestamp};
use portcullis_policy::{EffectivePolicy, Evaluation, MeshSettings, Mode, PolicySet, Source};
use portcullis_report::migrate::{Flags, Forced, Migration, Options, Standing, Step};
use portcullis_report::readiness::{Options as ReadinessOptions, Readiness};
use portcullis_report::{Answer, Form, Names, Status, Window};
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::*;

const ROOT: &str = "istio-system";

/// A namespace with one workload.
#[derive(Clone, Debug)]
struct Space {
    name: String,
    /// The mode of its own policy.
    mode: Option<Mode>,
    /// It has a client without mTLS.
    plaintext: bool,
    /// A policy of the workload keeps its port PERMISSIVE.
    exception: bool,
}

#[derive(Clone, Debug)]
struct Mesh {
    mode: Option<Mode>,
    spaces: Vec<Space>,
    silent: bool,
}

fn policy(namespace: &str, name: &str, mode: Mode, selector: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{selector}mtls: {{mode: {mode}}}}}\n"
    )
}

fn load(text: &str) -> PolicySet {
    let loaded = PolicySet::load(&[Source { file: "p.yaml".to_owned(), text: text.as_bytes().to_vec() }]);
    assert!(loaded.errors.is_empty(), "{:?}\n{text}", loaded.errors);
    loaded.set
}

impl Mesh {
    fn set(&self) -> PolicySet {
        let mut texts: Vec<String> = self.mode.iter().map(|mode| policy(ROOT, "default", *mode, "")).collect();
        for space in &self.spaces {
            texts.extend(space.mode.map(|mode| policy(&space.name, "all", mode, "")));
            if space.exception {
                let selector = "selector: {matchLabels: {app: cart}}, ";
                texts.push(policy(&space.name, "cart", Mode::Permissive, selector));
            }
        }
        if texts.is_empty() { PolicySet::default() } else { load(&texts.join("---\n")) }
    }

    /// What its sidecars say while these policies are in force.
    fn answers(&self, set: &PolicySet) -> Vec<Answer> {
        let of = |space: &Space| {
            let mut connections = often(&mtls("web", HOUR));
            if space.plaintext {
                connections.extend(often(&plaintext("10.0.0.9", HOUR)));
            }
            let mut answer = sidecar(ledger(&connections));
            answer.proxy.namespace.clone_from(&space.name);
            let (settings, labels) = (MeshSettings::default(), &answer.proxy.labels);
            let policy = EffectivePolicy::evaluate(set, &settings, &space.name, labels, Evaluation::Enforced);
            let decided = policy.mode(8080);
            let mode = match decided.mode {
                Mode::Strict => ApiMode::Strict,
                Mode::Permissive => ApiMode::Permissive,
                Mode::Disable => ApiMode::Disable,
            };
            let documentation = decided.by.documentation.as_deref().cloned().unwrap_or_default();
            let by = DecidingPolicy {
                scope: decided.by.scope.to_string(),
                owner: documentation.owner,
                reason: documentation.reason,
                expires: documentation.expires.as_ref().map(|it| it.text.clone()),
                expires_at: documentation.expires.and_then(|it| it.unix).map(Timestamp::from_unix),
                ..DecidingPolicy::default()
            };
            answer.ports = vec![PortMode { port: Some(8080), mode, decided_by: by, server_first: false }];
            crate::model::answer(answer)
        };
        let silent = self.silent.then(silent);
        self.spaces.iter().map(of).chain(silent).collect()
    }

    fn migration(&self, set: &PolicySet, forced: Option<&Forced>) -> Migration {
        let options = ReadinessOptions { window: Window { seconds: WEEK }, ..options() };
        let readiness = Readiness::new(&self.answers(set), &Names::default(), &[], &options);
        Migration::new(&Options {
            set,
            mesh: &MeshSettings::default(),
            readiness: &readiness,
            written: &BTreeMap::new(),
            now: Timestamp::from_unix(NOW),
            namespace: None,
            forced,
            flags: Flags::default(),
        })
    }
}

/// How far the mesh and each namespace are: never less afterwards.
fn ranks(mesh: &Mesh, set: &PolicySet) -> Vec<u8> {
    let rank = |namespace: &str| {
        let settings = MeshSettings::default();
        let none = BTreeMap::new();
        match EffectivePolicy::evaluate(set, &settings, namespace, &none, Evaluation::Enforced).workload().mode {
            Mode::Disable => 0,
            Mode::Permissive => 1,
            Mode::Strict => 2,
        }
    };
    std::iter::once(ROOT).chain(mesh.spaces.iter().map(|it| it.name.as_str())).map(rank).collect()
}

fn mode() -> impl Strategy<Value = Option<Mode>> {
    prop::option::of(select(vec![Mode::Permissive, Mode::Permissive, Mode::Disable, Mode::Strict]))
}

fn meshes() -> impl Strategy<Value = Mesh> {
    let space = (mode(), prop::bool::weighted(0.4), prop::bool::weighted(0.2));
    (mode(), prop::collection::vec(space, 0..5), prop::bool::weighted(0.1)).prop_map(|(mode, spaces, silent)| {
        let named =
            |(index, (mode, plaintext, exception))| Space { name: format!("ns{index}"), mode, plaintext, exception };
        Mesh { mode, spaces: spaces.into_iter().enumerate().map(named).collect(), silent }
    })
}

/// Applies what is suggested until nothing is.
fn walk(mesh: &Mesh) -> Vec<(PolicySet, Migration)> {
    let mut set = mesh.set();
    let mut steps = Vec::new();
    for _ in 0..50 {
        let migration = mesh.migration(&set, None);
        let next = migration.next.clone();
        steps.push((set.clone(), migration));
        let Some(next) = next else { return steps };
        set = set.with_applied(&load(&next.yaml()));
    }
    panic!("it does not end: {mesh:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn applying_what_is_next_never_goes_back_and_always_changes_something(mesh in meshes()) {
        let steps = walk(&mesh);
        for pair in steps.windows(2) {
            let (before, after) = (ranks(&mesh, &pair[0].0), ranks(&mesh, &pair[1].0));
            prop_assert!(before.iter().zip(&after).all(|(was, is)| is >= was), "{before:?} {after:?}");
            prop_assert!(before != after);
            prop_assert!(pair[1].1.step >= pair[0].1.step || pair[0].1.step == Step::StrictNamespaces);
        }
    }

    #[test]
    fn a_namespace_with_a_plaintext_client_is_never_suggested(mesh in meshes()) {
        for (set, migration) in walk(&mesh) {
            let Some(next) = migration.next else { continue };
            // Where the switch would refuse a client: not if a policy of the workload holds there.
            let is_blocked = |it: &&Space| it.plaintext && !it.exception;
            if next.mode == Mode::Strict {
                prop_assert!(!mesh.silent, "a silent sidecar may have any client");
                prop_assert!(!mesh.spaces.iter().filter(is_blocked).any(|it| it.name == next.namespace), "{next:?}");
                if next.namespace == ROOT {
                    // The mesh is last: nobody who is seen loses access any more.
                    let left = ranks(&mesh, &set).iter().skip(1).filter(|rank| **rank < 2).count();
                    prop_assert_eq!(left, 0);
                }
            }
        }
    }

    #[test]
    fn without_plaintext_it_takes_as_many_steps_as_there_are_namespaces_and_one(
        names in 1..6_usize
    ) {
        let spaces = (0..names).map(|index| Space { name: format!("ns{index}"), mode: None, plaintext: false, exception: false });
        let mesh = Mesh { mode: Some(Mode::Permissive), spaces: spaces.collect(), silent: false };
        let steps = walk(&mesh);
        prop_assert_eq!(steps.len() - 1, names + 1);
        let (set, last) = steps.last().unwrap();
        prop_assert_eq!((last.step, last.status), (Step::Done, Status::Ready));
        prop_assert!(ranks(&mesh, set).iter().all(|rank| *rank == 2));
        prop_assert_eq!(last.redundant.len(), names, "each namespace says what the mesh says now");
    }

    #[test]
    fn the_status_says_whether_there_is_something_to_do(mesh in meshes()) {
        let migration = mesh.migration(&mesh.set(), None);
        match (&migration.next, migration.step) {
            (Some(_), _) | (None, Step::Done) => prop_assert_eq!(migration.status, Status::Ready),
            // As `readiness` says of the ports that are left.
            (None, Step::UndocumentedExceptions) => {
                let plaintext = mesh.spaces.iter().any(|it| it.exception && it.plaintext);
                prop_assert_eq!(migration.status == Status::Ready, !plaintext);
            }
            (None, _) => prop_assert_ne!(migration.status, Status::Ready),
        }
        for form in Form::ALL {
            prop_assert!(migration.render(form).unwrap().ends_with('\n'));
        }
    }

    #[test]
    fn what_is_forced_is_suggested_and_says_why(mesh in meshes(), index in 0..5_usize) {
        let Some(space) = mesh.spaces.get(index) else { return Ok(()) };
        let forced = Forced { namespace: space.name.clone(), reason: "it's \"off\" #1: soon".to_owned() };
        let migration = mesh.migration(&mesh.set(), Some(&forced));
        let is_done = migration.namespaces.iter().any(|it| it.namespace == space.name && it.standing == Standing::Done);
        if !is_done {
            let next = migration.next.unwrap();
            prop_assert_eq!((&next.namespace, next.mode), (&space.name, Mode::Strict));
            let yaml: serde_yaml::Value = serde_yaml::from_str(&next.yaml()).unwrap();
            prop_assert_eq!(&yaml["metadata"]["annotations"]["portcullis/reason"], &forced.reason);
            load(&next.yaml());
        }
    }
}

#[test]
fn the_root_namespace_is_the_mesh_and_comes_last() {
    let space = |name: &str, plaintext| Space { name: name.to_owned(), mode: None, plaintext, exception: false };
    let mesh = Mesh { mode: None, spaces: vec![space(ROOT, false), space("shop", true)], silent: false };
    let migration = mesh.migration(&mesh.set(), None);
    assert_eq!((migration.next, migration.step), (None, Step::Monitor), "its policy would refuse the shop's client");
    let mesh = Mesh { mode: None, spaces: vec![space(ROOT, true), space("shop", false)], silent: false };
    let steps = walk(&mesh);
    let (_, last) = steps.last().unwrap();
    assert_eq!((steps.len(), last.step, last.status), (2, Step::StrictMesh, Status::NotReady));
}

#[test]
fn a_sidecar_with_other_policies_than_the_folder_makes_it_unknown() {
    let space = Space { name: "shop".to_owned(), mode: Some(Mode::Permissive), plaintext: false, exception: false };
    let mesh = Mesh { mode: None, spaces: vec![space], silent: false };
    let strict = load(&policy("shop", "all", Mode::Strict, ""));
    let readiness = Readiness::new(&mesh.answers(&strict), &Names::default(), &[], &options());
    let migration = Migration::new(&Options {
        set: &mesh.set(),
        mesh: &MeshSettings::default(),
        readiness: &readiness,
        written: &BTreeMap::new(),
        now: Timestamp::from_unix(NOW),
        namespace: None,
        forced: None,
        flags: Flags::default(),
    });
    assert_eq!((migration.namespaces[0].standing, migration.next), (Standing::Unknown, None));
}

#[test]
fn an_exception_is_done_with_once_it_has_an_owner_a_reason_and_an_end() {
    let documented = |annotations: &str| {
        let text = format!(
            "{}---\n{}",
            policy(ROOT, "default", Mode::Strict, ""),
            policy("shop", "cart", Mode::Permissive, "selector: {matchLabels: {app: cart}}, ")
                .replace("namespace: shop", &format!("namespace: shop, annotations: {annotations}"))
        );
        let set = load(&text);
        let space = Space { name: "shop".to_owned(), mode: None, plaintext: true, exception: true };
        Mesh { mode: None, spaces: vec![space], silent: false }.migration(&set, None)
    };
    let done = documented("{owner: shop-team, reason: people call it, expires: \"2099-01-01\"}");
    assert_eq!((done.step, done.status), (Step::Done, Status::Ready));
    assert_eq!(done.outlook(), "Nothing is left to do, but for 1 documented exception.");
    assert!(done.namespaces[0].exceptions[0].contains("shop-team, until 2099-01-01"), "{:?}", done.namespaces);
    for lacking in ["{}", "{owner: shop-team, reason: r}", "{owner: o, reason: r, expires: \"2020-01-01\"}"] {
        let open = documented(lacking);
        assert_eq!((open.step, open.status), (Step::UndocumentedExceptions, Status::NotReady), "{lacking}");
        assert_eq!(open.namespaces[0].undocumented.len(), 1);
    }
}

#[test]
fn the_next_command_has_the_flags_of_this_one() {
    let space = Space { name: "shop".to_owned(), mode: Some(Mode::Permissive), plaintext: false, exception: false };
    let mesh = Mesh { mode: None, spaces: vec![space], silent: false };
    let set = mesh.set();
    let readiness = Readiness::new(&mesh.answers(&set), &Names::default(), &[], &options());
    let flags = Flags { folder: " -c cart.yaml", observed: " --window 14d", proxies: " --docker" };
    let migration = Migration::new(&Options {
        set: &set,
        mesh: &MeshSettings::default(),
        readiness: &readiness,
        written: &BTreeMap::new(),
        now: Timestamp::from_unix(NOW),
        namespace: None,
        forced: None,
        flags,
    });
    let command = "portcullis migrate next -c cart.yaml --window 14d --docker | \
                   portcullis apply -f - -c cart.yaml --guard 10m --docker";
    assert!(migration.outlook().ends_with(&format!("`{command}`")), "{}", migration.outlook());
}
