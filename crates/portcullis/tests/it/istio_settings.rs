//! Istio's certificate settings: an IstioOperator in the CA's folder and among a sidecar's policies, and the environment
//! variables of istio-agent and istiod. Real processes; openssl inspects the certificates.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{App, BIN, CART, POLICY, Sidecar, WEB, eventually, free_address, passed, portcullis};
use portcullis_testkit::certs::{Authority, Profile};
use portcullis_testkit::openssl;
use serde_json::Value;

/// The three examples of the guide, with a certificate in the place of its dots and another lifetime than the default.
fn extra_root(pem: &str) -> String {
    let lines: String = pem.lines().map(|line| format!("        {line}\n")).collect();
    format!(
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  meshConfig:\n    caCertificates:\n    \
         - pem: |\n{lines}      certSigners:\n      - your-external-ca.example.com\n"
    )
}

fn certificates(fields: &str) -> String {
    format!(
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  meshConfig:\n    certificates:\n{fields}"
    )
}

fn lifetimes(ttl: &str) -> String {
    certificates(&format!("      secretTTL: {ttl}\n      workloadCertTTL: {ttl}\n"))
}

fn key_size(bits: u32) -> String {
    certificates(&format!("      workloadRSAKeySize: {bits}\n"))
}

/// By rename, as an editor does.
fn put(path: &Path, content: &str) {
    let draft = path.with_file_name(".draft");
    fs::write(&draft, content).unwrap();
    fs::rename(draft, path).unwrap();
}

/// A CA and the folder of a sidecar that gets its certificates there.
struct Scene {
    folder: tempfile::TempDir,
    listen: SocketAddr,
    inbound: SocketAddr,
    app: App,
    authority: Option<Child>,
}

impl Scene {
    /// `write` puts files into the CA's folder before it runs.
    fn new(variables: &[(&str, &str)], write: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("ca");
        let made = portcullis(&["ca", "init", "--dir", dir.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        // Bundles are refreshed each second, so that the test does not wait for them.
        fs::write(
            dir.join("identities.yaml"),
            format!("refreshHint: 1s\nlimits: {{perIdentityPerMinute: 1000}}\nidentities:\n- id: {CART}\n"),
        )
        .unwrap();
        write(&dir);
        fs::create_dir(folder.path().join("policies")).unwrap();
        fs::write(folder.path().join("policies/shop.yaml"), POLICY.replace("MODE", "STRICT")).unwrap();
        let listen = free_address();
        let log = fs::File::create(folder.path().join("ca.log")).unwrap();
        let authority = Command::new(BIN)
            .args(["ca", "run", "--listen", &listen.to_string(), "--dir"])
            .arg(&dir)
            .arg("--bootstrap")
            .arg(folder.path().join("bootstrap"))
            .envs(variables.iter().copied())
            .stdout(log)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let scene = Self { listen, inbound: free_address(), app: App::start(), authority: Some(authority), folder };
        eventually("the CA answers", || {
            portcullis(&["ca", "status", "--dir", dir.to_str().unwrap()]).status.success().then_some(())
        });
        scene
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn cart(&self, variables: &[(&str, &str)]) -> Sidecar {
        let own = "bootstrap/shop/cart";
        let body = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\npolicies: ./policies\n\
             identity: {{ca: {{address: \"{}\", trustBundle: {own}/root-cert.pem, tokenFile: {own}/token}}}}\n\
             inbound:\n  ports: [{{listen: \"{}\", port: 8080, app: \"{}\"}}]\n",
            self.listen, self.inbound, self.app.address
        );
        Sidecar::start_with(self.folder.path(), "cart", &body, |command| {
            command.envs(variables.iter().copied());
        })
    }

    /// A sidecar before cart, with a certificate that comes from elsewhere.
    fn web(&self, external: &Authority) -> (Sidecar, SocketAddr) {
        let issued = external.workload(WEB);
        fs::write(self.path("web-cert.pem"), issued.cert_pem()).unwrap();
        fs::write(self.path("web-key.pem"), issued.key_pem()).unwrap();
        // It trusts the CA's root, and its own, without which its own certificate would be refused.
        let roots = fs::read_to_string(self.path("ca/root-cert.pem")).unwrap() + &external.bundle_pem();
        fs::write(self.path("web-roots.pem"), roots).unwrap();
        let listen = free_address();
        let body = format!(
            "workload: {{name: web, namespace: shop, serviceAccount: web}}\n\
             identity: {{files: {{certificate: web-cert.pem, privateKey: web-key.pem, trustBundle: web-roots.pem}}}}\n\
             outbound:\n  upstreams: [{{listen: \"{listen}\", address: \"{}\", mode: mtls, identities: [\"{CART}\"]}}]\n",
            self.inbound
        );
        (Sidecar::start(self.folder.path(), "web", &body), listen)
    }

    /// The last certificate in the audit: its kind of key, and its life in seconds.
    fn last_issued(&self) -> (String, i64) {
        let audit = fs::read_to_string(self.path("ca/audit.jsonl")).unwrap();
        let mut lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let last = lines.rfind(|line| line["event"] == "issued").unwrap();
        let time = |field: &str| {
            let text = last[field].as_str().unwrap();
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap().unix_timestamp()
        };
        (last["keyType"].as_str().unwrap().to_owned(), time("notAfter") - time("time"))
    }

    /// Has cart ask for another certificate until it is as expected; what was issued before a change is in force may be not.
    fn renews_to(&self, cart: &Sidecar, kind: &str, seconds: i64) {
        eventually(&format!("{kind} for {seconds} s"), || {
            cart.signal("HUP");
            std::thread::sleep(std::time::Duration::from_millis(700));
            let (issued, life) = self.last_issued();
            (issued == kind && (seconds - 5..=seconds + 5).contains(&life)).then_some(())
        });
    }

    fn ca_log(&self) -> String {
        fs::read_to_string(self.path("ca.log")).unwrap()
    }

    fn ca_logged(&self, parts: &[&str]) {
        eventually(&format!("{parts:?}"), || {
            self.ca_log().lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.authority.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// The certificate that a server shows, as openssl reads it. It wants one of ours, which we do not have: that is for later.
fn shown(address: SocketAddr) -> String {
    let shown = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-alpn", "istio"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let (begin, end) = (text.find("-----BEGIN CERTIFICATE").unwrap(), text.find("-----END CERTIFICATE").unwrap());
    let pem = format!("{}-----END CERTIFICATE-----\n", &text[begin..end]);
    String::from_utf8(openssl(["x509", "-noout", "-text"], pem.as_bytes())).unwrap()
}

#[test]
fn the_three_examples_of_the_guide_work_as_they_are_written() {
    // An external CA need not name a trust domain.
    let external =
        Authority::self_signed(&Profile { sans: None, ..Profile::authority("cluster.local", "CN=external") });
    let scene = Scene::new(&[], |dir| {
        fs::write(dir.join("external-ca.yaml"), extra_root(&external.bundle_pem())).unwrap();
        // More than a chain may have certificates, and in one text.
        let more: String = (0..10).map(|_| Authority::root("cluster.local").bundle_pem()).collect();
        fs::write(dir.join("more.yaml"), extra_root(&more)).unwrap();
        fs::write(dir.join("rotation.yaml"), lifetimes("2h")).unwrap();
        fs::write(dir.join("key-size.yaml"), key_size(4096)).unwrap();
    });
    scene.ca_logged(&["an extra root is handed out", "your-external-ca.example.com"]);
    // Keys are made in sidecars, so the CA says that it has no use for that one.
    scene.ca_logged(&["key-size.yaml:6:27", "no-effect-here"]);
    fs::write(scene.path("policies/key-size.yaml"), key_size(4096)).unwrap();
    let cart = scene.cart(&[]);
    let (kind, life) = scene.last_issued();
    assert!(kind == "rsa-4096" && (7195..=7205).contains(&life), "{kind} {life}");
    let text = shown(scene.inbound);
    assert!(text.contains("Public-Key: (4096 bit)") && text.contains(CART), "{text}");
    let dump = cart.get("/config_dump").unwrap();
    for part in
        ["\"keyType\": \"rsa-4096\"", "\"keyTypeFrom\": \"resource\"", "\"ttl\": null", "\"ttlFrom\": \"default\""]
    {
        assert!(dump.contains(part), "{part}: {dump}");
    }
    let certs = cart.get("/certs").unwrap();
    let body: Value = serde_json::from_str(certs.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["trustBundles"][0]["rootCerts"].as_array().unwrap().len(), 12, "{body}");

    // What the external CA has issued is recognised, both ways.
    let (web, outbound) = scene.web(&external);
    assert!(passed(outbound, b"by the extra root"), "{}\n{}", web.read_log(), cart.read_log());

    // Each change holds from the next certificate on.
    put(&scene.path("ca/rotation.yaml"), &lifetimes("1h30m"));
    put(&scene.path("policies/key-size.yaml"), &key_size(2048));
    scene.renews_to(&cart, "rsa-2048", 5400);

    // A root with a mistake changes nothing.
    put(&scene.path("ca/external-ca.yaml"), &extra_root("-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----"));
    scene.ca_logged(&[
        "kept the last good files in force",
        "external-ca.yaml:7:9: spec.meshConfig.caCertificates[0].pem",
    ]);
    assert!(passed(outbound, b"still"), "{}", cart.read_log());
    let status = portcullis(&["ca", "status", "--dir", scene.path("ca").to_str().unwrap(), "-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["extraRoots"], 11);
    // One that is taken out is forgotten by workloads.
    fs::remove_file(scene.path("ca/external-ca.yaml")).unwrap();
    eventually("the extra root is forgotten", || (!passed(outbound, b"no more")).then_some(()));
}

#[test]
fn istios_variables_hold_where_nothing_else_says_so() {
    let scene = Scene::new(&[("DEFAULT_WORKLOAD_CERT_TTL", "1h30m"), ("MAX_WORKLOAD_CERT_TTL", "3h")], |_| ());
    {
        let cart = scene.cart(&[("ECC_SIGNATURE_ALGORITHM", "ECDSA"), ("ECC_CURVE", "P384")]);
        let (kind, life) = scene.last_issued();
        assert!(kind == "ecdsa-p384" && (5395..=5405).contains(&life), "{kind} {life}");
        assert!(cart.get("/config_dump").unwrap().contains("\"keyTypeFrom\": \"environment\""));
        // A resource goes before the environment, in the sidecar and in the CA.
        fs::write(scene.path("policies/key-size.yaml"), key_size(3072)).unwrap();
        put(&scene.path("ca/rotation.yaml"), &lifetimes("2h"));
        scene.renews_to(&cart, "rsa-3072", 7200);
    }
    fs::remove_file(scene.path("policies/key-size.yaml")).unwrap();
    let variables = [
        ("SECRET_TTL", "24h"),
        ("SECRET_GRACE_PERIOD_RATIO", "0.25"),
        ("SECRET_GRACE_PERIOD_RATIO_JITTER", "0.01"),
        ("WORKLOAD_RSA_KEY_SIZE", "2048"),
    ];
    let cart = scene.cart(&variables);
    let (kind, life) = scene.last_issued();
    // It asks for a day, of which the CA grants what is the most.
    assert!(kind == "rsa-2048" && (10_795..=10_805).contains(&life), "{kind} {life}");
    let dump = cart.get("/config_dump").unwrap();
    for part in
        ["\"ttl\": \"86400s\"", "\"ttlFrom\": \"environment\"", "\"gracePeriodRatio\": 0.25", "\"jitter\": 0.01"]
    {
        assert!(dump.contains(part), "{part}: {dump}");
    }
}

#[test]
fn a_variable_that_cannot_be_used_stops_the_start_and_says_so() {
    let scene = Scene::new(&[], |_| ());
    let config = scene.path("x.yaml");
    let body =
        "workload: {name: cart, namespace: shop}\nidentity: {ca: {address: \"127.0.0.1:1\", trustBundle: r.pem}}\n";
    fs::write(&config, body).unwrap();
    let refused = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(BIN).args(arguments).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let proxy = ["proxy", "--config", config.to_str().unwrap()];
    let said = refused(&proxy, &[("SECRET_TTL", "1d"), ("WORKLOAD_RSA_KEY_SIZE", "1024")]);
    assert!(said.contains("SECRET_TTL: \"1d\"") && said.contains("WORKLOAD_RSA_KEY_SIZE: \"1024\""), "{said}");
    let dir = scene.path("ca");
    let run = ["ca", "run", "--dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let said = refused(&run, &[("MAX_WORKLOAD_CERT_TTL", "90d")]);
    assert!(said.contains("MAX_WORKLOAD_CERT_TTL: \"90d\""), "{said}");
}

#[test]
fn a_new_ca_has_the_requested_key_type_and_lifetime() {
    let folder = tempfile::tempdir().unwrap();
    let text = |dir: &Path, name: &str| {
        String::from_utf8(openssl(["x509", "-noout", "-text"], &fs::read(dir.join(name)).unwrap())).unwrap()
    };
    let init = |name: &str, further: &[&str], variables: &[(&str, &str)]| {
        let dir = folder.path().join(name);
        let made = Command::new(BIN)
            .args(["ca", "init", "--dir", dir.to_str().unwrap()])
            .args(further)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        (dir, String::from_utf8(made.stderr).unwrap())
    };
    let istio = [("CITADEL_SELF_SIGNED_CA_CERT_TTL", "48h"), ("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "3072")];
    let (dir, _) = init("istio", &[], &istio);
    for name in ["root-cert.pem", "ca-cert.pem"] {
        assert!(text(&dir, name).contains("Public-Key: (3072 bit)"), "{name}");
    }
    let ends = |seconds: u32| {
        let file = dir.join("root-cert.pem");
        let arguments = ["x509", "-noout", "-checkend", &seconds.to_string(), "-in", file.to_str().unwrap()];
        !Command::new("openssl").args(arguments).stdout(Stdio::null()).status().unwrap().success()
    };
    assert!(!ends(47 * 3600) && ends(49 * 3600));
    let (dir, said) = init("flags", &["--key-type", "ed25519", "--root-ttl", "7d"], &istio);
    assert!(text(&dir, "ca-cert.pem").contains("ED25519") && said.contains("does not accept Ed25519"), "{said}");
    // A renewal keeps to the kind of the root.
    let renewed = portcullis(&["ca", "renew", "--dir", dir.to_str().unwrap()]);
    assert!(renewed.status.success() && text(&dir, "ca-cert.pem").contains("ED25519"), "{renewed:?}");
}
