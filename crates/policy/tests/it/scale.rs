//! Ten thousand policies: loading works, and looking a port up does not see them.

use std::collections::BTreeMap;

use portcullis_policy::{EffectivePolicy, MeshSettings, Mode, PolicySet, Scope, Source, explain};

const COUNT: usize = 10_000;

fn document(n: usize) -> String {
    let mode = if n.is_multiple_of(2) { "DISABLE" } else { "STRICT" };
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p{n}, namespace: ns{}}}\nspec:\n  \
         selector: {{matchLabels: {{app: app{n}}}}}\n  mtls: {{mode: {mode}}}\n  portLevelMtls: {{8080: {{mode: DISABLE}}}}\n",
        n % 100
    )
}

/// Spread over files of 100 documents.
fn sources() -> Vec<Source> {
    (0..COUNT / 100)
        .map(|file| Source {
            file: format!("{file:03}.yaml"),
            text: (0..100).map(|n| document(file * 100 + n)).collect::<String>().into_bytes(),
        })
        .collect()
}

#[test]
fn ten_thousand_documents_load_and_resolve() {
    let loaded = PolicySet::load(&sources());
    assert_eq!((loaded.documents, loaded.errors.len(), loaded.warnings.len()), (COUNT, 0, 0));
    assert_eq!(loaded.set.policies().len(), COUNT);
    let labels = BTreeMap::from([("app".to_owned(), "app4242".to_owned())]);
    let effective = EffectivePolicy::resolve(&loaded.set, &MeshSettings::default(), "ns42", &labels);
    let (listed, unlisted) = (effective.mode(8080), effective.mode(80));
    assert_eq!((listed.mode, listed.by.scope), (Mode::Disable, Scope::Port));
    assert_eq!((unlisted.mode, unlisted.by.scope), (Mode::Disable, Scope::Workload));
    assert_eq!((unlisted.by.file.as_deref(), unlisted.by.name.as_deref()), (Some("042.yaml"), Some("p4242")));

    let explained = explain(&loaded.set, &MeshSettings::default(), "ns42", &labels, 8080);
    assert_eq!(explained.ignored.len(), COUNT - 1);
    // What a person reads stays short.
    let text = explained.to_string();
    assert!(text.contains("9900 policies of other namespaces"), "{text}");
    assert!(text.lines().count() < 120);
}

/// What is looked up holds what concerns the workload, and nothing of the set: equal to what the one policy alone gives.
#[test]
fn what_is_looked_up_does_not_grow_with_the_set() {
    let all = PolicySet::load(&sources()).set;
    let labels = BTreeMap::from([("app".to_owned(), "app4242".to_owned())]);
    let one: PolicySet = all.policies().iter().filter(|policy| policy.name == "p4242").cloned().collect();
    let mesh = MeshSettings::default();
    let (small, large) = (
        EffectivePolicy::resolve(&one, &mesh, "ns42", &labels),
        EffectivePolicy::resolve(&all, &mesh, "ns42", &labels),
    );
    assert_eq!(large, small);
    assert_eq!(large.ports().collect::<Vec<_>>(), [8080]);
    // The same place in memory however often it is asked for: nothing is computed.
    assert!(std::ptr::eq(large.mode(8080), large.mode(8080)));
    assert!(std::ptr::eq(large.mode(1), large.mode(2)));
}

#[test]
fn ten_thousand_rivals_are_told_who_wins() {
    let rival = |n: usize| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: r{n:05}, namespace: shop}}\n"
        )
    };
    let texts = (0..COUNT).collect::<Vec<_>>();
    let files = texts.chunks(1000).map(|chunk| Source {
        file: "rivals.yaml".to_owned(),
        text: chunk.iter().rev().map(|n| rival(*n)).collect::<String>().into_bytes(),
    });
    let loaded = PolicySet::load(&files.collect::<Vec<_>>());
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.warnings.len(), COUNT - 1);
    assert!(loaded.warnings.iter().all(|warning| warning.reason == "policy-conflict"));
    assert!(loaded.warnings.iter().all(|warning| warning.message.contains("shop/r00000")));
}
