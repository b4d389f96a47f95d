//! `break-glass` on running sidecars: what is open, until when, whatever became of the command.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::proxies::command;
use crate::support::raw::read_all;
use crate::support::{POLICY, Ran, Scene, Sidecar, eventually, passed};

fn policies(scene: &Scene) -> PathBuf {
    scene.path().join("policies")
}

fn break_glass(scene: &Scene, arguments: &[&str]) -> Ran {
    command([&["break-glass"], arguments, &["--policies", policies(scene).to_str().unwrap()]].concat())
}

fn open(scene: &Scene) {
    eventually("plaintext is let in", || passed(scene.inbound, b"plain").then_some(()));
}

fn closed(scene: &Scene) {
    eventually("plaintext is refused", || (!passed(scene.inbound, b"plain")).then_some(()));
}

fn metric(scene: &Scene) -> i64 {
    let page = scene.cart.get("/stats/prometheus").unwrap();
    let line = page.lines().find(|line| line.starts_with("portcullis_break_glass_seconds ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn it_ends_by_itself_and_cuts_what_it_let_in() {
    let scene = Scene::new("STRICT");
    let (_web, listen) = scene.web();
    assert!(!passed(scene.inbound, b"plain"));
    assert_eq!(metric(&scene), 0);
    let began = now();
    // It returns at once: nobody waits for the end.
    let ran = break_glass(
        &scene,
        &["cart.shop:8080", "--for", "10s", "--reason", "nightly \"import\" fails", "--owner", "ops"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("shop/cart:8080 STRICT -> PERMISSIVE"), "{}", ran.err);
    open(&scene);
    let mut live = TcpStream::connect(scene.inbound).unwrap();
    live.write_all(b"open for long").unwrap();
    let mut mtls = TcpStream::connect(listen).unwrap();
    mtls.write_all(b"over mtls").unwrap();
    assert!((1..=10).contains(&metric(&scene)), "{}", metric(&scene));
    let explained = scene.cart.get("/explain?port=8080").unwrap();
    for part in ["\"scope\": \"break-glass\"", "\"secondsLeft\"", "nightly \\\"import\\\" fails", "\"owner\": \"ops\""]
    {
        assert!(explained.contains(part) || explained.contains(&part.replace(": ", ":")), "{part} in {explained}");
    }
    let offline =
        command(["explain", "-f", policies(&scene).to_str().unwrap(), "-n", "shop", "-l", "app=cart", "-p", "8080"]);
    assert!(offline.out.contains("decided by break-glass shop/break-glass-cart-8080"), "{}", offline.out);

    let (_, cut) = read_all(&live);
    assert!(cut.is_some(), "the connection was reset");
    assert!(now() >= began + 9, "not before its time");
    closed(&scene);
    assert_eq!(metric(&scene), 0);
    scene.cart.logged(&["break-glass: plaintext is let in until then", "shop/break-glass-cart-8080", "ops"]);
    scene.cart.logged(&["break-glass ended", "shop/break-glass-cart-8080"]);
    scene.cart.logged(&["inbound port", "STRICT", "PERMISSIVE"]);
    assert!(scene.cart.get("/changes").unwrap().contains("break-glass shop/break-glass-cart-8080 ended"));
    // Who has an identity notices nothing.
    mtls.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mtls), (b"got:over mtls".to_vec(), None));
    // The file is left, and means nothing any more.
    let list = break_glass(&scene, &["--list"]);
    assert!(list.out.contains("break-glass-cart-8080") && list.out.contains("ended"), "{}", list.out);
    let wide = command(["get", "pa", "-n", "shop", "-o", "wide", "--policies", policies(&scene).to_str().unwrap()]);
    assert!(wide.out.contains("Ended 20"), "{}", wide.out);
}

#[test]
fn it_survives_a_restart_of_the_sidecar_and_not_its_time() {
    let mut scene = Scene::new("STRICT");
    let ran = break_glass(&scene, &["namespace/shop", "--for", "15s", "--reason", "the CA is down"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    open(&scene);
    let restart = |scene: &mut Scene| {
        scene.cart.child.kill().unwrap();
        scene.cart.child.wait().unwrap();
        scene.cart = Sidecar::launch(&scene.path().join("cart.yaml"), scene.cart.admin);
        scene.cart.ready();
    };
    restart(&mut scene);
    assert!(passed(scene.inbound, b"plain"), "it is still open: {}", scene.cart.read_log());
    closed(&scene);
    restart(&mut scene);
    assert!(!passed(scene.inbound, b"plain"), "it has ended for good");
}

#[test]
fn it_ends_early_on_request_and_is_listed_until_then() {
    let scene = Scene::new("STRICT");
    let ran = break_glass(&scene, &["cart.shop", "--for", "1h", "--reason", "x", "--owner", "me"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    open(&scene);
    let list = break_glass(&scene, &["--list", "-o", "json"]).json();
    let item = &list["items"][0];
    assert_eq!((&item["target"], &item["isActive"], &item["owner"]), (&"app=cart".into(), &true.into(), &"me".into()));
    assert!((3500..=3600).contains(&item["secondsLeft"].as_i64().unwrap()));
    let analyzed = command(["analyze", "-f", policies(&scene).to_str().unwrap()]);
    assert!(analyzed.out.contains("PC0302") && !analyzed.out.contains("PC0201"), "{}", analyzed.out);
    let audit = command(["audit", "-f", policies(&scene).to_str().unwrap()]);
    assert!(audit.out.contains("break-glass-cart"), "it is an exception: {} {}", audit.out, audit.err);
    let ended = break_glass(&scene, &["cart.shop", "--end"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let at = Instant::now();
    closed(&scene);
    assert!(at.elapsed() < Duration::from_secs(10));
    assert_eq!(break_glass(&scene, &["cart.shop", "--end"]).code, Some(1));
    assert_eq!(fs::read_dir(policies(&scene)).unwrap().count(), 1);
}

#[test]
fn what_it_cannot_open_is_said() {
    let scene = Scene::new("PERMISSIVE");
    let ran = break_glass(&scene, &["cart.shop", "--for", "1h", "--reason", "x"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.contains("nothing is opened by it"), "{}", ran.err);
    for wrong in [
        &["cart.shop", "--for", "25h", "--reason", "x"][..],
        &["cart.shop", "--for", "1h"],
        &["cart.shop", "--reason", "x"],
        &["cart.shop", "--for", "1h", "--reason", " "],
        &["cart", "--for", "1h", "--reason", "x"],
        &[],
    ] {
        assert_eq!(break_glass(&scene, wrong).code, Some(64), "{wrong:?}");
    }
}

#[test]
fn one_that_is_wrong_opens_nothing_and_keeps_the_last_valid_set() {
    let scene = Scene::new("STRICT");
    let file = policies(&scene).join("glass.yaml");
    let document = |until: &str, reason: &str| {
        let annotations = format!("annotations: {{portcullis/until: \"{until}\", portcullis/reason: \"{reason}\"}}");
        POLICY
            .replace("MODE", "PERMISSIVE")
            .replace("name: default, namespace: shop", &format!("name: glass, namespace: shop, {annotations}"))
    };
    for (until, reason, why) in [
        ("2090-01-01T00:00:00Z", "x", "break-glass-too-long"),
        ("tomorrow", "x", "break-glass-until"),
        ("2026-01-01T00:00:00Z", "", "break-glass-no-reason"),
    ] {
        fs::write(&file, document(until, reason)).unwrap();
        eventually("the sidecar refuses it", || {
            let page = scene.cart.get("/policies")?;
            (page.contains(why) && page.contains("glass.yaml:3:")).then_some(())
        });
        assert!(!passed(scene.inbound, b"plain"), "{why}");
        let valid = command(["validate", "-f", policies(&scene).to_str().unwrap()]);
        assert!(valid.code == Some(65) && (valid.out + &valid.err).contains(why), "{why}");
        let config = scene.path().join("cart.yaml");
        let second = command(["proxy", "-c", config.to_str().unwrap()]);
        assert_ne!(second.code, Some(0));
    }
    fs::remove_file(&file).unwrap();
    eventually("the set is valid again", || {
        let page = scene.cart.get("/policies")?;
        page.replace(": ", ":").contains("\"problem\":null").then_some(())
    });
}
