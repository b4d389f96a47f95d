//! `portcullis audit`: exceptions of files, what used them, and drift from a baseline.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::proxies::{cells, command, on};
use crate::support::{Ran, Scene, eventually, free_address, passed};

/// A documented exception of the whole mesh, one of a port without an end, and what turns mTLS off for clients.
const POLICIES: &str = r#"apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: istio-system
  creationTimestamp: "2020-01-01T00:00:00Z"
  annotations: {portcullis/owner: platform, portcullis/reason: "migration, phase 2", portcullis/expires: "2999-12-31"}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: cart
  namespace: shop
  annotations: {owner: shop-team, reason: probes}
spec:
  selector: {matchLabels: {app: cart}}
  mtls: {mode: STRICT}
  portLevelMtls: {"9000": {mode: DISABLE}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: legacy
  namespace: shop
  annotations: {portcullis/owner: shop-team, portcullis/reason: old client, portcullis/expires: "2020-06-30"}
spec: {host: legacy.shop.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/all.yaml"), POLICIES).unwrap();
    folder
}

fn audit(folder: &Path, more: &[&str]) -> Ran {
    let policies = folder.join("policies");
    command(["audit", "-f", policies.to_str().unwrap()].into_iter().chain(more.iter().copied()))
}

#[test]
fn every_exception_is_a_row_and_what_is_wrong_with_it_is_told_with_its_remedy() {
    let folder = folder();
    let ran = audit(folder.path(), &[]);
    assert_eq!(ran.code, Some(79), "{}{}", ran.out, ran.err);
    let header: Vec<&str> = ran.out.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAMESPACE", "NAME", "SCOPE", "MODE", "OWNER", "REASON", "EXPIRES", "AGE", "FILE:LINE"]);
    // The creation time, or else the age of the file, which was written a moment ago.
    let age = |scope: &str| {
        let row = ran.out.lines().find(|line| line.contains(scope)).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        words[words.len() - 2].to_owned()
    };
    assert!(age(" mesh ").ends_with('d'), "{}", ran.out);
    assert!(age(" port 9000 ").ends_with('s'), "{}", ran.out);
    let json = audit(folder.path(), &["-o", "json"]).json();
    let items = json["items"].as_array().unwrap();
    let rows: Vec<[&str; 4]> = items
        .iter()
        .map(|item| ["namespace", "name", "scope", "mode"].map(|field| item[field].as_str().unwrap()))
        .collect();
    assert_eq!(
        rows,
        [
            ["istio-system", "default", "mesh", "PERMISSIVE"],
            ["shop", "legacy", "legacy.shop.svc.cluster.local", "DISABLE"],
            ["shop", "cart", "port 9000", "DISABLE"],
        ]
    );
    let problems: Vec<&Value> = items.iter().map(|item| &item["problems"]).collect();
    assert_eq!(problems, [&serde_json::json!([]), &serde_json::json!(["expired"]), &serde_json::json!(["no-end"])]);
    assert!(items[2]["file"].as_str().unwrap().ends_with("policies/all.yaml") && items[2]["line"] == 10, "{json:#}");
    for part in [
        "3 exceptions, 2 of them with a problem (expired: 1, no end: 1)",
        "2020-06-30 (EXPIRED)",
        "portcullis delete dr legacy -n shop",
        "portcullis/expires: ",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
    let names = audit(folder.path(), &["-o", "name", "-n", "shop"]);
    assert_eq!(names.out, "exception/shop/legacy/legacy.shop.svc.cluster.local\nexception/shop/cart/port 9000\n");
    let csv = audit(folder.path(), &["-o", "csv"]).out;
    assert!(csv.contains("\"migration, phase 2\"") && csv.lines().count() == 4, "{csv}");
    for format in ["wide", "yaml", "markdown", "junit", "sarif"] {
        let ran = audit(folder.path(), &["-o", format]);
        assert!(ran.code == Some(79) && ran.out.contains("legacy"), "{format}: {}", ran.out);
    }
}

#[test]
fn a_mesh_without_a_mode_is_an_exception_of_nobody() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    fs::write(folder.path().join("policies/a.yaml"), strict).unwrap();
    let open = audit(folder.path(), &["-o", "json"]);
    let item = &open.json()["items"][0];
    assert_eq!(
        (open.code, &item["name"], &item["mode"]),
        (Some(79), &"mesh.defaultMode".into(), &"UNSET (PERMISSIVE)".into())
    );
    let closed = audit(folder.path(), &["--default-mode", "STRICT"]);
    assert_eq!((closed.code, closed.out.as_str()), (Some(0), "No exceptions: mTLS only, everywhere.\n"));
}

#[test]
fn drift_from_a_baseline_says_who_changed_what_and_where() {
    let folder = folder();
    let saved = folder.path().join("audit.json");
    let saved = saved.to_str().unwrap();
    assert_eq!(audit(folder.path(), &["--save", saved]).code, Some(79));
    let text = fs::read_to_string(saved).unwrap();
    assert_eq!(audit(folder.path(), &["--save", saved]).code, Some(79));
    assert_eq!(fs::read_to_string(saved).unwrap(), text, "the same exceptions are the same text");
    let same = audit(folder.path(), &["--baseline", saved]);
    assert!(same.code == Some(79) && same.out.contains("No drift from the baseline."), "{}", same.out);

    let changed =
        POLICIES.replace("\"9000\": {mode: DISABLE}", "\"9000\": {mode: PERMISSIVE}, \"9001\": {mode: DISABLE}");
    let changed = changed.split("---\napiVersion: networking").next().unwrap().to_owned();
    fs::write(folder.path().join("policies/all.yaml"), changed).unwrap();
    let ran = audit(folder.path(), &["--baseline", saved]);
    assert_eq!(ran.code, Some(83), "{}", ran.out);
    for part in [
        "3 differences from the baseline",
        "changed PeerAuthentication shop/cart (port 9000), owner shop-team, ",
        "policies/all.yaml:10: mode DISABLE -> PERMISSIVE",
        "added PeerAuthentication shop/cart (port 9001), owner shop-team, ",
        "removed DestinationRule shop/legacy (legacy.shop.svc.cluster.local), owner shop-team, ",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
    let json = audit(folder.path(), &["--baseline", saved, "-o", "json"]).json();
    let kinds: Vec<&Value> = json["drift"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert_eq!(
        (kinds, &json["status"]),
        (vec![&"removed".into(), &"changed".into(), &"added".into()], &"DRIFT".into())
    );
    let sarif = audit(folder.path(), &["--baseline", saved, "-o", "sarif"]).json();
    let rules = sarif["runs"][0]["results"].as_array().unwrap().iter().map(|result| result["ruleId"].as_str().unwrap());
    assert_eq!(rules.filter(|rule| *rule == "exception-drift").count(), 3);
}

#[test]
fn a_baseline_of_another_version_and_a_file_that_is_none_are_refused_with_their_reason() {
    let folder = folder();
    let file = folder.path().join("audit.json");
    let refused = |text: &str| {
        fs::write(&file, text).unwrap();
        let ran = audit(folder.path(), &["--baseline", file.to_str().unwrap()]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(65), ""), "{}", ran.err);
        ran.err
    };
    let newer = refused(r#"{"apiVersion": "portcullis/v2", "kind": "AuditBaseline", "version": 2, "exceptions": {}}"#);
    assert!(newer.contains("version 2, and this command reads version 1: update the command"), "{newer}");
    assert!(refused(r#"{"kind": "AuditBaseline", "version": 0}"#).contains("save it anew"), "older");
    assert!(refused(r#"{"kind": "AuditReport", "items": []}"#).contains("of kind \"AuditReport\""), "a report");
    assert!(refused("not json").contains("is no baseline"));
    assert!(refused(r#"{"kind": "AuditBaseline", "version": 1, "exceptions": 7}"#).contains("is no baseline"));
    let missing = audit(folder.path(), &["--baseline", "/nowhere/audit.json"]);
    assert_eq!(missing.code, Some(65), "{}", missing.err);
    assert_eq!(audit(folder.path(), &["--save", "x.json", "-n", "shop"]).code, Some(64));
    fs::write(folder.path().join("policies/bad.yaml"), "kind: PeerAuthentication\napiVersion: security.istio.io/v1\n")
        .unwrap();
    let broken = audit(folder.path(), &[]);
    assert!(broken.code == Some(65) && broken.err.contains("bad.yaml:1:1"), "{}", broken.err);
    assert_eq!(command(["audit"]).code, Some(64));
}

#[test]
fn what_used_an_exception_is_told_by_the_sidecars_that_saw_it() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    assert!(passed(scene.inbound, b"plain") && passed(listen, b"over mtls"));
    let policies = scene.path().join("policies");
    let used = eventually("the ledger has both", || {
        let ran = on(&[&scene.cart, &web], &["audit", "-f", policies.to_str().unwrap(), "-o", "json"]);
        let json = ran.json();
        let own = json["items"].as_array().unwrap().iter().find(|item| item["namespace"] == "shop").unwrap().clone();
        (own["used"]["connections"] == 1).then_some(own)
    });
    assert_eq!((&used["used"]["clients"], &used["mode"]), (&1.into(), &"PERMISSIVE".into()), "mTLS uses no exception");
    let table = on(&[&scene.cart], &["audit", "-f", policies.to_str().unwrap()]);
    assert!(
        table.out.lines().next().unwrap().ends_with("USED") && table.out.contains("1 by 1 client, "),
        "{}",
        table.out
    );
    assert!(cells(&table.out).len() > 2);
    let nobody = format!("--admin={}", free_address());
    let partly = on(&[&scene.cart], &["audit", "-f", policies.to_str().unwrap(), &nobody]);
    assert!(partly.out.contains("USED is not complete"), "{}", partly.out);
}

#[test]
fn a_sidecar_tells_how_long_its_exceptions_last() {
    let scene = Scene::new("STRICT");
    fs::write(scene.path().join("policies/all.yaml"), POLICIES.split("---\napiVersion: networking").next().unwrap())
        .unwrap();
    let metrics = || scene.cart.get("/metrics").unwrap();
    let line = |policy: &str| {
        let start = format!("portcullis_exception_expiry_seconds{{policy=\"{policy}\"}} ");
        metrics().lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
    };
    let left = eventually("the policy is in force", || line("istio-system/default"));
    assert!(left > 3e10, "{left}");
    assert_eq!(line("shop/cart"), None, "it has no end");
    let over = POLICIES.split("---\napiVersion: networking").next().unwrap().replace("2999-12-31", "2020-01-01");
    fs::write(scene.path().join("policies/all.yaml"), over).unwrap();
    eventually("it is over", || line("istio-system/default").filter(|left| *left < 0.0));
    fs::remove_file(scene.path().join("policies/all.yaml")).unwrap();
    eventually("it is gone", || line("istio-system/default").is_none().then_some(()));
}
