//! The main path: a plain client, an outbound sidecar, mTLS, an inbound sidecar with a policy folder, a plain app.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BIN, CART, Ca, PATIENCE, Scene, Sidecar, WEB, ask, eventually, free_address, passed};

#[test]
fn strict_passes_mtls_and_refuses_plaintext() {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"hello"));
    assert_eq!(scene.app.count(), 1);

    let answer = ask(scene.inbound, b"GET / HTTP/1.1\r\n\r\n");
    assert!(answer.as_ref().map_or(true, Vec::is_empty), "{answer:?}");
    assert_eq!(scene.app.count(), 1, "plaintext must not reach the app");

    let allowed = scene.cart.logged(&["connection complete", WEB, "transport=\"mtls\"", "X25519MLKEM768"]);
    assert!(allowed.contains("bytes_recv=5") && allowed.contains("bytes_sent=9"), "{allowed}");
    let refused = scene.cart.logged(&["connection refused", "plaintext_in_strict", "policy=shop/default"]);
    assert!(refused.contains("hint="), "{refused}");
    web.logged(&["connection complete", CART]);
    let metrics = scene.cart.get("/stats/prometheus").unwrap();
    assert!(metrics.contains("reason=\"plaintext_in_strict\""), "{metrics}");
}

#[test]
fn editing_the_policy_flips_the_mode_live() {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    // Each step changes what becomes of plaintext, so that it shows when the new mode is in force.
    for mode in ["PERMISSIVE", "STRICT", "DISABLE", "STRICT", "PERMISSIVE"] {
        scene.set_mode(mode);
        let changed = Instant::now();
        eventually(&format!("plaintext as under {mode}"), || {
            (passed(scene.inbound, b"plain") == (mode != "STRICT")).then_some(())
        });
        assert!(changed.elapsed() < Duration::from_secs(2), "{mode} took {:?}", changed.elapsed());
        if mode != "DISABLE" {
            assert!(passed(listen, b"mesh"), "{mode}\n{}", web.read_log());
        }
    }
}

#[test]
fn a_broken_policy_keeps_the_last_good_one() {
    let scene = Scene::new("STRICT");
    fs::write(scene.path().join("policies/shop.yaml"), "spec: {mtls: {mode: DISABLE}}\n").unwrap();
    scene.cart.logged(&["unknown-kind"]);
    assert!(!passed(scene.inbound, b"plain"));
    scene.set_mode("PERMISSIVE");
    eventually("repaired", || passed(scene.inbound, b"plain").then_some(()));
}

#[test]
fn the_wrong_peer_is_refused_on_both_sides() {
    let scene = Scene::new("PERMISSIVE");
    let other = Ca::init(&scene.path().join("other-ca"));
    other.issue(WEB, &scene.path().join("other"));
    let (stranger, via_stranger) = scene.outbound("stranger", WEB, "other", CART);
    assert!(!passed(via_stranger, b"x"));
    stranger.logged(&["connection refused", "unknown_ca"]);

    let (mistaken, via_mistaken) = scene.outbound("mistaken", WEB, "web", "spiffe://cluster.local/ns/shop/sa/pay");
    assert!(!passed(via_mistaken, b"x"));
    mistaken.logged(&["connection refused", "id_mismatch", "ns/shop/sa/cart"]);
    assert_eq!(scene.app.count(), 0, "nothing of either may reach the app");
}

#[test]
fn a_large_transfer_arrives_whole_both_ways() {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    let payload: Vec<u8> = (0..8_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut writer = TcpStream::connect(listen).unwrap();
    writer.set_read_timeout(Some(PATIENCE)).unwrap();
    writer.write_all(&payload).unwrap();
    writer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    writer.read_to_end(&mut answer).unwrap_or_else(|error| {
        panic!("{error} after {} bytes\n{}\n{}", answer.len(), web.read_log(), scene.cart.read_log())
    });
    assert_eq!(answer.len(), payload.len() + 4);
    assert!(answer[4..] == payload[..], "bytes differ");
}

#[test]
fn new_credentials_are_taken_while_it_runs() {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"one"));
    scene.ca.issue(CART, &scene.path().join("cart"));
    scene.cart.logged(&["credentials generation 2"]);
    assert!(passed(listen, b"two"));
    drop(web);
}

#[test]
fn sigterm_drains_and_exits_clean() {
    let mut scene = Scene::new("STRICT");
    scene.cart.signal("TERM");
    let status = eventually("exit", || scene.cart.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

/// As PID 1 of a container it inherits children that it has not started.
#[test]
fn children_of_others_leave_no_zombies() {
    let folder = tempfile::tempdir().unwrap();
    let (config, admin) = (folder.path().join("cart.yaml"), free_address());
    fs::write(&config, format!("workload: {{name: cart, namespace: shop}}\nadmin: {{listen: \"{admin}\"}}\n")).unwrap();
    // The shell itself becomes the proxy; its children stay, and one of them ends later.
    let child = Command::new("sh")
        .args(["-c", "true & sleep 1 & exec \"$0\" proxy --config \"$1\"", BIN, config.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let proxy = Sidecar { child, admin, log: config };
    eventually("the proxy answers", || proxy.get("/stats/prometheus"));
    let children = format!("/proc/{0}/task/{0}/children", proxy.child.id());
    eventually("no child is left", || fs::read_to_string(&children).unwrap().is_empty().then_some(()));
}

#[test]
fn a_bad_start_has_its_exit_code_and_says_why() {
    let scene = Scene::new("STRICT");
    let run = |file: &str, body: &str| {
        let path = scene.path().join(file);
        fs::write(&path, body).unwrap();
        let output = Command::new(BIN).args(["proxy", "--config", path.to_str().unwrap()]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let workload = "workload: {name: cart, namespace: shop, serviceAccount: cart}\n";
    let (code, text) = run("bad.yaml", &format!("{workload}inbond: {{}}\n"));
    assert!(code == Some(78) && text.contains("bad.yaml:2:1: inbond"), "{code:?} {text}");

    let taken =
        format!("{workload}inbound: {{ports: [{{listen: \"{}\", port: 80, app: \"127.0.0.1:9\"}}]}}\n", scene.inbound);
    let (code, text) = run("taken.yaml", &taken);
    assert!(code == Some(1) && text.contains("in use"), "{code:?} {text}");

    fs::create_dir(scene.path().join("bad-policies")).unwrap();
    fs::write(scene.path().join("bad-policies/x.yaml"), "a: [").unwrap();
    let (code, text) = run("policy.yaml", &format!("{workload}policies: bad-policies\n"));
    assert!(code == Some(65) && text.contains("yaml-syntax"), "{code:?} {text}");

    let mixed = format!(
        "{workload}identity: {{files: {{certificate: cart/cert.pem, privateKey: web/key.pem, trustBundle: cart/ca.pem}}}}\n"
    );
    let (code, text) = run("mixed.yaml", &mixed);
    assert!(code == Some(65) && text.contains("privateKey"), "{code:?} {text}");
}
