use proptest::prelude::*;

use super::*;
use crate::kind::ResourceKind;

fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}

fn policy(namespace: &str, name: &str, mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {name}\n  namespace: {namespace}\n\
         spec:\n  mtls: {{mode: {mode}}}\n"
    )
}

/// The folder after the plan.
fn after(files: &[TextFile], plan: &Plan) -> Vec<TextFile> {
    let mut all: BTreeMap<String, String> = files.iter().map(|file| (file.path.clone(), file.text.clone())).collect();
    for (path, change) in &plan.files {
        assert_eq!(all.remove(path), change.before, "{path}");
        all.extend(change.after.clone().map(|text| (path.clone(), text)));
    }
    all.into_iter().map(|(path, text)| TextFile { path, text }).collect()
}

fn actions(plan: &Plan) -> Vec<Action> {
    plan.effects.iter().map(|effect| effect.action).collect()
}

#[test]
fn a_new_resource_gets_a_file_of_its_own_with_its_comments() {
    let text = format!("# owner: team a\n{}", policy("shop", "a.b", "STRICT"));
    let plan = apply("p", &[], &read(&text), &Prune::No).unwrap();
    assert_eq!(actions(&plan), [Action::Created]);
    assert_eq!(plan.files["p/shop.peerauthentication.a.b.yaml"].after.as_deref(), Some(text.as_str()));
    let taken = [file("p/shop.peerauthentication.a.b.yaml", "# mine\n")];
    assert!(matches!(apply("p", &taken, &read(&text), &Prune::No), Err(PlanError::Taken { .. })));
    let twice = format!("{text}---\n{text}");
    assert!(matches!(apply("p", &[], &read(&twice), &Prune::No), Err(PlanError::Twice { .. })));
}

#[test]
fn what_is_the_same_but_for_its_form_is_unchanged() {
    let files = [file("p/a.yaml", &policy("shop", "a", "STRICT"))];
    let json = r#"{"kind": "PeerAuthentication", "apiVersion": "security.istio.io/v1", "spec": {"mtls": {"mode": "STRICT"}},
                   "metadata": {"namespace": "shop", "name": "a"}}"#;
    let plan = apply("p", &files, &read(json), &Prune::No).unwrap();
    assert_eq!((actions(&plan), plan.files.len()), (vec![Action::Unchanged], 0));
}

#[test]
fn items_of_lists_can_be_applied_and_not_changed_in_place() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1\n  kind: PeerAuthentication\n  \
                metadata: {name: a, namespace: shop}\n  spec: {mtls: {mode: STRICT}}\n";
    let plan = apply("p", &[], &read(list), &Prune::No).unwrap();
    let made = plan.files["p/shop.peerauthentication.a.yaml"].after.clone().unwrap();
    assert_eq!(read(&made)[0].value, read(list)[0].value);
    let files = [file("p/list.yaml", list)];
    let changed = read(&policy("shop", "a", "DISABLE"));
    let error = apply("p", &files, &changed, &Prune::No).unwrap_err().to_string();
    assert!(error.contains("is an item of a list (p/list.yaml:4)"), "{error}");
}

#[test]
fn pruning_stays_in_its_namespaces_and_deleting_names_what_is_missing() {
    let files = [
        file("p/two.yaml", &format!("{}---\n# b\n{}", policy("shop", "a", "STRICT"), policy("shop", "b", "STRICT"))),
        file("p/other.yaml", &policy("pay", "a", "STRICT")),
    ];
    let shop = Prune::Namespaces(Some(BTreeSet::from(["shop".to_owned()])));
    let plan = apply("p", &files, &read(&policy("shop", "a", "STRICT")), &shop).unwrap();
    assert_eq!(actions(&plan), [Action::Unchanged, Action::Pruned]);
    assert_eq!(plan.files["p/two.yaml"].after.as_deref(), Some(policy("shop", "a", "STRICT").as_str()));
    let id =
        |name: &str| Id { kind: ResourceKind::PeerAuthentication, namespace: "pay".to_owned(), name: name.to_owned() };
    let plan = delete("p", &files, &[id("a")]).unwrap();
    assert_eq!(plan.files["p/other.yaml"].after, None);
    assert_eq!(
        delete("p", &files, &[id("x")]).unwrap_err().to_string(),
        "peerauthentications.security.istio.io \"x\" not found"
    );
}

/// Documents that a person may have written, with comments around them.
fn any_file() -> impl Strategy<Value = String> {
    let comment = prop_oneof![Just(""), Just("# a comment\n"), Just("\n# two\n\n"), Just("# ---\n")];
    let names = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..4);
    let mode = prop_oneof![Just("STRICT"), Just("PERMISSIVE"), Just("DISABLE")];
    let documents = names.prop_flat_map(move |names| {
        let count = names.len();
        (Just(names), prop::collection::vec((mode.clone(), comment.clone(), comment.clone()), count))
    });
    documents.prop_map(|(names, parts)| {
        let document = |(name, (mode, before, behind)): (&str, (&str, &str, &str))| {
            format!("{before}{}{behind}", policy("shop", name, mode))
        };
        names.into_iter().zip(parts).map(document).collect::<Vec<_>>().join("---\n")
    })
}

proptest! {
    #[test]
    fn what_was_applied_is_what_is_there_and_nothing_else_changes(folder in any_file(), input in any_file()) {
        let files = [file("p/all.yaml", &folder)];
        let wanted = read(&input);
        let plan = apply("p", &files, &wanted, &Prune::No).unwrap();
        let changed = after(&files, &plan);
        let there: BTreeMap<Id, Value> =
            changed.iter().flat_map(|file| read(&file.text)).map(|object| (object.id, object.value)).collect();
        for object in &wanted {
            prop_assert_eq!(&there[&object.id], &object.value);
        }
        // The others are as they were, and so is every comment of the file.
        for object in read(&folder) {
            if !wanted.iter().any(|wanted| wanted.id == object.id) {
                prop_assert_eq!(&there[&object.id], &object.value);
            }
        }
        let comments = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        let all = changed.iter().find(|file| file.path == "p/all.yaml").unwrap();
        prop_assert_eq!(comments(&all.text), comments(&folder));
        // Once more changes nothing.
        let again = apply("p", &changed, &wanted, &Prune::No).unwrap();
        prop_assert!(again.files.is_empty());
        prop_assert!(actions(&again).iter().all(|action| *action == Action::Unchanged));
    }

    #[test]
    fn what_was_deleted_is_gone_and_the_rest_is_there(folder in any_file(), which in any::<prop::sample::Index>()) {
        let objects = read(&folder);
        prop_assume!(!objects.is_empty());
        let gone = objects[which.index(objects.len())].id.clone();
        let files = [file("p/all.yaml", &folder)];
        let plan = delete("p", &files, std::slice::from_ref(&gone)).unwrap();
        let left: Vec<_> = after(&files, &plan).iter().flat_map(|file| read(&file.text)).map(|object| object.id).collect();
        let expected: Vec<_> = objects.into_iter().map(|object| object.id).filter(|id| *id != gone).collect();
        prop_assert_eq!(left, expected);
    }

    #[test]
    fn any_text_is_cut_without_a_panic(text in "[-a:{}#\\[\\]. \\n]{0,60}") {
        let _objects = read(&text);
        let pieces = crate::document::pieces(&text);
        prop_assert_eq!(pieces.last().map(|piece| piece.body.end), Some(text.len()));
    }
}
