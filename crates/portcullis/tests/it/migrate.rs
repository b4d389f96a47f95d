//! `migrate plan|status|next` on running sidecars, up to STRICT for the mesh.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{BIN, Ran, Scene, eventually, passed};

fn migrate(scene: &Scene, arguments: &[&str]) -> Ran {
    let policies = scene.path().join("policies");
    let admin = format!("--admin={}", scene.cart.admin);
    let mut command = Command::new(BIN);
    command.arg("migrate").args(arguments).args([
        "--policies",
        policies.to_str().unwrap(),
        &admin,
        "--min-observation",
        "0s",
    ]);
    command.stdin(Stdio::null()).output().unwrap().into()
}

/// `portcullis apply -f - --guard 1s`.
fn apply(scene: &Scene, yaml: &str) -> Ran {
    let policies = scene.path().join("policies");
    let admin = format!("--admin={}", scene.cart.admin);
    let mut command = Command::new(BIN);
    command.args(["apply", "-f", "-", "--guard", "1s", "--policies", policies.to_str().unwrap(), &admin]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_namespace_is_switched_when_its_last_plaintext_client_is_gone_and_the_mesh_after_it() {
    let scene = Scene::new("PERMISSIVE");
    let (_web, listen) = scene.web();
    assert!(passed(listen, b"over mtls") && passed(scene.inbound, b"plain"));
    let blocked = eventually("the plaintext client blocks", || {
        let ran = migrate(&scene, &["plan", "-o", "json"]);
        (ran.code == Some(80)).then_some(ran)
    });
    let report = blocked.json();
    assert_eq!((&report["kind"], &report["step"]), (&"MigrationReport".into(), &"monitor".into()), "{report:#}");
    assert_eq!(report["namespaces"][0]["standing"], "BLOCKED");
    let blocker = &report["namespaces"][0]["blockers"][0];
    assert_eq!((&blocker["workload"], &blocker["port"]), (&"cart".into(), &8080.into()));
    let next = migrate(&scene, &["next"]);
    assert_eq!((next.code, next.out.as_str()), (Some(80), ""), "{}", next.err);
    assert!(next.err.contains("Step 2 of 5") && next.err.contains("-> cart:8080"), "{}", next.err);

    let forced = migrate(&scene, &["next", "--force-namespace", "shop", "--reason", "the owner: \"go\""]);
    assert_eq!(forced.code, Some(0), "{}", forced.err);
    let yaml: serde_yaml::Value = serde_yaml::from_str(&forced.out).unwrap();
    assert_eq!(yaml["metadata"]["annotations"]["portcullis/reason"], "the owner: \"go\"");
    assert!(forced.err.contains("this refuses"), "{}", forced.err);
    let typo = migrate(&scene, &["next", "--force-namespace", "shpo", "--reason", "go"]);
    assert_eq!((typo.code, typo.out.as_str()), (Some(65), ""), "{}", typo.err);
    assert!(typo.err.contains("no sidecar is in namespace \"shpo\"; there are: shop"), "{}", typo.err);
    for wrong in [&["next", "--force-namespace", "shop"][..], &["next", "-o", "sarif"], &["next", "--reason", "x"]] {
        assert_eq!(migrate(&scene, wrong).code, Some(64), "{wrong:?}");
    }

    let window = ["--window", "2s"];
    let next = eventually("the plaintext client has left the window", || {
        assert!(passed(listen, b"over mtls"));
        let ran = migrate(&scene, &[&["next"][..], &window].concat());
        (ran.code == Some(0)).then_some(ran)
    });
    let status = migrate(&scene, &[&["status"][..], &window].concat());
    assert!(
        status.out.starts_with("Step 3 of 5: STRICT for one namespace after another\nNext: STRICT for shop"),
        "{}",
        status.out
    );
    assert!(status.out.contains("shop: PERMISSIVE for "), "{}", status.out);
    let admin = format!("--admin {}", scene.cart.admin);
    let [folder, flags] = [
        format!("--policies {}", scene.path().join("policies").display()),
        format!("--window 2s --min-observation 0s {admin}"),
    ];
    let again =
        format!("`portcullis migrate next {folder} {flags} | portcullis apply -f - {folder} --guard 10m {admin}`");
    assert!(status.out.contains(&again), "{}", status.out);
    assert_eq!(
        next.out,
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n  namespace: shop\nspec:\n  mtls:\n    mode: STRICT\n"
    );
    let folder = scene.path().join("next");
    let written = eventually("it is written", || {
        assert!(passed(listen, b"over mtls"));
        let arguments = ["next", "--write", folder.to_str().unwrap()];
        Some(migrate(&scene, &[&arguments[..], &window].concat())).filter(|ran| ran.code == Some(0))
    });
    let file = folder.join("shop.peerauthentication.default.yaml");
    assert_eq!(written.out, format!("{}\n", file.display()));
    assert_eq!(fs::read_to_string(file).unwrap(), next.out);
    let applied = apply(&scene, &next.out);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert!(applied.out.contains("default configured\n") && applied.out.ends_with("default kept\n"), "{}", applied.out);

    // Nobody needs to have called lately: what is STRICT already is no question any more.
    let mesh = migrate(&scene, &["next"]);
    assert_eq!(mesh.code, Some(0), "{}", mesh.err);
    assert!(mesh.out.contains("namespace: istio-system") && mesh.out.contains("mode: STRICT"), "{}", mesh.out);
    assert!(mesh.err.contains("Step 5 of 5"), "{}", mesh.err);
    assert_eq!(apply(&scene, &mesh.out).code, Some(0));
    let done = migrate(&scene, &["next"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{}", done.err);
    let plan = migrate(&scene, &["plan"]);
    assert_eq!(plan.code, Some(0), "{}", plan.out);
    assert!(plan.out.contains("portcullis delete pa/default -n shop"), "{}", plan.out);
    assert_eq!(migrate(&scene, &["status", "-o", "json"]).json()["step"], "done");
    assert!(passed(listen, b"over mtls") && !passed(scene.inbound, b"plain"));
}

#[test]
fn nothing_is_suggested_while_a_sidecar_is_silent() {
    let scene = Scene::new("PERMISSIVE");
    let (_web, listen) = scene.web();
    assert!(passed(listen, b"over mtls"));
    let silent = ["--admin", "127.0.0.1:1"];
    let plan = eventually("it is known that a sidecar is silent", || {
        let ran = migrate(&scene, &[&["plan"][..], &silent].concat());
        (ran.code == Some(69)).then_some(ran)
    });
    assert!(plan.out.contains("UNREACHABLE") && plan.out.contains("No answer from 127.0.0.1:1"), "{}", plan.out);
    let next = migrate(&scene, &[&["next"][..], &silent].concat());
    assert_eq!((next.code, next.out.as_str()), (Some(69), ""), "{}", next.err);
}
