//! Each command of the built binary: valid and invalid input, the JSON that programs rely on, and the exit code.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use portcullis_identity::SpiffeId;
use portcullis_identity::leaf::{Compat, Role, check};
use serde_json::{Value, json};

use crate::support::{BIN, Ran, run};

/// The keys of an object, in the order of the alphabet.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n"
    )
}

mod command_line {
    use super::*;

    #[test]
    fn wrong_usage_exits_64_with_a_word_on_standard_error_only() {
        let wrong: [&[&str]; 14] = [
            &["bogus"],
            &["--bogus"],
            &["identity"],
            &["identity", "check"],
            &["validate"],
            &["validate", "-f"],
            &["validate", "-f", ".", "-o", "xml"],
            &["explain", "--port", "80"],
            &["certs", "issue"],
            &["certs", "init", "--out", "x", "--trust-domain", "Not A Domain"],
            &["config", "check"],
            &["healthcheck", "--url", "https://127.0.0.1/"],
            &["proxy"],
            &["version", "extra"],
        ];
        for arguments in wrong {
            let ran = run(arguments);
            assert_eq!(ran.code, Some(64), "{arguments:?}: {}", ran.err);
            assert!(ran.out.is_empty() && !ran.err.is_empty(), "{arguments:?}");
        }
    }

    #[test]
    fn help_is_an_answer() {
        for arguments in [&[] as &[&str], &["-h"], &["--help"], &["help"], &["help", "certs", "issue"], &["demo", "-h"]]
        {
            let ran = run(arguments);
            assert_eq!(ran.code, Some(0), "{arguments:?}");
            assert!(ran.out.contains("Usage: portcullis") && ran.err.is_empty(), "{arguments:?}: {}", ran.out);
        }
        assert!(run(&["--help"]).out.contains("78  bad configuration"));
    }

    #[test]
    fn version_is_said_in_both_forms() {
        let version = env!("CARGO_PKG_VERSION");
        for arguments in [&["--version"] as &[&str], &["-V"], &["version"]] {
            let ran = run(arguments);
            assert!(ran.code == Some(0) && ran.out.starts_with(&format!("portcullis {version} ")), "{}", ran.out);
        }
        let json = run(&["version", "-o", "json"]).json();
        assert_eq!(json["version"], version);
        assert_eq!(keys(&json), ["commit", "target", "tls", "version"]);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error_but_a_full_disk_is() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(BIN).arg("--help").stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));

        let full = File::options().write(true).open("/dev/full").unwrap();
        let status = Command::new(BIN).arg("version").stdout(full).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

mod identity {
    use super::*;

    #[test]
    fn a_valid_id_is_valid() {
        let ran = run(&["identity", "check", "spiffe://cluster.local/ns/shop/sa/cart", "-o", "json"]);
        assert_eq!((ran.code, ran.json()), (Some(0), json!({"valid": true, "class": "", "reason": ""})));
        assert_eq!(run(&["identity", "check", "spiffe://a/b"]).out, "valid\n");
    }

    #[test]
    fn a_wrong_id_has_its_class_and_its_reason() {
        for (id, class) in
            [("spiffe://A/b", "td-char"), ("", "empty"), ("-x", "scheme"), ("spiffe://a/", "trailing-slash")]
        {
            let ran = run(&["identity", "check", "-o", "json", id]);
            let json = ran.json();
            assert_eq!((ran.code, &json["valid"], &json["class"]), (Some(65), &json!(false), &json!(class)), "{id}");
            assert!(!json["reason"].as_str().unwrap().is_empty());
        }
        let text = run(&["identity", "check", "spiffe://a/.."]);
        assert!(text.code == Some(65) && text.out.contains("[dot-segment]"), "{}", text.out);
    }
}

mod validate {
    use super::*;

    #[test]
    fn a_folder_is_read_with_what_lies_below_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("shop")).unwrap();
        fs::write(folder.path().join("mesh.yaml"), policy("default", "istio-system", "{mtls: {mode: STRICT}}"))
            .unwrap();
        fs::write(folder.path().join("shop/a.yml"), policy("a", "shop", "{mtls: {mode: DISABLE}}")).unwrap();
        fs::write(folder.path().join("notes.txt"), "mode: [").unwrap();
        fs::write(folder.path().join(".hidden.yaml"), "mode: [").unwrap();
        let ran = run(&["validate", "-f", path(folder.path()), "-o", "json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.out);
        assert_eq!(ran.json(), json!({"valid": true, "documents": 2, "errors": [], "warnings": []}));
        // The same file, named twice, is no duplicate.
        let mesh = folder.path().join("mesh.yaml");
        let twice = run(&["validate", "-f", path(&mesh), path(folder.path())]);
        assert_eq!(
            (twice.code, twice.out.as_str()),
            (Some(0), "valid: 2 documents in 2 files, 0 errors, 0 warnings\n")
        );
    }

    #[test]
    fn json_files_are_read_and_their_mistakes_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mesh.json");
        let document = |mode: &str| {
            json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                "metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"mtls": {"mode": mode}}})
        };
        fs::write(&file, serde_json::to_string_pretty(&document("STRICT")).unwrap()).unwrap();
        let ran = run(&["validate", "-f", path(folder.path()), "-o", "json"]);
        assert_eq!((ran.code, &ran.json()["documents"]), (Some(0), &json!(1)), "{}", ran.out);
        fs::write(&file, document("STRIKT").to_string()).unwrap();
        let ran = run(&["validate", "-f", path(folder.path()), "-o", "json"]);
        assert_eq!(
            (ran.code, &ran.json()["errors"][0]["reason"]),
            (Some(65), &json!("unsupported-mode")),
            "{}",
            ran.out
        );
    }

    #[test]
    fn every_mistake_of_every_file_is_told_at_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.yaml"), folder.path().join("two.yaml"));
        fs::write(&one, policy("a", "shop", "{mtls: {mode: strict}, portLevelMtls: {8080: {mode: DISABLE}}}")).unwrap();
        fs::write(&two, policy("b", "shop", "\n  selectr: {}")).unwrap();
        let missing = folder.path().join("gone.yaml");
        let ran = run(&["validate", "-f", path(&one), path(&two), "-f", path(&missing), "-o", "json"]);
        assert_eq!(ran.code, Some(65));
        let json = ran.json();
        assert_eq!(json["valid"], false);
        let errors = json["errors"].as_array().unwrap();
        for error in errors {
            assert_eq!(keys(error), ["column", "field", "file", "line", "message", "reason"]);
        }
        let find = |reason: &str| {
            errors.iter().find(|error| error["reason"] == reason).unwrap_or_else(|| panic!("{reason}: {json}"))
        };
        let mode = find("unsupported-mode");
        assert_eq!((&mode["file"], &mode["field"]), (&json!(path(&one)), &json!("spec.mtls.mode")));
        assert_eq!((&mode["line"], &mode["column"]), (&json!(4), &json!(21)));
        assert_eq!(find("ports-need-selector")["file"], path(&one));
        let unknown = find("unknown-field");
        assert_eq!(
            (&unknown["file"], &unknown["line"], &unknown["column"]),
            (&json!(path(&two)), &json!(5), &json!(3))
        );
        assert_eq!(find("unreadable")["file"], path(&missing));
        let text = run(&["validate", "-f", path(&one)]).out;
        assert!(text.contains(&format!("error: {}:4:21: spec.mtls.mode: ", path(&one))), "{text}");
    }

    #[test]
    fn what_the_proxy_would_not_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, huge) = (folder.path().join("empty.yaml"), folder.path().join("huge.yaml"));
        fs::write(&empty, "").unwrap();
        fs::write(&huge, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        let json = run(&["validate", "-f", path(folder.path()), "-o", "json"]).json();
        let reasons: Vec<_> = json["errors"].as_array().unwrap().iter().map(|error| &error["reason"]).collect();
        assert_eq!(reasons, ["empty-file", "file-too-large"]);
    }

    /// The examples of a guide, letter for letter: the dots are no certificate, and three fields are not Istio's.
    #[test]
    fn istios_settings_of_certificates_are_checked_and_what_istio_ignores_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let operator = |name: &str, mesh: &str| {
            let file = folder.path().join(name);
            let head = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  meshConfig:\n";
            fs::write(&file, format!("{head}{mesh}")).unwrap();
            file
        };
        let pem = |pem: &str| {
            let lines: String = pem.lines().map(|line| format!("        {line}\n")).collect();
            format!(
                "    caCertificates:\n    - pem: |\n{lines}      certSigners:\n      - your-external-ca.example.com\n"
            )
        };
        let dots = pem("-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----");
        let roots = operator("roots.yaml", &dots);
        let settings =
            "    certificates:\n      secretTTL: 24h\n      workloadCertTTL: 24h\n      workloadRSAKeySize: 4096\n";
        let settings = operator("settings.yaml", settings);
        let ran = run(&["validate", "-f", path(&roots), path(&settings), "-o", "json"]);
        let json = ran.json();
        assert_eq!((ran.code, json["errors"].as_array().unwrap().len()), (Some(65), 1), "{json}");
        let error = &json["errors"][0];
        assert_eq!((&error["file"], &error["line"], &error["column"]), (&json!(path(&roots)), &json!(7), &json!(9)));
        assert_eq!(error["field"], "spec.meshConfig.caCertificates[0].pem");

        let root = portcullis_testkit::certs::Authority::root("cluster.local").bundle_pem();
        operator("roots.yaml", &pem(&root));
        let ran = run(&["validate", "-f", path(folder.path())]);
        let text = &ran.out;
        assert_eq!(ran.code, Some(0), "{text}");
        assert!(text.ends_with("valid: 2 documents in 2 files, 0 errors, 3 warnings\n"), "{text}");
        for (line, field, knob) in [
            (6, "secretTTL", "set SECRET_TTL in the environment of its agents"),
            (7, "workloadCertTTL", "set DEFAULT_WORKLOAD_CERT_TTL in the environment of istiod"),
            (8, "workloadRSAKeySize", "set WORKLOAD_RSA_KEY_SIZE in the environment of its agents"),
        ] {
            let warning =
                text.lines().find(|said| said.contains(&format!(":{line}:"))).unwrap_or_else(|| panic!("{text}"));
            let parts = ["warning: ", field, "works here, ignored by Istio", knob, "[ignored-by-istio]"];
            assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
        }
        operator("settings.yaml", "    certificates: {workloadRSAKeySize: 1024, secretTTL: 1d}\n");
        let text = run(&["validate", "-f", path(&settings)]).out;
        assert!(text.contains("write 2048, 3072 or 4096") && text.contains("24h, 1h30m"), "{text}");
    }

    #[test]
    fn a_warning_does_not_make_a_file_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("service.yaml");
        fs::write(&file, "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\n").unwrap();
        let ran = run(&["validate", "-f", path(&file), "-o", "json"]);
        let json = ran.json();
        assert_eq!((ran.code, &json["valid"]), (Some(0), &json!(true)));
        assert_eq!((&json["warnings"][0]["reason"], &json["warnings"][0]["line"]), (&json!("ignored-kind"), &json!(1)));
    }
}

mod explain {
    use super::*;

    fn ask(folder: &Path, more: &[&str]) -> Ran {
        let fixed = ["explain", "--policies", path(folder), "--root-namespace", "istio-system", "--namespace", "shop"];
        run(&[&fixed, more].concat())
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        file("mesh.yaml", policy("mesh", "istio-system", "{mtls: {mode: STRICT}}"));
        let selector = "selector: {matchLabels: {app: cart}}";
        let ports = format!("{{{selector}, mtls: {{mode: UNSET}}, portLevelMtls: {{9090: {{mode: DISABLE}}}}}}");
        file("cart.yaml", policy("cart", "shop", &ports));
        file("other.yaml", policy("other", "elsewhere", "{mtls: {mode: DISABLE}}"));
        folder
    }

    #[test]
    fn the_ladder_runs_from_the_mesh_to_the_port() {
        let folder = folder();
        let ran = ask(folder.path(), &["--labels", "app=cart,tier=x", "--port", "9090", "-o", "json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let json = ran.json();
        assert_eq!(keys(&json), ["decidedBy", "ignored", "ladder", "mode", "port"]);
        let cart = path(&folder.path().join("cart.yaml")).to_owned();
        let decided = json!({"scope": "port", "namespace": "shop", "name": "cart", "file": cart, "line": 1});
        assert_eq!((&json["port"], &json["mode"], &json["decidedBy"]), (&json!(9090), &json!("DISABLE"), &decided));
        let ladder = json["ladder"].as_array().unwrap();
        let scopes: Vec<_> = ladder.iter().map(|rung| (&rung["scope"], &rung["mode"], &rung["applied"])).collect();
        let expected = [("mesh", "STRICT", false), ("workload", "UNSET", false), ("port", "DISABLE", true)];
        let expected = expected.map(|(scope, mode, applied)| (json!(scope), json!(mode), json!(applied)));
        assert_eq!(scopes, expected.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
        assert_eq!(keys(&ladder[0]), ["applied", "file", "line", "mode", "name", "namespace", "scope"]);
        let ignored = &json["ignored"][0];
        assert_eq!(keys(ignored), ["file", "line", "name", "namespace", "reason", "scope"]);
        assert_eq!((&ignored["name"], &ignored["reason"]), (&json!("other"), &json!("other-namespace")));
        let text = ask(folder.path(), &["--labels", "app=cart", "--port", "9090"]).out;
        assert!(text.starts_with("port 9090: DISABLE"), "{text}");
    }

    #[test]
    fn the_default_mode_has_no_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let json = ask(folder.path(), &["--port", "1", "-o", "json"]).json();
        let default = json!({"scope": "default", "namespace": null, "name": null, "file": null, "line": null});
        assert_eq!((&json["mode"], &json["decidedBy"]), (&json!("PERMISSIVE"), &default));
        let json = ask(folder.path(), &["--port", "1", "--default-mode", "STRICT", "-o", "json"]).json();
        assert_eq!(json["mode"], "STRICT");
    }

    #[test]
    fn a_policy_without_effect_on_this_workload_is_warned_about() {
        let folder = folder();
        let other = "{selector: {matchLabels: {tier: x}}, mtls: {mode: STRICT}}";
        fs::write(folder.path().join("more.yaml"), policy("zzz", "shop", other)).unwrap();
        let ran = ask(folder.path(), &["--labels", "app=cart,tier=x", "--port", "80", "-o", "json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.err.contains("more.yaml:1:") && ran.err.contains("[policy-conflict]"), "{}", ran.err);
        assert_eq!(ask(folder.path(), &["--labels", "app=cart", "--port", "80"]).err, "");
    }

    #[test]
    fn a_set_with_a_mistake_has_no_answer() {
        let folder = folder();
        fs::write(folder.path().join("bad.yaml"), policy("bad", "shop", "{mtls: {mode: OFF}}")).unwrap();
        let ran = ask(folder.path(), &["--port", "80", "-o", "json"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(65), ""));
        assert!(ran.err.contains("bad.yaml:4:") && ran.err.contains("[wrong-type]"), "{}", ran.err);
        assert_eq!(ask(&folder.path().join("nowhere"), &["--port", "80"]).code, Some(65));
        let misspelt = run(&[
            "explain",
            "--policies",
            path(folder.path()),
            "--root-namespace",
            "x",
            "--namespace",
            "Shop",
            "--port",
            "1",
        ]);
        assert!(misspelt.code == Some(64) && misspelt.err.contains("lower-case"), "{}", misspelt.err);
        for wrong in [
            &["--port", "0"] as &[&str],
            &["--port", "http"],
            &["--port", "65536"],
            &["--port", "80", "--labels", "app"],
        ] {
            assert_eq!(ask(folder.path(), wrong).code, Some(64), "{wrong:?}");
        }
    }
}

mod certs {
    use super::*;

    const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

    fn ca(folder: &Path) -> String {
        let ca = path(&folder.join("ca")).to_owned();
        let ran = run(&["certs", "init", "--out", &ca, "--trust-domain", "example.org"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
        ca
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn der(pem: &Path) -> Vec<u8> {
        use rustls_pki_types::{CertificateDer, pem::PemObject as _};
        CertificateDer::from_pem_file(pem).unwrap().to_vec()
    }

    #[test]
    fn a_ca_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let ca = ca(folder.path());
        let folder = Path::new(&ca);
        assert_eq!(names(folder), ["ca-cert.pem", "ca-key.pem", "root-cert.pem"]);
        assert_eq!(mode(&folder.join("ca-key.pem")), 0o600);
        let before = fs::read(folder.join("ca-key.pem")).unwrap();
        let again = run(&["certs", "init", "--out", &ca]);
        assert!(again.code == Some(1) && again.err.contains("exists"), "{}", again.err);
        assert_eq!(fs::read(folder.join("ca-key.pem")).unwrap(), before);
    }

    #[test]
    fn a_leaf_of_every_key_type_is_an_svid_for_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let ca = ca(folder.path());
        for key in ["ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096", "ed25519"] {
            let out = folder.path().join(key);
            let ran =
                run(&["certs", "issue", "--ca", &ca, "--id", ID, "--out", path(&out), "--key", key, "--ttl", "90m"]);
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{key}: {}", ran.err);
            assert_eq!(names(&out), ["ca.pem", "cert.pem", "key.pem"]);
            assert_eq!(mode(&out.join("key.pem")), 0o600, "{key}");
            let leaf = check(&der(&out.join("cert.pem")), Compat::default(), Role::Server).unwrap();
            assert_eq!(leaf.id, SpiffeId::parse(ID).unwrap(), "{key}");
            let root = fs::read(Path::new(&ca).join("root-cert.pem")).unwrap();
            assert_eq!(fs::read(out.join("ca.pem")).unwrap(), root, "{key}");
        }
    }

    #[test]
    fn nothing_is_replaced_without_force_and_then_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let ca = ca(folder.path());
        let out = folder.path().join("cart");
        fs::create_dir(&out).unwrap();
        // Only one file is in the way: none may be written. What others may read stays so until it is replaced.
        let mut old = File::options().write(true).create_new(true).mode(0o644).open(out.join("key.pem")).unwrap();
        old.write_all(b"old").unwrap();
        let fixed = ["certs", "issue", "--ca", &ca, "--id", ID, "--out", path(&out)];
        let kept = run(&fixed);
        assert!(kept.code == Some(1) && kept.err.contains("--force"), "{}", kept.err);
        assert_eq!(
            (names(&out), fs::read(out.join("key.pem")).unwrap()),
            (vec!["key.pem".to_owned()], b"old".to_vec())
        );
        assert_eq!(run(&[&fixed[..], &["--force"]].concat()).code, Some(0));
        assert_eq!(names(&out), ["ca.pem", "cert.pem", "key.pem"]);
        assert_eq!(mode(&out.join("key.pem")), 0o600);
        let first = fs::read(out.join("cert.pem")).unwrap();
        assert_eq!(run(&[&fixed[..], &["--force"]].concat()).code, Some(0));
        assert_ne!(fs::read(out.join("cert.pem")).unwrap(), first, "a new certificate each time");
    }

    #[test]
    fn wrong_ids_lifetimes_and_cas_have_different_errors() {
        let folder = tempfile::tempdir().unwrap();
        let ca = ca(folder.path());
        let out = path(&folder.path().join("out")).to_owned();
        let issue = |more: &[&str]| run(&[&["certs", "issue", "--out", &out], more].concat());
        for id in ["spiffe://other.org/ns/a/sa/b", "spiffe://example.org", "example.org/x", "spiffe://example.org/a/"] {
            let ran = issue(&["--ca", &ca, "--id", id]);
            assert_eq!(ran.code, Some(65), "{id}: {}", ran.err);
        }
        assert_eq!(issue(&["--ca", &ca, "--id", ID, "--ttl", "30s"]).code, Some(65));
        for wrong in [["--ttl", "24"], ["--ttl", "0h"], ["--key", "dsa"]] {
            assert_eq!(issue(&[&["--ca", &ca, "--id", ID], &wrong[..]].concat()).code, Some(64), "{wrong:?}");
        }
        assert_eq!(issue(&["--ca", "/nowhere/at/all", "--id", ID]).code, Some(65));
        fs::write(Path::new(&ca).join("ca-cert.pem"), "no PEM").unwrap();
        assert_eq!(issue(&["--ca", &ca, "--id", ID]).code, Some(65));
        assert!(!Path::new(&out).exists(), "nothing was written");
    }

    fn ensure(ca: &Path, id: &str, out: &Path, more: &[&str]) -> Ran {
        run(&[&["certs", "ensure", "--ca", path(ca), "--id", id, "--out", path(out)], more].concat())
    }

    fn word(ran: &Ran) -> &str {
        ran.out.split(':').next().unwrap()
    }

    #[test]
    fn a_first_start_makes_ca_and_leaf_and_a_second_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, out) = (folder.path().join("new/ca"), folder.path().join("certs/cart"));
        let first = ensure(&ca, ID, &out, &[]);
        assert_eq!((first.code, word(&first)), (Some(0), "issued"), "{}", first.err);
        assert_eq!(names(&ca), ["ca-cert.pem", "ca-key.pem", "root-cert.pem"]);
        assert_eq!(names(&out), ["ca.pem", "cert.pem", "key.pem"]);
        assert_eq!((mode(&ca.join("ca-key.pem")), mode(&out.join("key.pem"))), (0o600, 0o600));
        let leaf = fs::read(out.join("cert.pem")).unwrap();
        let second = ensure(&ca, ID, &out, &["--ttl", "90d", "--key", "rsa-2048"]);
        assert_eq!((second.code, word(&second)), (Some(0), "unchanged"), "{}", second.err);
        assert_eq!(fs::read(out.join("cert.pem")).unwrap(), leaf);
    }

    #[test]
    fn a_leaf_that_is_not_good_is_issued_anew_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let (out, other) = (folder.path().join("out"), folder.path().join("other"));
        ensure(&one, ID, &out, &[]);
        ensure(&two, ID, &other, &[]);
        let anew = |what: &str| {
            let ran = ensure(&one, ID, &out, &[]);
            assert_eq!((ran.code, word(&ran)), (Some(0), "issued"), "{what}: {}", ran.err);
            assert_eq!(word(&ensure(&one, ID, &out, &[])), "unchanged", "{what}");
        };
        fs::remove_file(out.join("key.pem")).unwrap();
        anew("missing");
        fs::copy(other.join("key.pem"), out.join("key.pem")).unwrap();
        anew("a key that does not fit");
        fs::write(out.join("cert.pem"), "no PEM").unwrap();
        anew("unreadable");
        assert_eq!(word(&ensure(&one, "spiffe://example.org/ns/shop/sa/web", &out, &[])), "issued");
        anew("another ID");
        for name in ["cert.pem", "key.pem"] {
            fs::copy(other.join(name), out.join(name)).unwrap();
        }
        anew("another CA");
        fs::copy(other.join("ca.pem"), out.join("ca.pem")).unwrap();
        anew("another root beside it");
        // Valid from a minute before: with a minute to live it is past the half.
        run(&["certs", "issue", "--ca", path(&one), "--id", ID, "--out", path(&out), "--ttl", "60s", "--force"]);
        anew("half of its life");
    }

    #[test]
    fn a_ca_that_is_there_is_used_or_refused_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, out) = (ca(folder.path()), folder.path().join("out"));
        let ca = Path::new(&ca);
        let key = fs::read(ca.join("ca-key.pem")).unwrap();
        assert_eq!(ensure(ca, ID, &out, &[]).code, Some(0));
        for id in ["spiffe://other.org/ns/a/sa/b", "spiffe://example.org", "example.org/x"] {
            assert_eq!(ensure(ca, id, &out, &[]).code, Some(65), "{id}");
        }
        assert_eq!(ensure(ca, ID, &folder.path().join("short"), &["--ttl", "30s"]).code, Some(65));
        assert_eq!(ensure(ca, ID, &out, &["--ttl", "24"]).code, Some(64));
        fs::remove_file(ca.join("root-cert.pem")).unwrap();
        let half = ensure(ca, ID, &out, &[]);
        assert!(half.code == Some(65) && half.err.contains("root-cert.pem"), "{}", half.err);
        assert_eq!(fs::read(ca.join("ca-key.pem")).unwrap(), key);
    }

    /// Containers that start at once on an empty volume: one CA, and every leaf is of it.
    #[test]
    fn many_processes_at_once_make_one_ca() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        let workload = |number: usize| format!("spiffe://example.org/ns/shop/sa/w{}", number % 8);
        let out = |number: usize| folder.path().join(format!("w{}", number % 8));
        // Two for each workload: they share a folder too.
        let started: Vec<_> = (0..16)
            .map(|number| {
                let (id, out) = (workload(number), out(number));
                let arguments = ["certs", "ensure", "--ca", path(&ca), "--id", &id, "--out", path(&out)];
                Command::new(BIN).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let ended: Vec<_> = started.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let count = |word: &str, pick: fn(&std::process::Output) -> &[u8]| {
            ended.iter().filter(|ended| pick(ended).starts_with(word.as_bytes())).count()
        };
        assert!(ended.iter().all(|ended| ended.status.success()), "{ended:?}");
        assert_eq!(count("made a CA", |ended| &ended.stderr), 1);
        assert_eq!((count("issued", |ended| &ended.stdout), count("unchanged", |ended| &ended.stdout)), (8, 8));
        assert_eq!(names(&ca), ["ca-cert.pem", "ca-key.pem", "root-cert.pem"]);
        for number in 0..8 {
            assert_eq!(word(&ensure(&ca, &workload(number), &out(number), &[])), "unchanged");
        }
    }
}

mod config {
    use super::*;

    const RIGHT: &str = "\
workload: {name: cart, namespace: shop, serviceAccount: cart, labels: {app: cart}}
inbound:
  ports: [{listen: \"127.0.0.1:18080\", port: 8080, app: \"127.0.0.1:8080\"}]
";

    #[test]
    fn a_right_file_is_ok_and_a_wrong_one_lists_every_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cart.yaml");
        fs::write(&file, RIGHT).unwrap();
        let right = run(&["config", "check", path(&file)]);
        assert_eq!((right.code, right.out), (Some(0), format!("{}: ok\n", path(&file))));
        fs::write(&file, format!("{RIGHT}admn: {{}}\nworkers: many\n")).unwrap();
        let wrong = run(&["config", "check", path(&file)]);
        assert_eq!(wrong.code, Some(78));
        let lines: Vec<_> = wrong.out.lines().collect();
        assert_eq!(lines.len(), 2, "{}", wrong.out);
        assert!(
            lines[0].starts_with(&format!("{}:4:1: ", path(&file))) && lines[0].ends_with("[unknown-field]"),
            "{}",
            lines[0]
        );
        assert!(lines[1].starts_with(&format!("{}:5:10: workers: ", path(&file))), "{}", lines[1]);
    }

    #[test]
    fn what_is_no_file_is_a_bad_configuration() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in [folder.path(), &folder.path().join("gone.yaml"), Path::new("/dev/zero")] {
            let ran = run(&["config", "check", path(wrong)]);
            assert_eq!((ran.code, ran.out.as_str()), (Some(78), ""), "{}", wrong.display());
            assert!(ran.err.contains(path(wrong)), "{}", ran.err);
        }
    }

    #[test]
    fn the_proxy_refuses_what_the_check_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cart.yaml");
        fs::write(&file, "workload: {}\n").unwrap();
        let ran = run(&["proxy", "--config", path(&file)]);
        assert!(ran.code == Some(78) && ran.err.contains("cart.yaml:1:"), "{}", ran.err);
    }
}

mod healthcheck {
    use super::*;

    /// A server for one question; returns its URL.
    fn answering(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/healthz/ready", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                let length = stream.read(&mut chunk).unwrap();
                request.extend_from_slice(&chunk[..length]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, server)
    }

    #[test]
    fn ready_not_ready_and_unreachable_have_their_own_exit_codes() {
        let (url, server) = answering("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n");
        let ran = run(&["healthcheck", "--url", &url]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "ready\n"), "{}", ran.err);
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /healthz/ready HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");

        let (url, server) = answering("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready, pending: credentials\n");
        let ran = run(&["healthcheck", "--url", &url]);
        assert!(ran.code == Some(1) && ran.err.contains("pending: credentials"), "{}", ran.err);
        server.join().unwrap();

        let (url, server) = answering("hello\r\n\r\n");
        assert_eq!(run(&["healthcheck", "--url", &url]).code, Some(69));
        server.join().unwrap();

        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(run(&["healthcheck", "--url", &format!("http://{free}/")]).code, Some(69));
    }
}

mod demo {
    use super::*;

    #[test]
    fn every_cell_is_as_it_must_be_and_nothing_stays_behind() {
        let temp = tempfile::tempdir().unwrap();
        let output = Command::new(BIN).args(["demo", "--check"]).env("TMPDIR", temp.path()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(out.contains("15 of 15 as expected") && !out.contains("  NO  "), "{out}");
        for reason in ["plaintext_in_strict", "unknown_ca", "id_mismatch", "no_certificate"] {
            assert!(out.contains(reason), "{reason}: {out}");
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "the folder is gone");
    }

    #[test]
    fn a_folder_that_was_asked_for_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let status = Command::new(BIN)
            .args(["demo", "--keep"])
            .env("TMPDIR", temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let kept: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(kept[0].join("cart.log").exists() && kept[0].join("policies/cart.yaml").exists());
        // Both certificates of the mesh come from the authority, which the sidecars never left a key with.
        let issued = run(&["ca", "log", "--dir", kept[0].join("ca").to_str().unwrap()]).out;
        for id in ["sa/cart", "sa/web"] {
            let line = issued.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id}: {issued}"));
            assert!(line.contains("issued") && line.contains("token"), "{line}");
        }
        assert!(!kept[0].join("certs").exists());
    }
}
