//! `Type=notify`: what a service manager is told.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::raw::Mesh;
use crate::support::{BIN, CART, PATIENCE, Sidecar, eventually, free_address};

/// What a manager's socket has received, one datagram after the other.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn tell(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", "300000");
    }

    fn next(&self) -> String {
        let mut buffer = [0; 1024];
        let size = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    /// Everything up to the first that begins like this, which is the last of them.
    fn until(&self, beginning: &str) -> Vec<String> {
        let mut all = Vec::new();
        while !all.last().is_some_and(|last: &String| last.starts_with(beginning)) {
            all.push(self.next());
        }
        all
    }
}

/// An authority that is not started yet, and the token of the cart.
fn authority() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ca");
    let ca = |arguments: &[&str]| {
        let made =
            Command::new(BIN).arg("ca").args(arguments).args(["--id", CART, "--dir"]).arg(&dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        made.stdout
    };
    ca(&["init"]);
    fs::write(folder.path().join("token"), ca(&["token"])).unwrap();
    (folder, dir)
}

fn start(dir: &Path, listen: SocketAddr, manager: &Manager) -> Child {
    let mut command = Command::new(BIN);
    command.args(["ca", "run", "--listen", &listen.to_string(), "--dir"]).arg(dir).stdout(Stdio::null());
    manager.tell(&mut command);
    command.spawn().unwrap()
}

fn end(mut process: Child, manager: &Manager) {
    let sent = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
    manager.until("STOPPING=1");
    assert!(eventually("the end", || process.try_wait().unwrap()).success());
}

#[test]
fn a_sidecar_is_ready_for_its_manager_when_it_has_a_certificate_and_not_before() {
    let ((folder, dir), manager, of_authority) = (authority(), Manager::new(), Manager::new());
    let (listen, admin) = (free_address(), free_address());
    let config = folder.path().join("cart.yaml");
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         identity: {{ca: {{address: \"{listen}\", trustBundle: ca/root-cert.pem, tokenFile: token}}}}\n\
         admin: {{listen: \"{admin}\"}}\nworkers: 2\n"
    );
    fs::write(&config, body).unwrap();
    let mut sidecar = Sidecar::launch_with(&config, admin, |command| manager.tell(command));
    let first = manager.next();
    assert!(first.starts_with("STATUS=waiting for "), "{first}");
    let authority = start(&dir, listen, &of_authority);
    of_authority.until("READY=1");
    of_authority.until("WATCHDOG=1");
    let before = manager.until("READY=1");
    assert!(before.iter().rev().skip(1).all(|told| told.starts_with("STATUS=") || told == "WATCHDOG=1"), "{before:?}");
    // A worker beats every 2 s, and is late after 6 s: pings, one each 100 ms, go on through that.
    for _ in 0..80 {
        let told = manager.next();
        assert!(told == "WATCHDOG=1" || told.starts_with("READY=1"), "{told}");
    }
    sidecar.signal("TERM");
    manager.until("STOPPING=1");
    assert_eq!(eventually("the end", || sidecar.child.try_wait().unwrap()).code(), Some(0));
    end(authority, &of_authority);
}

/// A variable that leads nowhere is told, and stops nothing.
#[test]
fn a_manager_that_cannot_be_reached_does_not_stop_a_sidecar() {
    let mesh = Mesh::new("STRICT");
    let (sidecar, _listen) = mesh.cart_with(free_address(), "", |command| {
        command.env("NOTIFY_SOCKET", "/nowhere/notify");
    });
    let log = eventually("the warning", || {
        let log = fs::read_to_string(&sidecar.log).unwrap();
        log.contains("is not told when this process is ready").then_some(log)
    });
    assert!(log.contains("/nowhere/notify"), "{log}");
}
