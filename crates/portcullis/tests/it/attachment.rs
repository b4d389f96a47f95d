//! A sidecar and the holder of its network namespace (`hold --announce`, `proxy --holder`), as real processes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{BIN, eventually, free_address, portcullis};

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Running {
    fn hold(socket: &Path) -> Self {
        let mut command = Command::new(BIN);
        command.args(["hold", "--announce"]).arg(socket).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

struct Scene {
    folder: tempfile::TempDir,
    health: SocketAddr,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), health: free_address() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("holder.sock")
    }

    fn sidecar(&self) -> Running {
        let config = self.folder.path().join("web.yaml");
        let listen = free_address();
        let text = format!(
            "workload: {{name: web, namespace: shop}}\nhealth: {{listen: \"{}\"}}\nadmin: {{listen: \"{listen}\"}}\n",
            self.health
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(BIN);
        command.arg("proxy").arg("-c").arg(&config).arg("--holder").arg(self.socket()).stdin(Stdio::null());
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        Running(command.stdout(log).spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Until it is pending, or not, because of the network.
    fn pending(&self, network: Option<&str>) {
        let url = format!("http://{}/healthz/ready", self.health);
        eventually("what is pending", || {
            let said = portcullis(&["healthcheck", "--url", &url]);
            let said = String::from_utf8(said.stderr).unwrap();
            let is = said.contains("pending")
                && match network {
                    Some(needle) => said.contains(needle),
                    None => !said.contains("redirect rules") && !said.contains("network ("),
                };
            is.then_some(())
        });
    }
}

#[test]
fn a_sidecar_is_not_ready_before_its_holder_has_made_the_rules_and_after_it_has_ended() {
    let scene = Scene::new();
    let mut sidecar = scene.sidecar();
    scene.pending(Some("redirect rules (no holder"));
    let holder = Running::hold(&scene.socket());
    scene.pending(None);
    drop(holder);
    scene.pending(Some("network (the holder of the network namespace has ended)"));
    // In the same namespace, since the test has no other.
    let _holder = Running::hold(&scene.socket());
    scene.pending(None);
    sidecar.signal("TERM");
    assert_eq!(eventually("it ends", || sidecar.0.try_wait().unwrap()).code(), Some(0), "{}", scene.log());
}

/// The other namespace is one that the test names: only root can make one.
#[test]
fn a_sidecar_whose_holder_has_another_namespace_ends_and_names_what_to_run() {
    let scene = Scene::new();
    let holder = UnixListener::bind(scene.socket()).unwrap();
    let mut sidecar = scene.sidecar();
    let (mut asked, _) = holder.accept().unwrap();
    asked.write_all(b"net:[1]\n").unwrap();
    assert_eq!(eventually("it ends", || sidecar.0.try_wait().unwrap()).code(), Some(1), "{}", scene.log());
    assert_eq!(asked.read(&mut [0]).unwrap_or(0), 0);
    let log = scene.log();
    assert!(log.contains("docker-compose restart web") && log.contains("new=net:[1]"), "{log}");
}

/// `docker-compose restart` stops both at the same time, and the engine refuses to start a sidecar before its holder.
#[test]
fn a_sidecar_that_ends_together_with_its_holder_waits_for_the_next_one() {
    let scene = Scene::new();
    let holder = UnixListener::bind(scene.socket()).unwrap();
    let mut sidecar = scene.sidecar();
    let (mut asked, _) = holder.accept().unwrap();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    asked.write_all(format!("{}\n", own.display()).as_bytes()).unwrap();
    scene.pending(None);
    drop((asked, holder));
    sidecar.signal("TERM");
    scene.pending(Some("network ("));
    fs::remove_file(scene.socket()).unwrap();
    let holder = UnixListener::bind(scene.socket()).unwrap();
    assert!(sidecar.0.try_wait().unwrap().is_none(), "it waits: {}", scene.log());
    let (mut asked, _) = holder.accept().unwrap();
    asked.write_all(b"net:[1]\n").unwrap();
    assert_eq!(eventually("it ends", || sidecar.0.try_wait().unwrap()).code(), Some(0), "{}", scene.log());
}
