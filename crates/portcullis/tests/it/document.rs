//! The document that this implements, `data/istio-mtls-guide.md`: each of its commands is typed as it stands there, at running sidecars, and each
//! of its PeerAuthentications is valid.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::proxies::{cells, on};
use crate::support::{BIN, Ran, Scene, Sidecar, eventually, passed};

const DOCUMENT: &str = include_str!("data/istio-mtls-guide.md");

/// What the document says of one command line, and the YAML that stands before it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Typed {
    line: String,
    yaml: String,
}

/// The fenced blocks in their order: language and text.
fn blocks() -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, Vec<&str>, usize)> = None;
    for line in DOCUMENT.lines() {
        let indent = line.len() - line.trim_start().len();
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((language.to_owned(), Vec::new(), indent)),
            (Some(_), Some((language, lines, _))) => blocks.push((language, lines.join("\n") + "\n")),
            (None, Some((language, mut lines, indent))) => {
                lines.push(line.get(indent..).unwrap_or_default());
                open = Some((language, lines, indent));
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none());
    blocks
}

/// Each command of the document once.
fn commands() -> BTreeSet<Typed> {
    let (mut found, mut yaml) = (BTreeSet::new(), String::new());
    for (language, text) in blocks() {
        match language.as_str() {
            "yaml" => yaml = text,
            "bash" => {
                let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
                found.extend(lines.map(|line| Typed {
                    line: line.to_owned(),
                    yaml: if line.contains("apply -f") { yaml.clone() } else { String::new() },
                }));
            }
            _ => {}
        }
    }
    found
}

/// A scene in which web calls cart over mTLS, and somebody without a sidecar was refused.
fn scene() -> (Scene, Sidecar) {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"over mtls") && !passed(scene.inbound, b"GET / HTTP/1.1\r\n\r\n"));
    (scene, web)
}

/// What the words of the document stand for.
fn filled_in(line: &str) -> Vec<String> {
    let known = [
        ("<service-name>", "cart"),
        ("<service>", "cart"),
        ("<pod-name>", "cart"),
        ("<namespace>", "shop"),
        ("<policy-name>", "default"),
    ];
    let line = known.iter().fold(line.to_owned(), |line, (word, meant)| line.replace(word, meant));
    assert!(!line.contains('<'), "{line}");
    line.split(' ').map(str::to_owned).collect()
}

/// What each command must print: the exit code, and its columns or its first words. `None`: another test types it.
fn expected(words: &[&str]) -> Option<(i32, Shape)> {
    Some(match words {
        ["kubectl", "apply", "-f", _] => (0, Shape::Begins("peerauthentication.security.istio.io/")),
        ["kubectl", "get", "peerauthentication", "--all-namespaces"] => {
            (0, Shape::Columns(&["NAMESPACE", "NAME", "MODE", "AGE"]))
        }
        ["kubectl", "get", "peerauthentication", "-n", _, _, "-o", "yaml"] => {
            (0, Shape::Begins("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"))
        }
        ["istioctl", "x", "describe", "service", _] => (0, Shape::Has("Effective PeerAuthentication:")),
        // A client was refused: that is what the exit code says.
        ["istioctl", "x", "auth", "-n", _, _] => {
            (1, Shape::Columns(&["HOST:PORT", "STATUS", "SERVER", "CLIENT", "AUTHN POLICY", "SCOPE"]))
        }
        ["istioctl", "proxy-config", "secret", _] => (
            0,
            Shape::Columns(&[
                "RESOURCE NAME",
                "TYPE",
                "STATUS",
                "VALID CERT",
                "SERIAL NUMBER",
                "NOT AFTER",
                "NOT BEFORE",
            ]),
        ),
        ["istioctl", "proxy-config", "listener", _] => {
            (0, Shape::Columns(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"]))
        }
        // The container is that of the sidecar, and there is no other log: the workload is named instead of a label.
        ["kubectl", "logs", "-l", _, "-c", "istio-proxy"] => (0, Shape::Has("reason=plaintext_in_strict")),
        // `portcullis dashboard` (dashboard.rs) and `portcullis ca log` (ca.rs).
        ["istioctl", "dashboard", "kiali"] | ["kubectl", "logs", "-n", "istio-system", "-l", "app=istiod"] => {
            return None;
        }
        other => panic!("the document has a command that nobody tests: {other:?}"),
    })
}

enum Shape {
    Columns(&'static [&'static str]),
    Begins(&'static str),
    Has(&'static str),
}

impl Shape {
    fn fits(&self, out: &str) -> bool {
        match self {
            Self::Columns(columns) => cells(out).first().is_some_and(|row| row == columns),
            Self::Begins(text) => out.starts_with(text),
            Self::Has(text) => out.contains(text),
        }
    }
}

/// The command with ours instead of the program, and what it needs to know without a cluster.
fn run(typed: &Typed, words: &[&str], scene: &Scene, both: &[&Sidecar]) -> Ran {
    let policies = scene.path().join("policies");
    let local = |arguments: &[&str]| -> Ran {
        let mut command = std::process::Command::new(BIN);
        command.args(arguments).args(["--policies", policies.to_str().unwrap()]);
        command.stdin(std::process::Stdio::null()).output().unwrap().into()
    };
    match words {
        ["kubectl", "apply", "-f", file] => {
            let path = scene.path().join(file);
            fs::write(&path, &typed.yaml).unwrap();
            local(&["apply", "-f", path.to_str().unwrap(), "--dry-run=server"])
        }
        ["kubectl", "get", rest @ ..] => local(&[&["get"], rest].concat()),
        ["kubectl", "logs", ..] => on(both, &["logs", "cart"]),
        [_, rest @ ..] => on(both, rest),
        [] => panic!("an empty line"),
    }
}

#[test]
fn each_command_of_the_document_can_be_typed() {
    let commands = commands();
    assert!(commands.len() >= 12, "{commands:#?}");
    let (scene, web) = scene();
    let both = [&scene.cart, &web];
    for typed in &commands {
        let words = filled_in(&typed.line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((code, shape)) = expected(&words) else { continue };
        let ran =
            eventually(&typed.line, || Some(run(typed, &words, &scene, &both)).filter(|ran| shape.fits(&ran.out)));
        assert_eq!(ran.code, Some(code), "{}: {}{}", typed.line, ran.out, ran.err);
    }
}

#[test]
fn each_policy_of_the_document_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let policies: BTreeSet<String> =
        blocks().into_iter().map(|(_, text)| text).filter(|text| text.contains("kind: PeerAuthentication")).collect();
    assert!(policies.len() >= 10, "{}", policies.len());
    for (index, text) in policies.iter().enumerate() {
        valid(&folder.path().join(format!("{index}.yaml")), text);
    }
}

fn valid(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let ran = crate::support::run(&["validate", "-f", path.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{text}\n{}{}", ran.out, ran.err);
}
