//! What may enter and leave the set.

use portcullis_policy::PolicySet;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

fn watch() -> WatchId {
    WatchId { kind: ResourceKind::PeerAuthentication, namespace: "shop".to_owned() }
}

fn name(name: &str) -> Name {
    Name { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn document(name: &str, mode: &str) -> String {
    format!(
        r#"{{"apiVersion":"security.istio.io/v1","kind":"PeerAuthentication","metadata":{{"name":"{name}","namespace":"shop"}},"spec":{{"mtls":{{"mode":"{mode}"}}}}}}"#
    )
}

fn in_force(objects: &Objects) -> Vec<String> {
    let sources = objects.sources();
    let loaded = PolicySet::assemble(sources.iter().map(|source| &**source));
    assert_eq!(loaded.errors, vec![]);
    loaded.set.policies().iter().map(|policy| format!("{}={}", policy.name, policy.mode.unwrap())).collect()
}

#[test]
fn a_bad_version_of_an_object_keeps_its_last_good_one() {
    let (mut objects, watch) = (Objects::default(), watch());
    assert!(objects.apply(&watch, name("a"), document("a", "STRICT")));
    assert!(objects.apply(&watch, name("a"), document("a", "STRIC")));
    assert_eq!(in_force(&objects), ["a=STRICT"]);
    assert!(objects.problems()[0].contains("kubernetes:PeerAuthentication/shop/a"), "{:?}", objects.problems());
    assert!(!objects.has_unknown());
    assert!(!objects.apply(&watch, name("a"), document("a", "STRIC")), "the same is not reported again");
    assert!(objects.apply(&watch, name("a"), document("a", "STRICT")), "the good one is back");
    assert_eq!(objects.problems(), Vec::<String>::new());
    assert!(objects.apply(&watch, name("b"), document("b", "STRIC")));
    assert!(objects.has_unknown() && in_force(&objects) == ["a=STRICT"]);
    assert!(objects.delete(&watch, &name("b")) && !objects.has_unknown());
}

#[test]
fn a_list_removes_only_when_it_is_complete() {
    let (mut objects, watch) = (Objects::default(), watch());
    for one in ["a", "b"] {
        objects.apply(&watch, name(one), document(one, "STRICT"));
    }
    objects.begin_list(&watch);
    assert!(!objects.listed(&watch, name("b"), document("b", "STRICT")), "nothing new");
    assert_eq!(in_force(&objects), ["a=STRICT", "b=STRICT"]);
    // It breaks off, and begins again.
    objects.begin_list(&watch);
    assert_eq!(in_force(&objects), ["a=STRICT", "b=STRICT"]);
    objects.listed(&watch, name("b"), document("b", "STRICT"));
    assert!(objects.end_list(&watch));
    assert_eq!(in_force(&objects), ["b=STRICT"]);
    assert!(!objects.end_list(&watch), "no list has begun");
}

#[test]
fn a_document_that_is_not_what_its_name_says_is_refused() {
    let (mut objects, watch) = (Objects::default(), watch());
    objects.apply(&watch, name("a"), document("b", "STRICT"));
    objects.apply(
        &watch,
        name("c"),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"shop"}}"#.to_owned(),
    );
    let two = format!(
        r#"{{"apiVersion":"v1","kind":"List","items":[{},{}]}}"#,
        document("d", "STRICT"),
        document("e", "STRICT")
    );
    objects.apply(&watch, name("d"), two);
    assert_eq!(objects.problems().len(), 3, "{:?}", objects.problems());
    assert_eq!(objects.count(), 0);
}

#[test]
fn what_is_kept_is_restored_and_nothing_else() {
    let (mut objects, watch) = (Objects::default(), watch());
    objects.apply(&watch, name("a"), document("a", "STRICT"));
    objects.apply(&watch, name("a"), document("a", "STRIC"));
    let kept = objects.keep();
    let restored = Objects::restore(std::slice::from_ref(&watch), kept.clone()).unwrap();
    assert_eq!(in_force(&restored), ["a=STRICT"]);
    let other = WatchId { namespace: "other".to_owned(), ..watch.clone() };
    assert!(Objects::restore(&[other], kept.clone()).is_err());
    let broken: Vec<_> =
        kept.into_iter().map(|one| Kept { document: one.document.replace("STRICT", "X"), ..one }).collect();
    assert!(Objects::restore(&[watch], broken).is_err());
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]
    /// Whatever comes in whatever order: what is in force of each object is the last good document since it was last gone.
    #[test]
    fn the_last_good_document_is_in_force(
        events in prop::collection::vec((0_usize..4, prop::sample::select(vec!["STRICT", "PERMISSIVE", "BAD", "gone"])), 0..60)
    ) {
        let (mut objects, watch) = (Objects::default(), watch());
        let mut expected = BTreeMap::new();
        for (index, what) in events {
            let id = ["a", "b", "c", "d"][index];
            match what {
                "gone" => {
                    objects.delete(&watch, &name(id));
                    expected.remove(id);
                }
                mode => {
                    objects.apply(&watch, name(id), document(id, mode));
                    if mode != "BAD" {
                        expected.insert(id, mode);
                    }
                }
            }
        }
        let expected: Vec<_> = expected.iter().map(|(name, mode)| format!("{name}={mode}")).collect();
        prop_assert_eq!(in_force(&objects), expected);
    }
}
