//! The examples of the documents work unchanged: config/quickstart with certs-dev/make, and the blocks of the README.
//!
//! Only the port numbers are replaced by free ones, the same everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{App, BIN, Sidecar, ask, eventually, free_port, passed, portcullis};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, target) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Free ports in the place of those that the examples name.
struct Ports(BTreeMap<u16, u16>);

impl Ports {
    fn new(named: &[u16]) -> Self {
        Self(named.iter().map(|port| (*port, free_port())).collect())
    }

    fn address(&self, named: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.0[&named]).into()
    }

    fn rewrite(&self, file: &Path) {
        let mut text = fs::read_to_string(file).unwrap();
        for (named, free) in &self.0 {
            text = text.replace(&format!("\"127.0.0.1:{named}\""), &format!("\"127.0.0.1:{free}\""));
        }
        fs::write(file, text).unwrap();
    }
}

#[test]
fn the_quick_start_of_config_runs_as_its_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for part in ["config", "certs-dev"] {
        copy(&repository().join(part), &root.join(part));
    }
    // A developer's own certificates are not used.
    let _none = fs::remove_dir_all(root.join("certs-dev/out"));
    for _again in 0..2 {
        let made = Command::new(root.join("certs-dev/make")).env("PORTCULLIS", BIN).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    let app = App::start();
    let mut ports = Ports::new(&[18080, 19090, 19080, 15000, 15010, 9090]);
    ports.0.insert(8080, app.address.port());
    ports.0.insert(9090, app.address.port());
    let quickstart = root.join("config/quickstart");
    for name in ["cart.yaml", "web.yaml"] {
        let checked = portcullis(&["config", "check", quickstart.join(name).to_str().unwrap()]);
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        ports.rewrite(&quickstart.join(name));
    }
    let cart = Sidecar::launch(&quickstart.join("cart.yaml"), ports.address(15000));
    let web = Sidecar::launch(&quickstart.join("web.yaml"), ports.address(15010));
    cart.ready();
    web.ready();

    assert!(passed(ports.address(19080), b"through both"), "{}{}", web.read_log(), cart.read_log());
    assert!(!passed(ports.address(18080), b"plaintext to a STRICT port"));
    let hint = ask(ports.address(18080), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(hint.starts_with(b"HTTP/1.1 403 ") && hint.ends_with(b"through a sidecar.\n"), "{}", hint.escape_ascii());
    assert!(passed(ports.address(19090), b"plaintext to the excepted port"));

    let policies = quickstart.join("policies");
    let ladder = portcullis(&[
        "explain",
        "--policies",
        policies.to_str().unwrap(),
        "--root-namespace",
        "istio-system",
        "--namespace",
        "shop",
        "--labels",
        "app=cart",
        "--port",
        "8080",
    ]);
    let explained = String::from_utf8_lossy(&ladder.stdout);
    assert!(
        ladder.status.success() && explained.contains("STRICT") && explained.contains("shop/default"),
        "{explained}"
    );

    let namespace = policies.join("shop/namespace.yaml");
    let permissive = fs::read_to_string(&namespace).unwrap().replace("mode: STRICT", "mode: PERMISSIVE");
    fs::write(&namespace, permissive).unwrap();
    eventually("the edit of the quick start", || passed(ports.address(18080), b"plaintext").then_some(()));
}

/// The YAML of a document: blocks that are marked as such, and files that a shell block writes (`cat > x.yaml <<'END'`).
fn yaml_of(document: &str) -> Vec<String> {
    let blocks = document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let files = document.split(".yaml <<'END'\n").skip(1).map(|rest| rest.split("\nEND\n").next().unwrap());
    blocks.chain(files).map(|text| format!("{text}\n")).collect()
}

#[test]
fn the_documents_show_valid_policies_and_valid_configurations() {
    let root = repository();
    let markdown = |folder: &str| {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>()
    };
    let documents = [vec![root.join("README.md")], markdown("docs/guides"), markdown("docs/reference")].concat();
    let folder = tempfile::tempdir().unwrap();
    let (mut policies, mut configurations) = (0, 0);
    for document in documents {
        for yaml in yaml_of(&fs::read_to_string(&document).unwrap()) {
            let file = folder.path().join("block.yaml");
            fs::write(&file, &yaml).unwrap();
            let file = file.to_str().unwrap();
            let answer = if yaml.contains("kind: PeerAuthentication") {
                policies += 1;
                portcullis(&["validate", "-f", file])
            } else if yaml.starts_with("workload:") {
                configurations += 1;
                portcullis(&["config", "check", "--no-paths", file])
            } else {
                continue;
            };
            let said = String::from_utf8_lossy(&answer.stdout);
            assert!(answer.status.success(), "{}: {yaml}{said}", document.display());
        }
    }
    assert!(policies >= 3 && configurations >= 3, "{policies} policies, {configurations} configurations");
}
