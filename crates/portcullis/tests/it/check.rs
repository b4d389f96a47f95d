//! `portcullis check`: real sidecars with real faults, and answers that are none.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use portcullis_testkit::certs::Profile;
use serde_json::{Value, json};

use crate::proxies::{command, hostile, on};
use crate::support::raw::{Mesh, identity_files};
use crate::support::{CART, Ca, Ran, Scene, Sidecar, WEB, eventually, free_address};

/// `name` of the check in the answer.
fn find<'a>(json: &'a Value, name: &str) -> &'a Value {
    let all = json["items"].as_array().unwrap();
    all.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {json:#}"))
}

fn state<'a>(json: &'a Value, name: &str) -> &'a str {
    find(json, name)["state"].as_str().unwrap()
}

/// The checks that are worse than a warning.
fn problems(json: &Value) -> Vec<String> {
    let all = json["items"].as_array().unwrap().iter();
    let bad = all.filter(|check| matches!(check["state"].as_str(), Some("failed" | "unchecked")));
    bad.map(|check| check["name"].as_str().unwrap().to_owned()).collect()
}

fn json(ran: &Ran) -> Value {
    ran.json()
}

const MESH_WIDE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n";

/// A second sidecar with a policy folder of its own, and a ledger on disk.
fn second(scene: &Scene, name: &str, policies: &str, more: &str) -> Sidecar {
    let body = format!(
        "workload: {{name: {name}, namespace: shop, spiffeId: \"{WEB}\"}}\npolicies: ./{policies}\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n{more}"
    );
    Sidecar::start(scene.path(), name, &body)
}

/// An admin server that passes on what `to` answers, changed; a status of its own, or what is there.
fn relay(to: SocketAddr, change: impl Fn(&str, String) -> Option<String> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                request.extend(byte);
            }
            let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
            let mut upstream = TcpStream::connect(to).unwrap();
            write!(upstream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            upstream.read_to_string(&mut answer).unwrap();
            let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
            let (status, body) = match change(&path, body) {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", "no such path; there are:\n".to_owned()),
            };
            let _gone = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

#[test]
fn a_mesh_that_is_well_passes_and_is_told_what_is_worth_a_look() {
    let scene = Scene::new("STRICT");
    fs::write(scene.path().join("policies/mesh.yaml"), MESH_WIDE).unwrap();
    let web = second(&scene, "web", "policies", "ledger: {folder: ./ledger}\n");
    let both = [&scene.cart, &web];
    let well = eventually("the new file is in force everywhere", || {
        let ran = on(&both, &["check", "-o", "json"]);
        (ran.code == Some(0) && state(&json(&ran), "policy-mesh-wide") == "passed").then(|| json(&ran))
    });
    assert_eq!(well["kind"], "CheckList");
    for passed in
        ["proxy-answers", "proxy-ready", "certificate-chain", "certificate-time", "policy-equal", "trust-bundles"]
    {
        assert_eq!(state(&well, passed), "passed", "{passed}");
    }
    assert_eq!(state(&well, "capture-rules"), "skipped");
    let ledger = find(&well, "ledger-written");
    assert_eq!((&ledger["state"], &ledger["findings"][0]["proxies"]), (&"warning".into(), &json!(["cart.shop"])));

    let text = on(&both, &["check"]);
    for part in [
        "portcullis-proxies\n------------------\n√ every proxy answers\n",
        "- redirect rules are in force (no proxy has a transparent listener",
        "‼ what was observed outlives a restart\n    cart.shop: its ledger is in memory",
        "      fix: set `ledger.folder`",
        "    see docs/reference/check.md#ledger-written for hints\n",
        "Status check results are √: nothing is wrong; the warnings",
    ] {
        assert!(text.out.contains(part), "{part}\n{}", text.out);
    }
    assert!(!text.out.contains('\u{1b}'), "no colour where there is no terminal");
    assert_eq!(on(&both, &["check", "--fail-on-warning"]).code, Some(1));
    let wide = on(&both, &["check", "-o", "wide"]).out;
    assert!(wide.contains("cart.shop, web.shop: it answers") && wide.contains("valid for "), "{wide}");
    assert!(on(&both, &["check", "-o", "name"]).out.starts_with("check/proxy-answers\ncheck/proxy-ready\n"));
    assert!(on(&both, &["check", "-o", "yaml"]).out.starts_with("apiVersion: portcullis/v1\nkind: CheckList\n"));
    let one = json(&on(&both, &["check", "web.shop", "-o", "json"]));
    assert_eq!(state(&one, "ledger-written"), "passed");
}

#[test]
fn older_policies_and_files_with_a_mistake_are_told_with_their_place() {
    let scene = Scene::new("STRICT");
    fs::create_dir(scene.path().join("old")).unwrap();
    fs::copy(scene.path().join("policies/shop.yaml"), scene.path().join("old/shop.yaml")).unwrap();
    let (same, old) = (second(&scene, "same", "policies", ""), second(&scene, "old", "old", ""));
    scene.set_mode("PERMISSIVE");
    let all = [&scene.cart, &same, &old];
    let differs = eventually("the others have the new policy", || {
        let json = json(&on(&all, &["check", "-o", "json"]));
        let finding = &find(&json, "policy-equal")["findings"][0];
        (finding["state"] == "failed" && finding["proxies"] == json!(["old.shop"])).then_some(json)
    });
    assert_eq!(problems(&differs), ["policy-equal"]);
    fs::write(scene.path().join("policies/bad.yaml"), "kind: PeerAuthentication\napiVersion: security.istio.io/v1\n")
        .unwrap();
    let refused = eventually("both refuse the file", || {
        let ran = on(&all, &["check", "-o", "json"]);
        let json = json(&ran);
        let finding = &find(&json, "policy-files")["findings"][0];
        // At first it may be read while it is empty, which has no line.
        let is_told = finding["proxies"] == json!(["cart.shop", "same.shop"]) && finding["location"].is_string();
        is_told.then(|| (ran.code, finding.clone()))
    });
    assert_eq!(refused.0, Some(1));
    let finding = refused.1;
    assert!(finding["location"].as_str().unwrap().contains("bad.yaml:1:1"), "{finding:#}");
    assert!(finding["message"].as_str().unwrap().contains("the last valid set"), "{finding:#}");
    assert!(finding["remedy"].as_str().unwrap().contains("portcullis validate -f"), "{finding:#}");
}

#[test]
fn a_certificate_that_is_about_to_expire_fails_although_it_is_valid() {
    let mesh = Mesh::new("STRICT");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let near = mesh.authority.issue(&Profile::leaf(CART).valid(now - 7200, now + 600));
    mesh.set_identity("cart", identity_files(&mesh.authority, &near));
    let (cart, _) = mesh.cart(free_address(), |_| ());
    let ran = on(&[&cart], &["check", "-o", "json"]);
    let json = json(&ran);
    assert_eq!((ran.code, problems(&json)), (Some(82), vec!["certificate-time".to_owned()]), "{json:#}");
    let finding = &find(&json, "certificate-time")["findings"][0];
    assert!(finding["message"].as_str().unwrap().starts_with("it ends in "), "{finding:#}");
    assert!(finding["remedy"].as_str().unwrap().contains(&format!("--id {CART}")), "{finding:#}");
    // Renewed, it is well again, and --wait notices.
    let renewed = mesh.authority.issue(&Profile::leaf(CART).valid(now - 60, now + 7200));
    mesh.set_identity("cart", identity_files(&mesh.authority, &renewed));
    let waited = on(&[&cart], &["check", "--wait", "20s"]);
    assert_eq!(waited.code, Some(0), "{}", waited.out);
}

#[test]
fn a_chain_of_another_root_fails_and_so_do_bundles_that_differ() {
    let scene = Scene::new("STRICT");
    let other = Ca::init(&scene.path().join("other-ca"));
    other.issue(WEB, &scene.path().join("web"));
    let web = second(&scene, "web", "policies", "");
    let json = json(&on(&[&scene.cart, &web], &["check", "-o", "json"]));
    assert_eq!(problems(&json), ["trust-bundles"], "{json:#}");
    // A sidecar that shows the chain of one CA and the roots of another.
    let cart_admin = scene.cart.admin;
    let certs = scene.cart.get("/certs").unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    let certs: Value = serde_json::from_str(&certs).unwrap();
    let mixed = relay(web.admin, move |path, body| {
        if path != "/certs" {
            return Some(body);
        }
        let mut own: Value = serde_json::from_str(&body).unwrap();
        own["trustBundles"] = certs["trustBundles"].clone();
        Some(own.to_string())
    });
    let (cart, mixed) = (format!("--admin={cart_admin}"), format!("--admin={mixed}"));
    let ran = command(["check", "-o", "json", cart.as_str(), mixed.as_str()]);
    assert_eq!(problems(&ran.json()), ["certificate-chain"], "{}", ran.out);
}

#[test]
fn a_clock_that_is_off_and_a_proxy_that_is_older_are_told() {
    let scene = Scene::new("STRICT");
    let moved = relay(scene.cart.admin, |path, body| {
        if path != "/server_info" {
            return Some(body);
        }
        let mut info: Value = serde_json::from_str(&body).unwrap();
        info["now"] = "2020-01-01T00:00:00Z".into();
        Some(info.to_string())
    });
    let ran = command(["check", "-o", "json", &format!("--admin={moved}")]);
    assert_eq!((ran.code, problems(&ran.json())), (Some(1), vec!["proxy-clocks".to_owned()]), "{}", ran.out);
    let old = relay(scene.cart.admin, |path, body| (path != "/status").then_some(body));
    let ran = command(["check", "-o", "json", &format!("--admin={old}")]);
    let json = ran.json();
    assert_eq!(ran.code, Some(81), "what cannot be checked is no pass: {json:#}");
    for unknown in ["proxy-ready", "capture-rules", "certificate-source", "policy-ignored-files", "ledger-written"] {
        assert_eq!(state(&json, unknown), "unchecked", "{unknown}");
    }
    assert_eq!(state(&json, "certificate-chain"), "passed");
}

#[test]
fn what_gives_no_answer_is_a_line_and_the_others_are_checked() {
    let scene = Scene::new("STRICT");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let huge = hostile(|_| format!("{{\"name\": \"{}\"}}", "x".repeat(20 << 20)));
    let wrong = hostile(|_| "[1, 2".to_owned());
    let evil =
        hostile(|_| r#"{"name": "\u001b[2Jevil", "namespace": "x\ny", "now": "9999-12-31T23:59:59Z"}"#.to_owned());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses =
        [nobody, huge, wrong, evil, silent.local_addr().unwrap()].map(|address| format!("--admin={address}"));
    let arguments = ["check", "--timeout", "2s"].into_iter().chain(addresses.iter().map(String::as_str));
    let cart = format!("--admin={}", scene.cart.admin);
    let ran = command(arguments.clone().chain([cart.as_str()]));
    assert!(matches!(ran.code, Some(1 | 69)), "{}", ran.out);
    assert!(ran.out.contains("× every proxy answers\n") && ran.out.contains("(of those that answer)"), "{}", ran.out);
    assert!(
        ran.out.contains("no admin server listens there") && ran.out.contains("no answer within 2 s"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains('\u{1b}'), "{}", ran.out);
    let none = command(["check", &addresses[0]]);
    assert_eq!(none.code, Some(69), "{}", none.out);
    assert!(none.out.contains("? every proxy is ready (no proxy answers)\n"), "{}", none.out);
}

#[test]
fn an_engine_tells_of_containers_without_a_sidecar() {
    let scene = Scene::new("STRICT");
    let socket = scene.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let admin = scene.cart.admin;
    thread::spawn(move || {
        let container = |id: &str, labels: &str, mode: &str, networks: &str| {
            format!(
                r#"{{"Id": "{id}", "Names": ["/{id}"], "Labels": {{{labels}}}, "HostConfig": {{"NetworkMode": "{mode}"}}, "NetworkSettings": {{"Networks": {{{networks}}}}}}}"#
            )
        };
        let labels = format!(r#""portcullis.sidecar-of": "cart", "portcullis.admin-port": "{}""#, admin.port());
        let list = [
            container("cart-net", &labels, "shop", &format!(r#""shop": {{"IPAddress": "{}"}}"#, admin.ip())),
            container("cart", "", "container:cart-net", ""),
            container("cron-report", "", "shop", r#""shop": {"IPAddress": "10.9.9.9"}"#),
            container("stranger", "", "bridge", r#""bridge": {"IPAddress": "10.8.8.8"}"#),
        ];
        let body = format!("[{}]", list.join(","));
        for mut stream in listener.incoming().flatten() {
            let _request = stream.read(&mut [0; 4096]);
            let _gone = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    let ran = command(["check", "-o", "json", &format!("--docker={}", socket.display())]);
    let json = ran.json();
    let containers = find(&json, "containers-sidecars");
    assert_eq!((ran.code, &containers["state"]), (Some(0), &"warning".into()), "{containers:#}");
    assert_eq!(containers["findings"][0]["message"], "without a sidecar: cron-report");
    assert!(containers["findings"][0]["remedy"].as_str().unwrap().contains("portcullis compose add cron-report"));
}

#[test]
fn wait_ends_when_time_is_over_and_says_what_it_waits_for() {
    let nobody = format!("--admin={}", free_address());
    let begun = std::time::Instant::now();
    let ran = command(["check", "--wait", "2s", &nobody]);
    assert_eq!(ran.code, Some(69), "{}", ran.out);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    assert!(ran.err.contains("waiting: proxy-answers"), "{}", ran.err);
}

fn offline(folder: &Path, config: &str) -> Ran {
    command(["check", "-c", folder.join(config).to_str().unwrap()])
}

#[test]
fn a_configuration_is_checked_before_a_proxy_is_started_with_it() {
    let scene = Scene::new("STRICT");
    let folder = scene.path();
    let ran = offline(folder, "cart.yaml");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.out.contains("√ certificate, key and roots fit") && !ran.out.contains("portcullis-proxies"),
        "{}",
        ran.out
    );
    fs::write(folder.join("policies/bad.yaml"), "kind: PeerAuthentication\napiVersion: security.istio.io/v1\n")
        .unwrap();
    fs::remove_file(folder.join("web/key.pem")).unwrap();
    let config = fs::read_to_string(folder.join("cart.yaml")).unwrap();
    fs::write(folder.join("next.yaml"), config.replace("cart/key.pem", "web/key.pem")).unwrap();
    let ran = offline(folder, "next.yaml");
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    for part in [
        "× the files and folders",
        "there is no file",
        "× the policy files are valid",
        "bad.yaml:1:1",
        "× certificate, key and roots fit",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
    fs::write(folder.join("wrong.yaml"), config.replace("policies:", "polices:")).unwrap();
    let ran = offline(folder, "wrong.yaml");
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains("× the configuration is valid") && ran.out.contains("wrong.yaml:2:1"), "{}", ran.out);
    assert_eq!(offline(folder, "none.yaml").code, Some(78));
    let config = folder.join("cart.yaml");
    assert_eq!(command(["check", "cart", "-c", config.to_str().unwrap()]).code, Some(64), "who is meant?");
    assert_eq!(command(["check", "--wait", "5"]).code, Some(64));
}

#[test]
fn every_check_has_its_place_in_the_reference() {
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/check.md");
    let text = fs::read_to_string(reference).unwrap();
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let ids: Vec<&str> =
        portcullis_report::check::Id::ALL.into_iter().map(portcullis_report::check::Id::name).collect();
    assert_eq!(headings, ids);
}
