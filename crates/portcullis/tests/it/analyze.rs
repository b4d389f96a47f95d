//! `portcullis analyze`: what is found, what is not, and the forms of the answer.

use std::fs;
use std::path::Path;

use portcullis_analyze::Code;

use super::support::{Ran, run};

fn pa(name: &str, namespace: &str, rest: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {rest}\n---\n"
    )
}

fn analyze(text: &str, more: &[&str]) -> (tempfile::TempDir, Ran) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("all.yaml"), text).unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let ran = run(&[&["analyze", "-f", &path], more].concat());
    (folder, ran)
}

/// Every finding as `CODE name.namespace`.
fn codes(text: &str, more: &[&str]) -> Vec<String> {
    let (_folder, ran) = analyze(text, &[more, &["-o", "json"]].concat());
    let json = ran.json();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let items = json["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| format!("{} {}.{}", word(&item["code"]), word(&item["name"]), word(&item["namespace"])))
        .collect()
}

const STRICT: &str = "{mtls: {mode: STRICT}}";

#[test]
fn a_set_without_issues_says_so() {
    let (folder, ran) = analyze(&pa("default", "shop", STRICT), &[]);
    let shown = folder.path().display();
    let expected = format!("\u{2714} No validation issues found when analyzing {shown}.\n");
    assert_eq!((ran.code, ran.out.as_str(), ran.err), (Some(0), "", expected));
}

#[test]
fn kiali_s_codes_mean_what_they_mean_there() {
    let two = pa("a", "shop", STRICT) + &pa("b", "shop", STRICT);
    assert_eq!(codes(&two, &[]), ["KIA0002 a.shop", "KIA0002 b.shop"]);
    let cart = "{selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}}";
    let twice = pa("a", "shop", cart) + &pa("b", "shop", cart);
    assert_eq!(codes(&twice, &[]), ["KIA0003 a.shop", "KIA0003 b.shop"]);
    let workload = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, namespace: shop}\n\
                    spec: {address: 10.0.0.1, labels: {app: cart, tier: front}}\n---\n";
    let front = "{selector: {matchLabels: {tier: front}}, mtls: {mode: STRICT}}";
    let meet = pa("a", "shop", cart) + &pa("b", "shop", front);
    assert!(codes(&meet, &[]).is_empty());
    assert_eq!(codes(&(meet + workload), &[]), ["KIA0003 a.shop", "KIA0003 b.shop"]);
    let none = pa("a", "shop", "{selector: {matchLabels: {app: kart}}, mtls: {mode: STRICT}}") + workload;
    assert_eq!(codes(&none, &[]), ["KIA0004 a.shop"]);
    let rule = |host: &str, mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{host: \"{host}\", trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n---\n"
        )
    };
    let documented = "{mtls: {mode: DISABLE}}";
    let off = |namespace: &str| {
        pa("default", namespace, documented)
            .replace("metadata: {", "metadata: {annotations: {owner: a, reason: b, expires: \"2999-01-01\"}, ")
    };
    let only_kia = |text: String, more: &[&str]| -> Vec<String> {
        codes(&text, more).into_iter().filter(|code| code.starts_with("KIA")).collect()
    };
    let shop = "*.shop.svc.cluster.local";
    assert_eq!(only_kia(off("shop") + &rule(shop, "ISTIO_MUTUAL"), &[]), ["KIA0505 default.shop"]);
    assert_eq!(only_kia(off("shop") + &rule("*.local", "ISTIO_MUTUAL"), &[]), ["KIA0505 default.shop"]);
    assert!(only_kia(off("shop") + &rule(shop, "DISABLE"), &[]).is_empty());
    assert_eq!(only_kia(off("istio-system") + &rule("*.local", "ISTIO_MUTUAL"), &[]), ["KIA0506 default.istio-system"]);
    assert_eq!(only_kia(pa("default", "shop", STRICT) + &rule(shop, "DISABLE"), &[]), ["KIA0207 r.shop"]);
    assert_eq!(only_kia(pa("default", "istio-system", STRICT) + &rule("*.local", "DISABLE"), &[]), ["KIA0208 r.shop"]);
    let no_auto = ["--no-auto-mtls"];
    assert_eq!(only_kia(pa("default", "shop", STRICT), &no_auto), ["KIA0501 default.shop"]);
    assert_eq!(only_kia(pa("default", "istio-system", STRICT), &no_auto), ["KIA0401 default.istio-system"]);
    assert!(only_kia(pa("default", "shop", STRICT) + &rule(shop, "ISTIO_MUTUAL"), &no_auto).is_empty());
}

#[test]
fn our_codes_find_what_is_hardly_meant() {
    assert_eq!(codes(&pa("a", "shop", "{mtls: {mode: STRIC}}"), &[]), ["PC0001 a.shop"]);
    assert_eq!(codes(&pa("a", "shop", "{portLevelMtls: {80: {mode: STRICT}}}"), &[]), ["PC0002 a.shop"]);
    assert_eq!(codes("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", &[]), ["PC0003 ."]);
    let root = pa("a", "istio-system", "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}");
    assert_eq!(codes(&root, &[]), ["PC0102 a.istio-system"]);
    let permissive = pa("a", "shop", "{mtls: {mode: PERMISSIVE}}");
    assert_eq!(codes(&permissive, &[]), ["PC0201 a.shop"]);
    let annotated = |expires: &str| {
        permissive.replace(
            "metadata: {",
            &format!("metadata: {{annotations: {{portcullis/owner: a, reason: b, expires: \"{expires}\"}}, "),
        )
    };
    assert!(codes(&annotated("2999-12-31"), &[]).is_empty());
    assert_eq!(codes(&annotated("2020-12-31"), &[]), ["PC0202 a.shop"]);
    assert_eq!(codes(&annotated("in June"), &[]), ["PC0203 a.shop"]);
    let port = pa(
        "a",
        "shop",
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}",
    );
    assert_eq!(codes(&port, &[]), ["PC0201 a.shop"]);
    let dry = pa("a", "shop", STRICT).replace("metadata: {", "metadata: {annotations: {istio.io/dry-run: \"true\"}, ");
    assert_eq!(codes(&dry, &[]), ["PC0301 a.shop"]);
    let service = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: cart, namespace: shop}\n\
                   spec: {hosts: [cart.shop.svc.cluster.local], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, targetPort: 8080, name: http, protocol: HTTP}], \
                   endpoints: [{address: 10.0.0.1, labels: {app: cart}, serviceAccount: cart}]}\n---\n";
    let wrong = pa(
        "a",
        "shop",
        "{selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: STRICT}}}",
    );
    assert_eq!(codes(&(wrong + service), &[]), ["PC0101 a.shop"]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shop.yml.bak"), "x").unwrap();
    fs::write(folder.path().join("a.yaml"), pa("a", "shop", STRICT)).unwrap();
    let ran = run(&["analyze", "-f", folder.path().to_str().unwrap()]);
    assert!(
        ran.out.starts_with("Warning [PC0004] (") && ran.out.contains("shop.yml.bak) A file is not read"),
        "{}",
        ran.out
    );
}

#[test]
fn thresholds_suppressions_and_exit_codes_are_those_of_istioctl() {
    let two = pa("a", "shop", STRICT) + &pa("b", "shop", STRICT);
    let (folder, ran) = analyze(&two, &[]);
    let file = folder.path().join("all.yaml");
    let first =
        format!("Error [KIA0002] (PeerAuthentication shop/a {}:1) More than one selector-less object", file.display());
    assert!(ran.code == Some(79) && ran.out.starts_with(&first), "{}", ran.out);
    let known = ["-S", "KIA0002=PeerAuthentication *.shop"];
    assert_eq!(analyze(&two, &known).1.code, Some(0));
    assert_eq!(analyze(&two, &["-S", "KIA0002=PeerAuthentication a.shop"]).1.code, Some(79));
    let warning = pa("a", "shop", "{mtls: {mode: PERMISSIVE}}");
    assert_eq!(analyze(&warning, &[]).1.code, Some(0));
    assert_eq!(analyze(&warning, &["--failure-threshold", "Warning"]).1.code, Some(79));
    let quiet = analyze(&warning, &["--failure-threshold", "Warning", "--output-threshold", "Error"]).1;
    assert_eq!((quiet.code, quiet.out.as_str()), (Some(79), ""));
    assert_eq!(run(&["analyze", "-S", "nonsense", "-f", "x"]).code, Some(64));
    let sarif = analyze(&two, &["-o", "sarif"]).1.json();
    assert_eq!((&sarif["version"], &sarif["runs"][0]["results"][0]["ruleId"]), (&"2.1.0".into(), &"KIA0002".into()));
    let rules = sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), Code::ALL.len());
}

#[test]
fn the_reference_has_every_code_with_its_meaning_and_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/analyze.md");
    let text = fs::read_to_string(path).unwrap();
    let table = Code::reference();
    assert!(text.contains(&table), "put this table into docs/reference/analyze.md:\n{table}");
}

#[test]
fn with_a_mesh_policies_that_nobody_has_are_found() {
    let scene = crate::support::Scene::new("PERMISSIVE");
    let policies = scene.path().join("policies");
    let policy = |namespace: &str, selector: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: other, namespace: {namespace}}}\n\
             spec: {{{selector}mtls: {{mode: STRICT}}}}\n"
        )
    };
    fs::write(policies.join("a.yaml"), policy("shpo", "")).unwrap();
    fs::write(policies.join("b.yaml"), policy("shop", "selector: {matchLabels: {app: crat}}, ")).unwrap();
    let admin = format!("--admin={}", scene.cart.admin);
    let codes = |more: &[&str]| -> Vec<String> {
        let ran = run(&[&["analyze", "-f", policies.to_str().unwrap(), "-o", "json"], more].concat());
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        json["items"].as_array().or(json.as_array()).unwrap().iter().map(|it| it["code"].to_string()).collect()
    };
    let has = |codes: &[String]| ["PC0103", "KIA0004"].map(|code| codes.iter().any(|it| it.contains(code)));
    assert_eq!(has(&codes(&[])), [false, false]);
    assert_eq!(has(&codes(&[&admin])), [true, true]);
}
