//! Invalid input: each mistake is a clear error at the start, and changes nothing in a running sidecar.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{CART, POLICY, Scene, WEB, ask, eventually, free_port, passed, portcullis};
use portcullis_testkit::certs::{Authority, Profile, now};

/// Replaces by rename, so that no half of it is ever seen.
fn put(path: &Path, content: impl AsRef<[u8]>) {
    let draft = path.with_file_name(".draft");
    fs::write(&draft, content).unwrap();
    fs::rename(draft, path).unwrap();
}

/// Whether `scene` is as before: mTLS passes, plaintext does not.
fn goes_on(scene: &Scene, listen: std::net::SocketAddr, after: &str) {
    assert!(passed(listen, b"mesh"), "mTLS after {after}: {}", scene.cart.read_log());
    assert!(!passed(scene.inbound, b"plain"), "STRICT after {after}");
}

#[test]
fn a_mistake_in_a_running_policy_folder_is_reported_and_changes_nothing() {
    let scene = Scene::new("STRICT");
    let (_web, listen) = scene.web();
    let file = scene.path().join("policies/shop.yaml");
    let huge = format!("{}# {}\n", POLICY.replace("MODE", "DISABLE"), "x".repeat(1024 * 1024));
    let mistakes: [(&str, Vec<u8>); 6] = [
        ("empty-file", Vec::new()),
        ("yaml-syntax", b"apiVersion: [".to_vec()),
        ("unsupported-mode", POLICY.replace("MODE", "OPEN").into_bytes()),
        ("file-too-large", huge.into_bytes()),
        ("yaml-syntax", b"\xff\xfe kind: PeerAuthentication".to_vec()),
        ("unknown-field", POLICY.replace("MODE", "DISABLE}, mtl: {a: b").into_bytes()),
    ];
    for (reason, content) in mistakes {
        put(&file, content);
        let said = scene.cart.logged(&["kept the last good files in force", reason]);
        assert!(said.contains("shop.yaml"), "{said}");
        goes_on(&scene, listen, reason);
        scene.set_mode("PERMISSIVE");
        eventually(&format!("mended after {reason}"), || passed(scene.inbound, b"plain").then_some(()));
        scene.set_mode("STRICT");
        eventually("strict again", || (!passed(scene.inbound, b"plain")).then_some(()));
    }
    // Files that are none, and a folder that is gone.
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    scene.cart.logged(&["kept the last good files in force", "not-regular-file"]);
    goes_on(&scene, listen, "a pipe");
    fs::rename(scene.path().join("policies"), scene.path().join("moved")).unwrap();
    scene.cart.logged(&["kept the last good files in force", "unreadable"]);
    goes_on(&scene, listen, "the folder is gone");
}

#[test]
fn a_mistake_in_running_credentials_is_reported_and_changes_nothing() {
    let scene = Scene::new("STRICT");
    let (_web, listen) = scene.web();
    let cart = scene.path().join("cart");
    let good = |name: &str| fs::read(cart.join(name)).unwrap();
    let (certificate, key, bundle) = (good("cert.pem"), good("key.pem"), good("ca.pem"));
    scene.ca.issue(WEB, &scene.path().join("other"));
    let other = |name: &str| fs::read(scene.path().join("other").join(name)).unwrap();
    let half = certificate[..certificate.len() / 2].to_vec();
    let mistakes: [(&str, &str, Vec<u8>); 6] = [
        ("cert.pem", "identity.files.certificate", half),
        ("cert.pem", "empty", Vec::new()),
        ("key.pem", "identity.files.privateKey", other("key.pem")),
        ("key.pem", "identity.files.privateKey", b"no key at all\n".to_vec()),
        ("ca.pem", "identity.files.trustBundle", b"\n".to_vec()),
        ("ca.pem", "identity.files.trustBundle", certificate.clone()),
    ];
    let mut seen = 0;
    for (name, said, content) in mistakes {
        put(&cart.join(name), &content);
        let reported = |line: &str| line.contains("kept the last good files in force") && line.contains(said);
        eventually(said, || scene.cart.read_log()[seen..].lines().any(reported).then_some(()));
        goes_on(&scene, listen, &format!("{name}: {said}"));
        for (name, content) in [("cert.pem", &certificate), ("key.pem", &key), ("ca.pem", &bundle)] {
            put(&cart.join(name), content);
        }
        eventually("mended", || ends_well(&scene.cart.read_log()).then_some(()));
        seen = scene.cart.read_log().len();
    }
    // A matching pair of another identity.
    put(&cart.join("key.pem"), other("key.pem"));
    put(&cart.join("cert.pem"), other("cert.pem"));
    scene.cart.logged(&["kept the last good files in force", "sa/web"]);
    goes_on(&scene, listen, "another's identity");
}

/// Whether the last word of a log on the files is a good one.
fn ends_well(log: &str) -> bool {
    const GOOD: [&str; 2] = ["the files are good again", " reloaded "];
    let last = log.lines().rev().find(|line| line.contains(" portcullis_reload::engine: ") && !line.contains("asked"));
    last.is_some_and(|line| GOOD.iter().any(|good| line.contains(good)))
}

#[test]
fn a_world_writable_key_is_refused_until_its_mode_is_fixed() {
    let scene = Scene::new("STRICT");
    let (_web, listen) = scene.web();
    let key = scene.path().join("cart/key.pem");
    fs::set_permissions(&key, Permissions::from_mode(0o666)).unwrap();
    let said = scene.cart.logged(&["kept the last good files in force", "anybody may write"]);
    assert!(said.contains("chmod 600"), "{said}");
    goes_on(&scene, listen, "a loose key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    eventually("mended", || ends_well(&scene.cart.read_log()).then_some(()));
}

#[test]
fn an_app_that_is_down_is_named_and_the_sidecar_goes_on() {
    let scene = Scene::new("PERMISSIVE");
    let unused = free_port();
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         policies: ./policies\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound:\n  ports: [{{listen: \"127.0.0.1:{}\", port: 8080, app: \"127.0.0.1:{unused}\"}}]\n",
        free_port()
    );
    let down = crate::support::Sidecar::start(scene.path(), "down", &body);
    let listen = body.split("listen: \"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    for _ in 0..2 {
        let answer = ask(listen, b"hello");
        assert!(answer.is_err(), "the client must see a reset, not an empty answer: {answer:?}");
    }
    let line = down.logged(&["connection refused", "app_unreachable"]);
    assert!(line.contains("hint=") && line.contains(&format!("127.0.0.1:{unused}: Connection refused")), "{line}");
}

/// Starts must fail with the code of the kind of mistake, and say file and what is wrong.
#[test]
fn a_start_on_wrong_input_fails_with_the_right_code() {
    let scene = Scene::new("STRICT");
    let root = scene.path();
    let workload = "workload: {name: cart, namespace: shop, serviceAccount: cart}\n";
    let start = |body: &str| {
        let config = root.join("wrong.yaml");
        fs::write(&config, body).unwrap();
        let output = portcullis(&["proxy", "--config", config.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let with_policies = |content: &[u8]| {
        fs::create_dir_all(root.join("wrong")).unwrap();
        fs::write(root.join("wrong/p.yaml"), content).unwrap();
        start(&format!("{workload}policies: wrong\n"))
    };
    let identity = |certificate: &str, key: &str, bundle: &str| {
        start(&format!(
            "{workload}identity: {{files: {{certificate: {certificate}, privateKey: {key}, trustBundle: {bundle}}}}}\n"
        ))
    };
    let cases = [
        ("an empty policy file", with_policies(b""), 65, "p.yaml"),
        ("a huge policy file", with_policies(&vec![b'#'; 1024 * 1024 + 1]), 65, "file-too-large"),
        ("half a policy", with_policies(b"kind: {"), 65, "p.yaml:1:"),
        ("no policy folder", start(&format!("{workload}policies: nowhere\n")), 65, "nowhere"),
        ("no certificate", identity("nowhere.pem", "cart/key.pem", "cart/ca.pem"), 65, "nowhere.pem"),
        ("no key in the key file", identity("cart/cert.pem", "cart/cert.pem", "cart/ca.pem"), 65, "privateKey"),
        ("another's key", identity("cart/cert.pem", "web/key.pem", "cart/ca.pem"), 65, "privateKey"),
        ("another's certificate", identity("web/cert.pem", "web/key.pem", "web/ca.pem"), 65, "sa/web"),
        ("a folder as certificate", identity("cart", "cart/key.pem", "cart/ca.pem"), 65, "cart"),
        ("an empty configuration", start(""), 78, "workload"),
        ("half a configuration", start("workload: {name: "), 78, "wrong.yaml:1:"),
        (
            "a port that is none",
            start(&format!("{workload}admin: {{listen: \"127.0.0.1:99999\"}}\n")),
            78,
            "wrong.yaml:2:",
        ),
        (
            "mtls without identities",
            start(&format!(
                "{workload}outbound:\n  upstreams: [{{listen: \"127.0.0.1:1\", address: \"127.0.0.1:2\", mode: mtls}}]\n"
            )),
            78,
            "identities",
        ),
    ];
    for (what, (code, said), expected, part) in cases {
        assert_eq!(code, Some(expected), "{what}: {said}");
        assert!(said.starts_with("error: ") && said.contains(part), "{what}: {said}");
    }
    let missing = portcullis(&["proxy", "--config", root.join("none.yaml").to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none.yaml"));
}

#[test]
fn a_certificate_that_has_expired_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let root = Authority::root("cluster.local");
    let late = root.issue(&Profile::leaf(CART).valid(now() - 7200, now() - 3600));
    fs::write(folder.path().join("cert.pem"), late.cert_pem()).unwrap();
    fs::write(folder.path().join("key.pem"), late.key_pem()).unwrap();
    fs::write(folder.path().join("ca.pem"), root.bundle_pem()).unwrap();
    let config = folder.path().join("late.yaml");
    let body = "workload: {name: cart, namespace: shop, serviceAccount: cart}\n\
                identity: {files: {certificate: cert.pem, privateKey: key.pem, trustBundle: ca.pem}}\n";
    fs::write(&config, body).unwrap();
    let start = portcullis(&["proxy", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&start.stderr);
    assert_eq!(start.status.code(), Some(65), "{said}");
    assert!(said.contains("expired") && said.contains("cert.pem"), "{said}");
}
