//! Sidecars as their users run them: the binary, its own certificates, a configuration file, a policy folder.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                      metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
const PATIENCE: Duration = Duration::from_secs(20);
/// Linux counts processor time in these for every program, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// The binary to measure: `$PORTCULLIS_BIN`, or the release build beside this bench.
///
/// # Errors
/// What to do when it is not there.
pub fn binary() -> Result<PathBuf, String> {
    let named = std::env::var_os("PORTCULLIS_BIN").map(PathBuf::from);
    let path = match named {
        Some(path) => path,
        None => {
            // TARGET/release/deps/BENCH
            let bench = std::env::current_exe().map_err(|error| error.to_string())?;
            let release = bench.parent().and_then(Path::parent).ok_or("this bench is in no target folder")?;
            release.join("portcullis")
        }
    };
    fs::canonicalize(&path).map_err(|error| {
        let path = path.display();
        format!("{path}: {error}\nbuild it first (cargo build --release), or name another in PORTCULLIS_BIN")
    })
}

/// A running sidecar, ended when it is dropped.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
}

impl Sidecar {
    fn start(binary: &Path, folder: &Path, name: &str, body: &str) -> Self {
        let admin = free_address();
        let config = folder.join(format!("{name}.yaml"));
        fs::write(&config, format!("{body}\nadmin: {{listen: \"{admin}\"}}\n")).unwrap();
        let log = fs::File::create(folder.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(binary);
        command.args(["proxy", "--config"]).arg(&config).stdout(log).stderr(Stdio::inherit());
        let sidecar = Self { child: command.spawn().unwrap() };
        let start = Instant::now();
        while !is_ready(admin) {
            assert!(start.elapsed() < PATIENCE, "{name} is not ready");
            thread::sleep(Duration::from_millis(10));
        }
        sidecar
    }

    /// Processor time that it has used so far, in seconds: its own and the kernel's on its behalf.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in parentheses may hold anything; what follows it begins with field 3.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
        ticks.sum::<f64>() / TICKS_PER_SECOND
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Two sidecars with mTLS between them.
#[derive(Debug)]
pub struct Scene {
    /// Where the client connects.
    pub entry: SocketAddr,
    /// The client's sidecar.
    pub outbound: Sidecar,
    /// The app's sidecar.
    pub inbound: Sidecar,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// Makes certificates and starts both.
    #[must_use]
    pub fn start(binary: &Path, app: SocketAddr) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        fs::create_dir(folder.join("policies")).unwrap();
        fs::write(folder.join("policies/shop.yaml"), POLICY).unwrap();
        certs(binary, folder, &["init", "--out", "ca"]);
        certs(binary, folder, &["issue", "--ca", "ca", "--id", CART, "--out", "cart"]);
        certs(binary, folder, &["issue", "--ca", "ca", "--id", WEB, "--out", "web"]);
        let (entry, mesh) = (free_address(), free_address());
        let common = |name: &str| {
            format!(
                "workload: {{name: {name}, namespace: shop, serviceAccount: {name}}}\n\
                 policies: policies\n\
                 identity: {{files: {{certificate: {name}/cert.pem, privateKey: {name}/key.pem, trustBundle: {name}/ca.pem}}}}\n"
            )
        };
        let cart = format!("{}inbound:\n  ports: [{{listen: \"{mesh}\", port: 8080, app: \"{app}\"}}]", common("cart"));
        let web = format!(
            "{}outbound:\n  upstreams: [{{listen: \"{entry}\", address: \"{mesh}\", mode: mtls, identities: [\"{CART}\"]}}]",
            common("web")
        );
        let inbound = Sidecar::start(binary, folder, "cart", &cart);
        let outbound = Sidecar::start(binary, folder, "web", &web);
        Self { entry, outbound, inbound, _folder: temporary }
    }
}

fn certs(binary: &Path, folder: &Path, arguments: &[&str]) {
    let made = Command::new(binary).arg("certs").args(arguments).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "certs {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer: String| answer.starts_with("HTTP/1.1 200"))
}
