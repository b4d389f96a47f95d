//! `can`, `auth` and `policy diff`: what they answer, their JSON, their exit codes.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{BIN, Ran};

const PEER: &str = "spiffe://cluster.local/ns/web/sa/front";

fn policy(namespace_name: &str, spec: &str) -> String {
    let (namespace, name) = namespace_name.split_once('/').unwrap();
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

const MODE: &str = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: cart, namespace: shop}\n\
                    spec: {selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: DISABLE}}}\n";

/// A folder with the policies of a workload.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let allow = "{selector: {matchLabels: {app: cart}}, rules: [{to: [{operation: {methods: [GET]}}]}, {from: [{source: {namespaces: [web]}}]}]}";
    let deny =
        "{action: DENY, selector: {matchLabels: {app: cart}}, rules: [{from: [{source: {ipBlocks: [10.6.6.0/24]}}]}]}";
    let dry = "{action: DENY, rules: [{from: [{source: {namespaces: [web]}}]}]}";
    let dry = policy("shop/dry", dry).replace("name: dry,", "name: dry, annotations: {istio.io/dry-run: \"true\"},");
    let text = [
        MODE.to_owned(),
        policy("shop/allow-web", allow),
        policy("istio-system/deny-net", deny),
        dry,
        policy("shop/other-app", "{selector: {matchLabels: {app: other}}, rules: [{}]}"),
        policy(
            "shop/gateway",
            "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}], rules: [{}]}",
        ),
        policy("bank/elsewhere", "{rules: [{}]}"),
    ];
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/shop.yaml"), text.concat()).unwrap();
    folder
}

fn run(folder: &Path, line: &str) -> Ran {
    let mut command = Command::new(BIN);
    command.args(line.split_whitespace()).current_dir(folder).env_remove("PORTCULLIS_CONFIG");
    Ran::from(command.output().unwrap())
}

#[test]
fn can_answers_with_the_rule_that_decides() {
    let folder = folder();
    let can = |line: &str| {
        run(folder.path(), &format!("can --policies policies -n shop -l app=cart --port 8080 -o json {line}"))
    };
    let allowed = can(&format!("--peer {PEER}"));
    let by = json!({"namespace": "shop", "name": "allow-web", "action": "ALLOW", "rule": 1, "file": "policies/shop.yaml", "line": 10});
    let expected = json!({"allow": true, "mode": "STRICT", "decidedBy": by, "reason": "allow_rule"});
    assert_eq!((allowed.code, allowed.json()), (Some(0), expected), "{}", allowed.err);
    // The address of the client matters to a rule, and nobody named it.
    assert!(allowed.err.contains("--source-ip"), "{}", allowed.err);

    let denied = can(&format!("--peer {PEER} --source-ip 10.6.6.1"));
    let json = denied.json();
    assert_eq!((denied.code, &json["reason"]), (Some(1), &json!("authorization_denied")), "{}", denied.err);
    assert_eq!((&json["decidedBy"]["name"], &json["decidedBy"]["action"]), (&json!("deny-net"), &json!("DENY")));
    assert!(!denied.err.contains("--source-ip"), "{}", denied.err);

    // The only ALLOW policy is named, without a rule.
    let stranger = can("--peer spiffe://cluster.local/ns/bank/sa/x").json();
    assert_eq!((&stranger["allow"], &stranger["reason"]), (&json!(false), &json!("authorization_not_allowed")));
    assert_eq!((&stranger["decidedBy"]["name"], &stranger["decidedBy"]["rule"]), (&json!("allow-web"), &json!(null)));
    assert_eq!(can("--plaintext").code, Some(1));

    let dry = can(&format!("--peer {PEER} --dry-run"));
    assert_eq!((dry.code, dry.json()["decidedBy"]["name"].clone()), (Some(1), json!("dry")));
    let free = run(folder.path(), "can -f policies -n nowhere --port 9090 --plaintext -o json");
    let expected = json!({"allow": true, "mode": "PERMISSIVE", "decidedBy": null, "reason": "no_allow_policy"});
    assert_eq!((free.code, free.json()), (Some(0), expected));
}

#[test]
fn can_says_in_a_line_why() {
    let folder = folder();
    let can = |line: &str| run(folder.path(), &format!("can -f policies -n shop -l app=cart --port {line}")).out;
    let allowed = can(&format!("8080 --peer {PEER}"));
    let expected = "allowed: rule 1 of the ALLOW policy shop/allow-web (policies/shop.yaml:10) [allow_rule]; port 8080 is STRICT\n";
    assert_eq!(allowed, expected);
    let plaintext = can("8080 --plaintext");
    assert!(
        plaintext.starts_with("denied: no rule of an ALLOW policy matches: shop/allow-web (policies/shop.yaml:"),
        "{plaintext}"
    );
    assert!(plaintext.contains("refuses a client without mTLS"), "{plaintext}");
    assert!(can(&format!("9090 --peer {PEER}")).contains("verifies no identity"));
}

#[test]
fn trust_domains_of_the_mesh_are_expanded_in_can() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "{rules: [{from: [{source: {principals: [old.test/ns/web/sa/front]}}]}]}";
    fs::write(folder.path().join("a.yaml"), policy("shop/a", spec)).unwrap();
    let can = |flags: &str| {
        run(folder.path(), &format!("can -f a.yaml -n shop --port 80 --peer spiffe://new.test/ns/web/sa/front {flags}"))
            .code
    };
    assert_eq!(can(""), Some(1));
    assert_eq!(can("--trust-domain new.test --trust-domain-alias old.test"), Some(0));
    let config = "workload: {name: cart, namespace: shop, serviceAccount: cart}\npolicies: a.yaml\n\
                  mesh: {trustDomain: new.test, trustDomainAliases: [old.test]}\ninbound: {transparent: \"127.0.0.1:17006\"}\n";
    fs::write(folder.path().join("cart.yaml"), config).unwrap();
    let ran = run(folder.path(), "can -c cart.yaml --port 80 --peer spiffe://new.test/ns/web/sa/front");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
}

#[test]
fn wrong_input_of_can_has_the_exit_codes_of_other_commands() {
    let folder = folder();
    for (line, code) in [
        ("can -f policies -n shop --port 80", 64),
        ("can -f policies -n shop --port 0 --plaintext", 64),
        ("can -f policies -n shop --port 80 --plaintext --peer spiffe://a/b", 64),
        ("can -f policies -n shop --port 80 --plaintext --source-ip here", 64),
        ("can --port 80 --plaintext", 64),
        ("can -f policies -n shop --port 80 --peer http://a/b", 65),
        ("can -f nosuch -n shop --port 80 --plaintext", 65),
        ("can -c nosuch --port 80 --plaintext", 78),
        ("auth", 64),
        ("auth -f nosuch -n shop", 65),
        ("policy", 64),
        ("policy diff policies", 64),
        ("policy diff - -", 64),
        ("policy diff policies policies -l app=cart", 64),
        ("policy diff policies nosuch", 65),
    ] {
        let ran = run(folder.path(), line);
        assert!(
            ran.code == Some(code) && ran.out.is_empty() && !ran.err.is_empty(),
            "{line}: {:?} {}",
            ran.code,
            ran.err
        );
    }
}

#[test]
fn auth_lists_what_applies_in_the_order_of_evaluation_and_what_does_not() {
    let folder = folder();
    let ran = run(folder.path(), "auth -f policies -n shop -l app=cart -o json");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let json = ran.json();
    let ports: Vec<_> =
        json["ports"].as_array().unwrap().iter().map(|it| (it["port"].clone(), it["mode"].clone())).collect();
    assert_eq!(ports, [(json!(9090), json!("DISABLE")), (json!(null), json!("STRICT"))]);
    let applied = json["authorization"]["applied"].as_array().unwrap();
    let of = |key: &str| applied.iter().map(|it| it[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["deny-net", "dry", "allow-web"]);
    assert_eq!(of("dryRun"), [false, true, false]);
    assert_eq!(of("rootSelector"), [true, false, false]);
    assert_eq!(of("rulesWithoutEffect"), [json!([]), json!([]), json!([0])]);
    let ignored = json["authorization"]["ignored"].as_array().unwrap();
    let ignored: Vec<_> =
        ignored.iter().map(|it| (it["name"].as_str().unwrap(), it["reason"].as_str().unwrap())).collect();
    let expected = [("elsewhere", "other-namespace"), ("gateway", "target-refs"), ("other-app", "selector-mismatch")];
    assert_eq!(ignored, expected);

    let text = run(folder.path(), "auth -f policies -n shop -l app=cart").out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("PORT   SERVER    AUTHN POLICY   SCOPE"), "{text}");
    for part in [
        "ACTION   AuthorizationPolicy",
        "DENY     deny-net.",
        "reaches every namespace",
        "dry run",
        "never matches a connection: rule 0",
        "(target-refs)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn diff_lists_what_changes_and_its_commands_show_it() {
    let folder = folder();
    let old = fs::read_to_string(folder.path().join("policies/shop.yaml")).unwrap();
    fs::create_dir(folder.path().join("next")).unwrap();
    fs::write(
        folder.path().join("next/a.yaml"),
        old.replace("namespaces: [web]}}]}]}\n---", "namespaces: [web, jobs]}}]}]}\n---"),
    )
    .unwrap();
    let same = run(folder.path(), "policy diff policies policies");
    assert_eq!(
        (same.code, same.out.as_str()),
        (Some(0), "no difference: both sets answer every connection alike\n"),
        "{}",
        same.err
    );
    let same = run(folder.path(), "policy diff policies policies -o json");
    assert_eq!(same.json(), json!({"same": true, "changes": []}));

    let ran = run(folder.path(), "policy diff policies next -n shop -l app=cart -o json");
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let json = ran.json();
    let changes = json["changes"].as_array().unwrap();
    // Every port but 9090, which asks for no identity.
    assert_eq!(changes.len(), 1, "{json:#}");
    let change = &changes[0];
    assert_eq!(
        (&change["port"], &change["otherThan"], &change["client"]),
        (&json!(null), &json!([9090]), &json!("mtls"))
    );
    assert_eq!((&change["was"]["allow"], &change["now"]["allow"]), (&json!(false), &json!(true)));
    assert_eq!(change["now"]["decidedBy"]["file"], "next/a.yaml");
    let holding: Vec<_> = change["conditions"].as_array().unwrap().iter().filter(|it| it["holds"] == true).collect();
    assert_eq!(holding, [&json!({"key": "source.namespace", "value": "jobs", "holds": true})]);
    let commands = change["witness"]["commands"].as_array().unwrap();
    for (command, code) in commands.iter().zip([1, 0]) {
        let line = command.as_str().unwrap().strip_prefix("portcullis ").unwrap();
        let shown = run(folder.path(), line);
        assert_eq!(shown.code, Some(code), "{line}: {}{}", shown.out, shown.err);
    }

    let text = run(folder.path(), "policy diff policies next").out;
    for part in [
        "namespace shop, labels app=cart:",
        "mTLS peer with source.namespace jobs",
        "every port but 9090: denied -> allowed",
        "see: portcullis can -f next -n shop",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
