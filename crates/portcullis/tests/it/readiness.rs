//! `readiness` and `replay` on running sidecars, and on saved answers: what they say, and their exit codes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{POLICY, Ran, Scene, Sidecar, eventually, free_address, passed, run};

const STRICT: &str = "STRICT";

/// The body of a page.
fn body(sidecar: &Sidecar, path: &str) -> String {
    let answer = sidecar.get(path).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Waits until the sidecar has seen so many connections by a transport.
fn seen(sidecar: &Sidecar, transport: &str, connections: u64) {
    eventually("the connections in the ledger", || {
        let page: Value = serde_json::from_str(&body(sidecar, "/observations")).unwrap();
        let all = page["observations"].as_array().unwrap();
        let of = |observation: &&Value| observation["direction"] == "inbound" && observation["transport"] == transport;
        let counted: u64 = all.iter().filter(of).filter_map(|it| it["allowed"].as_u64()).sum();
        (counted >= connections).then_some(())
    });
}

fn ask(command: &str, admins: &[SocketAddr], more: &[&str]) -> Ran {
    let addresses: Vec<String> = admins.iter().map(ToString::to_string).collect();
    let mut arguments = vec![command];
    for address in &addresses {
        arguments.extend(["--admin", address]);
    }
    arguments.extend(more);
    run(&arguments)
}

/// A PERMISSIVE cart that web and a client without a sidecar have called.
fn called() -> (Scene, Sidecar, SocketAddr) {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"over mtls") && passed(scene.inbound, b"plain"));
    seen(&scene.cart, "mtls", 1);
    seen(&scene.cart, "plaintext", 1);
    (scene, web, listen)
}

fn strict_file(scene: &Scene) -> PathBuf {
    let file = scene.path().join("strict.yaml");
    fs::write(&file, POLICY.replace("MODE", STRICT)).unwrap();
    file
}

#[test]
fn readiness_names_the_plaintext_client_until_it_is_gone_from_the_window() {
    let (scene, web, listen) = called();
    let admins = [scene.cart.admin, web.admin];
    let ran = ask("readiness", &admins, &["--min-observation", "0s", "-o", "json"]);
    assert_eq!(ran.code, Some(80), "{}", ran.err);
    let report = ran.json();
    assert_eq!((&report["apiVersion"], &report["kind"]), (&json!("portcullis/v1"), &json!("ReadinessReport")));
    let [port] = report["items"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert_eq!((&port["name"], &port["port"], &port["verdict"]), (&json!("cart"), &json!(8080), &json!("NOT READY")));
    assert_eq!((&port["mtlsConnections"], &port["otherConnections"]), (&json!(1), &json!(1)));
    let [client] = port["clients"].as_array().unwrap().as_slice() else { panic!("{port:#}") };
    assert_eq!((&client["addresses"], &client["what"]), (&json!(["127.0.0.1"]), &json!("this-host")));
    assert_eq!(report["withoutPorts"][0]["name"], "web");

    let table = ask("readiness", &admins, &["--min-observation", "0s"]);
    let row = table.out.lines().find(|line| line.starts_with("cart ")).unwrap();
    assert!(row.contains("PERMISSIVE") && row.contains("50.0%") && row.ends_with("NOT READY"), "{row}");
    assert!(table.out.contains("portLevelMtls:"), "the exception is there to paste: {}", table.out);

    // From now on everybody uses mTLS, and the window moves past the last plaintext.
    let ready = eventually("a window without plaintext", || {
        assert!(passed(listen, b"over mtls"));
        let ran = ask("readiness", &admins, &["--window", "2s", "--min-observation", "0s", "-o", "json"]);
        (ran.code == Some(0)).then_some(ran)
    });
    assert_eq!(ready.json()["items"][0]["verdict"], "READY");
    // Too short a time for more than a guess: the default asks for a day.
    let short = ask("readiness", &admins, &["--window", "2s"]);
    assert!([Some(81), Some(80)].contains(&short.code), "{:?} {}", short.code, short.out);
    let other = ask("readiness", &admins, &["-n", "bank"]);
    assert_eq!(other.code, Some(81), "nothing of that namespace was observed");
}

#[test]
fn a_port_that_is_strict_already_is_no_obstacle_and_refusals_are_apart() {
    let (scene, _web, _listen) = called();
    scene.set_mode(STRICT);
    eventually("STRICT is in force", || (!passed(scene.inbound, b"plain")).then_some(()));
    let ran = ask("readiness", &[scene.cart.admin], &["-o", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    let port = &ran.json()["items"][0];
    assert_eq!(port["verdict"], "ENFORCED");
    let refused = port["refused"].as_array().unwrap();
    assert!(refused.iter().any(|it| it["last"]["policy"] == "shop/default"), "{port:#}");
}

#[test]
fn a_sidecar_that_is_down_is_part_of_the_answer() {
    let (scene, _web, listen) = called();
    let admins = [scene.cart.admin, free_address()];
    let plain = ask("readiness", &admins, &["--min-observation", "0s", "-o", "json"]);
    assert_eq!(plain.code, Some(80), "what is known to break comes first: {}", plain.err);
    assert_eq!(plain.json()["unanswered"][0]["address"], format!("{}", admins[1]), "{}", plain.out);
    let down = eventually("a window without plaintext", || {
        assert!(passed(listen, b"over mtls"));
        let ran = ask("readiness", &admins, &["--window", "2s", "--min-observation", "0s"]);
        (ran.code == Some(69)).then_some(ran)
    });
    assert!(down.out.contains(&format!("No answer from {}", admins[1])), "{}", down.out);
    assert_eq!(ask("readiness", &admins[1..], &[]).code, Some(69));
}

#[test]
fn saved_answers_are_read_without_a_sidecar() {
    let (scene, web, _listen) = called();
    let (one, all) = (scene.path().join("cart.json"), scene.path().join("all.json"));
    let (cart, web) = (body(&scene.cart, "/observations"), body(&web, "/observations"));
    fs::write(&one, &cart).unwrap();
    fs::write(&all, format!("{cart}\n{web}\n[{cart}]")).unwrap();
    let from = |file: &PathBuf, more: &[&str]| {
        run(&[&["readiness", "--from", file.to_str().unwrap(), "--min-observation", "0s"], more].concat())
    };
    assert_eq!(from(&one, &[]).code, Some(80));
    let report = from(&all, &["-o", "yaml"]);
    assert_eq!(report.code, Some(80), "{}", report.err);
    let report: Value = serde_yaml::from_str(&report.out).unwrap();
    assert_eq!(report["items"][0]["replicas"], 2);
    for (wrong, text) in
        [("not JSON", "<html>"), ("no answer", "{}"), ("nothing", ""), ("another page", "{\"proxy\": {}}")]
    {
        let file = scene.path().join("wrong.json");
        fs::write(&file, text).unwrap();
        let ran = from(&file, &[]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(65), ""), "{wrong}");
        assert!(ran.err.contains("wrong.json") && ran.err.contains("/observations"), "{wrong}: {}", ran.err);
    }
    assert_eq!(from(&one, &["--admin", "127.0.0.1:1"]).code, Some(64));
    assert_eq!(from(&one, &["--target", "PERMISSIVE"]).code, Some(64));
}

#[test]
fn workloads_of_the_directory_without_a_sidecar_are_listed() {
    let (scene, ..) = called();
    let file = scene.path().join("directory.yaml");
    let entry = |name: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{address: 10.0.0.7}}\n---\n"
        )
    };
    fs::write(&file, entry("legacy") + &entry("cart")).unwrap();
    let ran = ask("readiness", &[scene.cart.admin], &["--policies", file.to_str().unwrap(), "-o", "json"]);
    let listed: Vec<Value> = ran.json()["withoutSidecar"].as_array().unwrap().clone();
    assert_eq!(listed.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>(), ["legacy"]);
}

#[test]
fn replay_says_who_loses_under_which_policy_before_it_is_applied() {
    let (scene, web, _listen) = called();
    let admins = [scene.cart.admin, web.admin];
    let (strict, policies) = (strict_file(&scene), scene.path().join("policies"));
    let (strict, policies) = (strict.to_str().unwrap(), policies.to_str().unwrap());
    let replay = |more: &[&str]| ask("replay", &admins, &[more, &["--min-observation", "0s"]].concat());
    let ran = replay(&["-f", strict, "--policies", policies, "-o", "json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let [row] = ran.json()["items"].as_array().unwrap().clone().try_into().unwrap_or_else(|rows| panic!("{rows:?}"));
    assert_eq!((&row["change"], &row["name"], &row["port"]), (&json!("LOSES"), &json!("cart"), &json!(8080)));
    assert_eq!((&row["connections"], &row["reason"]), (&json!(1), &json!("mtls_required")));
    assert_eq!((&row["decidedBy"][0]["file"], &row["decidedBy"][0]["line"]), (&json!(strict), &json!(1)));

    let same = replay(&["-f", policies, "--policies", policies]);
    assert_eq!(same.code, Some(0), "{} {}", same.out, same.err);
    assert!(same.out.starts_with("Nobody who was let through loses access"), "{}", same.out);
    // Without the policies in force, what was let through counts.
    let config = scene.path().join("cart.yaml");
    assert_eq!(replay(&["-f", strict, "-c", config.to_str().unwrap()]).code, Some(1));
    let blind = replay(&["-f", strict]);
    assert_eq!(blind.code, Some(1));
    assert!(blind.out.contains("The policies in force are not known"), "{}", blind.out);
    // Nothing is left of the namespace's policy, and the default is PERMISSIVE.
    let only = scene.path().join("only.yaml");
    let rule = "{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}";
    let deny = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: x, namespace: shop}}\nspec: {rule}\n"
    );
    fs::write(&only, deny).unwrap();
    assert_eq!(replay(&["-f", only.to_str().unwrap(), "--instead", "--policies", policies]).code, Some(0));

    let down = ask(
        "replay",
        &[admins[0], free_address()],
        &["-f", policies, "--policies", policies, "--min-observation", "0s"],
    );
    assert_eq!(down.code, Some(69), "{}", down.out);
    assert_eq!(ask("replay", &admins, &["-f", policies]).code, Some(81), "observed for seconds only");
    fs::write(&only, "kind: PeerAuthentication").unwrap();
    let wrong = replay(&["-f", only.to_str().unwrap()]);
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(65), ""));
}

#[test]
fn a_rule_about_addresses_is_not_decided_for_a_peer_with_an_identity() {
    let (scene, _web, listen) = called();
    assert!(passed(listen, b"again"));
    seen(&scene.cart, "mtls", 2);
    let file = scene.path().join("network.yaml");
    fs::write(
        &file,
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: network, namespace: shop}\n\
         spec: {rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]}\n",
    )
    .unwrap();
    let ran = ask("replay", &[scene.cart.admin], &["-f", file.to_str().unwrap(), "--min-observation", "0s"]);
    assert_eq!(ran.code, Some(81), "{}", ran.out);
    assert!(ran.out.contains("NOT DECIDED") && ran.out.contains("source.ip"), "{}", ran.out);
}

#[test]
fn every_format_of_both_reports_is_well_formed() {
    let (scene, ..) = called();
    let strict = strict_file(&scene);
    for (command, more) in [("readiness", &[][..]), ("replay", &["-f", strict.to_str().unwrap()])] {
        let form = |form: &str| {
            let ran = ask(command, &[scene.cart.admin], &[more, &["-o", form]].concat());
            assert!([Some(80), Some(1)].contains(&ran.code), "{command} {form}: {}", ran.err);
            ran
        };
        assert_eq!(form("sarif").json()["version"], "2.1.0");
        assert!(form("junit").out.starts_with("<?xml version=\"1.0\""));
        assert!(form("markdown").out.starts_with("### "));
        let yaml: Value = serde_yaml::from_str(&form("yaml").out).unwrap();
        assert_eq!(yaml["apiVersion"], "portcullis/v1");
        assert!(form("wide").out.contains("cart"));
    }
}
