//! All commands share their flags: `-f` files, `-c` configuration, `-n` namespace, `-o` output, `-` standard input; a missing
//! file has one exit code and is named; and shells can complete the values.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{BIN, Ran};

const CONFIG: &str = "workload: {name: cart, namespace: shop, serviceAccount: cart, labels: {app: cart}}\n\
                      policies: policies\ninbound: {transparent: \"127.0.0.1:17006\"}\n";
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: cart, namespace: shop}\n\
                      spec: {selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}}\n";
const COMPOSE: &str = "services: {web: {image: web}}\n";

/// Runs a command in a folder, with this on standard input and this configuration in the environment.
struct Run<'a> {
    folder: &'a Path,
    stdin: &'a str,
    variable: Option<&'a str>,
}

impl<'a> Run<'a> {
    fn within(folder: &'a Path) -> Self {
        Self { folder, stdin: "", variable: None }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(BIN);
        command.args(arguments).current_dir(self.folder).env_remove("PORTCULLIS_CONFIG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(text) = self.variable {
            command.env("PORTCULLIS_CONFIG", text);
        }
        let mut child = command.spawn().unwrap();
        // A command that does not read it has closed it already.
        let _closed = child.stdin.take().unwrap().write_all(self.stdin.as_bytes());
        Ran::from(child.wait_with_output().unwrap())
    }
}

/// A folder with a configuration and a policy.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/cart.yaml"), POLICY).unwrap();
    fs::write(folder.path().join("cart.yaml"), CONFIG).unwrap();
    folder
}

#[test]
fn an_input_file_that_is_missing_is_named_and_has_one_exit_code() {
    let folder = folder();
    let missing: [(&[&str], i32); 10] = [
        (&["validate", "-f", "nosuch"], 65),
        (&["explain", "-f", "nosuch", "-n", "shop", "--port", "80"], 65),
        (&["compose", "add", "web", "-f", "nosuch"], 65),
        (&["certs", "issue", "--ca", "nosuch", "--id", "spiffe://a/b", "--out", "out"], 65),
        (&["config", "check", "nosuch"], 78),
        (&["config", "check", "-c", "nosuch"], 78),
        (&["explain", "-c", "nosuch", "--port", "80"], 78),
        (&["intercept", "plan", "-c", "nosuch"], 78),
        (&["proxy", "-c", "nosuch"], 78),
        (&["proxy", "--config", "nosuch"], 78),
    ];
    for (arguments, code) in missing {
        let Ran { code: found, out, err } = Run::within(folder.path()).run(arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {out}{err}");
        // The report of `validate` is its answer.
        let (report, silent) = if arguments[0] == "validate" { (&out, &err) } else { (&err, &out) };
        assert!(silent.is_empty(), "{arguments:?}: {silent}");
        assert!(report.contains("nosuch") && report.contains("there is no"), "{arguments:?}: {report}");
        assert!(!report.contains(":1:1") && !report.contains("os error"), "{arguments:?}: {report}");
    }
    let json = Run::within(folder.path()).run(&["validate", "-f", "nosuch", "-o", "json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["errors"][0]["line"], &json["errors"][0]["reason"]), (&0.into(), &"unreadable".into()), "{json}");
}

#[test]
fn a_dash_is_standard_input_for_every_command_that_reads_a_file() {
    let folder = folder();
    let cases: [(&[&str], &str, &str); 7] = [
        (&["validate", "-f", "-"], POLICY, "valid: 1 document in 1 file"),
        (&["explain", "-f", "-", "-n", "shop", "-l", "app=cart", "--port", "80"], POLICY, "standard input:1"),
        (&["explain", "-c", "-", "--port", "80"], CONFIG, "port 80: STRICT"),
        (&["compose", "add", "web", "-n", "shop", "-f", "-"], COMPOSE, "web-proxy"),
        (&["config", "check", "-c", "-"], CONFIG, "standard input: ok"),
        (&["intercept", "plan", "-c", "-"], CONFIG, "redirect to :17006"),
        (&["identity", "check", "-"], "spiffe://cluster.local/ns/shop/sa/cart\n", "valid"),
    ];
    for (arguments, stdin, expected) in cases {
        let ran = Run { stdin, ..Run::within(folder.path()) }.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(expected), "{arguments:?}: {}", ran.out);
    }
    let wrong = Run { stdin: "workload: {}\n", ..Run::within(folder.path()) };
    let proxy = wrong.run(&["proxy", "-c", "-"]);
    assert!(proxy.code == Some(78) && proxy.err.contains("standard input:1:"), "{}", proxy.err);
    let empty = Run::within(folder.path()).run(&["validate", "-f", "-"]);
    assert!(empty.code == Some(65) && empty.out.contains("standard input: is empty"), "{}", empty.out);
}

#[test]
fn explain_takes_the_workload_from_the_configuration_and_flags_override_it() {
    let folder = folder();
    let at = |variable, arguments: &[&str]| {
        let run = Run { variable, ..Run::within(folder.path()) };
        let ran = run.run(&[&["explain", "--port", "80"], arguments].concat());
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.err);
        ran.out.lines().next().unwrap().to_owned()
    };
    let strict = at(None, &["-c", "cart.yaml"]);
    assert!(strict.starts_with("port 80: STRICT"), "{strict}");
    assert_eq!(at(Some(CONFIG), &[]), strict, "the variable");
    let elsewhere = at(None, &["-c", "cart.yaml", "-n", "elsewhere", "--default-mode", "DISABLE"]);
    assert!(elsewhere.starts_with("port 80: DISABLE"), "{elsewhere}");
    assert!(at(Some(CONFIG), &["-l", "app=other"]).starts_with("port 80: PERMISSIVE"));
    fs::create_dir(folder.path().join("none")).unwrap();
    assert!(at(Some(CONFIG), &["-f", "none"]).starts_with("port 80: PERMISSIVE"));
    // All of it on the command line: the configuration is another workload's, and is not read.
    assert!(at(Some("no configuration"), &["-f", "policies", "-n", "shop", "-l", "app=cart"]).contains("STRICT"));
    let old =
        ["--policies", "policies", "--root-namespace", "istio-system", "--namespace", "shop", "--labels", "app=cart"];
    assert_eq!(at(None, &old), strict, "the flags of earlier versions");

    let nothing = Run::within(folder.path()).run(&["explain", "--port", "80"]);
    assert!(nothing.code == Some(64) && nothing.err.contains("-c FILE"), "{}", nothing.err);
    let wrong = Run { variable: Some("workload: {}"), ..Run::within(folder.path()) }.run(&["explain", "--port", "80"]);
    assert!(wrong.code == Some(78) && wrong.err.contains("PORTCULLIS_CONFIG:1:"), "{}", wrong.err);
    assert!(nothing.out.is_empty() && wrong.out.is_empty());
}

#[test]
fn a_configuration_whose_files_are_missing_does_not_pass_the_check() {
    let folder = folder();
    let run = |arguments: &[&str]| Run::within(folder.path()).run(&[&["config", "check"], arguments].concat());
    let text = format!(
        "{CONFIG}identity:\n  files:\n    certificate: certs/cert.pem\n    privateKey: policies\n    trustBundle: cart.yaml\n"
    )
    .replace("policies: policies", "policies: nowhere");
    fs::write(folder.path().join("wrong.yaml"), &text).unwrap();
    let wrong = run(&["-c", "wrong.yaml"]);
    assert_eq!(wrong.code, Some(65), "{}", wrong.err);
    let lines: Vec<_> = wrong.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", wrong.out);
    assert!(lines[0].starts_with("wrong.yaml:2:11: policies: there is no folder nowhere; create it"), "{}", lines[0]);
    let certificate = "wrong.yaml:6:18: identity.files.certificate: there is no file certs/cert.pem; put it there";
    assert!(lines[1].starts_with(certificate) && lines[1].ends_with("[missing-path]"), "{}", lines[1]);
    assert!(lines[2].contains(":7:17: identity.files.privateKey: policies is not a regular file"), "{}", lines[2]);
    assert!(wrong.err.contains("--no-paths"), "{}", wrong.err);
    // The proxy ends with the same code.
    assert_eq!(Run::within(folder.path()).run(&["proxy", "-c", "wrong.yaml"]).code, Some(65));

    let text_alone = run(&["-c", "wrong.yaml", "--no-paths"]);
    assert_eq!((text_alone.code, text_alone.out.as_str(), text_alone.err.as_str()), (Some(0), "wrong.yaml: ok\n", ""));

    let later = format!("{CONFIG}identity: {{ca: {{address: \"ca:15012\", trustBundle: roots, tokenFile: token}}}}\n");
    fs::write(folder.path().join("later.yaml"), later).unwrap();
    let later = run(&["later.yaml"]);
    assert_eq!((later.code, later.out.as_str()), (Some(0), "later.yaml: ok\n"));
    let warnings: Vec<_> = later.err.lines().collect();
    assert!(warnings.len() == 2 && warnings[0].starts_with("warning: later.yaml:4:"), "{}", later.err);
    assert!(warnings[0].contains("identity.ca.trustBundle: there is no file roots yet"), "{}", later.err);
}

#[test]
fn a_shell_completes_the_values_of_closed_sets_and_the_names_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let script = |shell: &str| Run::within(folder.path()).run(&["completion", shell]).out;
    let bash = script("bash");
    for words in [
        "STRICT PERMISSIVE DISABLE",
        "ecdsa-p256 ecdsa-p384 rsa-2048 rsa-3072 rsa-4096 ed25519",
        "ztunnel envoy envoy-json off",
        "text json",
    ] {
        assert!(bash.contains(&format!("compgen -W \"{words}\"")), "{words}: {bash}");
    }
    let zsh = script("zsh");
    for (flag, action) in [
        ("--config", ":_files' "),
        ("--file", ":_files' "),
        ("--out", ":_files -/' "),
        ("--default-mode", ":(STRICT PERMISSIVE DISABLE)' "),
        ("--key=[Key type", ":(ecdsa-p256 ecdsa-p384 rsa-2048 rsa-3072 rsa-4096 ed25519)' "),
        ("--key=[Its private key", ":_files' "),
        ("--url", ":_urls' "),
    ] {
        let start = if flag.contains('=') { flag.to_owned() } else { format!("{flag}=") };
        let is_flag = |line: &&str| line.trim_start_matches(['\'', '*']).starts_with(&start);
        let lines: Vec<_> = zsh.lines().filter(is_flag).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(action)), "{flag}: {lines:#?}");
    }
}
