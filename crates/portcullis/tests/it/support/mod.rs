//! Real sidecar processes, a real app, real certificates: the support code of the whole-proxy tests.

pub(crate) mod raw;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use portcullis_testkit::wait::eventually_within;
pub(crate) use portcullis_testkit::wait::{PATIENCE, eventually};

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_portcullis");
pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// An address for a sidecar to listen on, given out once.
///
/// The host part is the process id, so no other process has the address; the port counts up within the process. Ports are
/// below those that the system gives to outgoing connections, so none of these can take one in the meantime.
pub(crate) fn free_address() -> SocketAddr {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    // Ids have 22 bits at most: 64 to 127, and two bytes.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 + high % 64, middle, low);
    loop {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        assert!(call < LEASED.start - COUNTED, "more addresses than ports");
        let address = SocketAddr::from((ip, COUNTED + call));
        // Another process may listen on this port of every address.
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The first port of [`free_address`].
const COUNTED: u16 = 12_000;
/// The ports of [`free_port`].
const LEASED: Range<u16> = 22_000..32_000;

/// A port that is free on every address, for listeners whose address is fixed. It stays this process' own.
pub(crate) fn free_port() -> u16 {
    static LEASES: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let mut leases = LEASES.lock().unwrap();
    // Where a process begins to look does not matter; that not all begin at one place saves time.
    let offset = u16::try_from(std::process::id() % u32::try_from(LEASED.len()).unwrap()).unwrap();
    for port in (LEASED.start + offset..LEASED.end).chain(LEASED) {
        // An abstract socket belongs to the network namespace, as the port does, and ends with the process.
        let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("portcullis-test-port-{port}")).unwrap();
        let Ok(lease) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            leases.push(lease);
            return port;
        }
    }
    panic!("no port of {LEASED:?} is free");
}

/// An app that reads to the end of a direction and then answers `got:` and what it got. It remembers what reached it.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl App {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = Self { address, connections: Arc::default(), received: Arc::default() };
        let (connections, received) = (Arc::clone(&app.connections), Arc::clone(&app.received));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                connections.fetch_add(1, Ordering::SeqCst);
                let received = Arc::clone(&received);
                thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let _ended = stream.read_to_end(&mut bytes);
                    let answer = [b"got:".as_slice(), &bytes].concat();
                    received.lock().unwrap().push(bytes);
                    let _sent = stream.write_all(&answer);
                });
            }
        });
        app
    }

    pub(crate) fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Sends, ends the direction, reads the answer to its end. An error is what the client saw instead.
pub(crate) fn ask(address: SocketAddr, payload: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(payload)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What `ask` gives when the payload reached the app and came back.
pub(crate) fn passed(address: SocketAddr, payload: &[u8]) -> bool {
    ask(address, payload).is_ok_and(|answer| answer == [b"got:".as_slice(), payload].concat())
}

pub(crate) fn portcullis(arguments: &[&str]) -> Output {
    Command::new(BIN).args(arguments).output().unwrap()
}

/// The result of a run: exit code and outputs.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }
}

/// Runs the built binary without standard input.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    Command::new(BIN).args(arguments).stdin(Stdio::null()).output().unwrap().into()
}

/// Certificates of one CA in a folder: `issue` makes leaves.
pub(crate) struct Ca(pub PathBuf);

impl Ca {
    pub(crate) fn init(folder: &Path) -> Self {
        let made = portcullis(&["certs", "init", "--out", folder.to_str().unwrap()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(folder.to_owned())
    }

    pub(crate) fn issue(&self, id: &str, out: &Path) {
        let (ca, out) = (self.0.to_str().unwrap(), out.to_str().unwrap());
        let made = portcullis(&["certs", "issue", "--ca", ca, "--id", id, "--out", out, "--force"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    pub(crate) child: Child,
    pub(crate) admin: SocketAddr,
    pub(crate) log: PathBuf,
}

impl Sidecar {
    /// Writes the configuration into `folder` and starts the built binary on it.
    pub(crate) fn start(folder: &Path, name: &str, body: &str) -> Self {
        Self::start_with(folder, name, body, |_| ())
    }

    /// The same with further arguments, another environment or another place for standard error.
    pub(crate) fn start_with(folder: &Path, name: &str, body: &str, change: impl FnOnce(&mut Command)) -> Self {
        let admin = free_address();
        let config = folder.join(format!("{name}.yaml"));
        fs::write(&config, format!("{body}\nadmin: {{listen: \"{admin}\"}}\nworkers: 1\n")).unwrap();
        let sidecar = Self::launch_with(&config, admin, change);
        sidecar.ready();
        sidecar
    }

    /// Starts the built binary on a configuration whose admin address is `admin`; it may not be ready yet.
    pub(crate) fn launch(config: &Path, admin: SocketAddr) -> Self {
        Self::launch_with(config, admin, |_| ())
    }

    pub(crate) fn launch_with(config: &Path, admin: SocketAddr, change: impl FnOnce(&mut Command)) -> Self {
        let log = config.with_extension("log");
        let mut command = Command::new(BIN);
        command
            .args(["proxy", "--config", config.to_str().unwrap()])
            .stdout(fs::File::create(&log).unwrap())
            .stderr(Stdio::inherit());
        change(&mut command);
        Self { child: command.spawn().unwrap(), admin, log }
    }

    pub(crate) fn ready(&self) {
        eventually(&format!("{} is ready", self.log.display()), || {
            self.get("/healthz/ready").filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub(crate) fn read_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for an access-log line with all of these in it.
    pub(crate) fn logged(&self, parts: &[&str]) -> String {
        let found = eventually_within(PATIENCE, || {
            let log = self.read_log();
            log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no log line with {parts:?} in\n{}", self.read_log()))
    }

    /// The access lines so far; for a sidecar that logs JSON.
    pub(crate) fn access(&self) -> Vec<serde_json::Value> {
        let log = self.read_log();
        // The last line may be half written.
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| line["target"] == "access")
            .collect()
    }

    /// Waits for the access line of an inbound connection; for a sidecar that logs JSON. It takes both addresses, since
    /// connections to two of our ports may come from one port at the same time.
    pub(crate) fn access_of(&self, client: SocketAddr, listen: SocketAddr) -> serde_json::Value {
        let (client, listen) = (client.to_string(), listen.to_string());
        eventually(&format!("an access line of {client} to {listen}"), || {
            let fits = |line: &serde_json::Value| line["src.addr"] == *client && line["dst.addr"] == *listen;
            self.access().into_iter().find(fits)
        })
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The usual scene: cart behind an inbound sidecar, web before an outbound one, one policy folder.
pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) app: App,
    pub(crate) inbound: SocketAddr,
    pub(crate) ca: Ca,
    pub(crate) cart: Sidecar,
}

pub(crate) const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: MODE}}\n";

impl Scene {
    pub(crate) fn new(mode: &str) -> Self {
        Self::with(mode, "")
    }

    /// `extra` is put into the inbound port's entry.
    pub(crate) fn with(mode: &str, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("policies")).unwrap();
        fs::write(root.join("policies/shop.yaml"), POLICY.replace("MODE", mode)).unwrap();
        let ca = Ca::init(&root.join("ca"));
        ca.issue(CART, &root.join("cart"));
        ca.issue(WEB, &root.join("web"));
        let app = App::start();
        let inbound = free_address();
        let body = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart, labels: {{app: cart}}}}\n\
             policies: ./policies\n\
             identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
             inbound:\n  ports: [{{listen: \"{inbound}\", port: 8080, app: \"{}\"{extra}}}]\n",
            app.address
        );
        let cart = Sidecar::start(root, "cart", &body);
        Self { folder, app, inbound, ca, cart }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// An outbound sidecar with the certificate in `identity`, expecting `expected`; returns its listener too.
    pub(crate) fn outbound(&self, name: &str, own: &str, identity: &str, expected: &str) -> (Sidecar, SocketAddr) {
        let listen = free_address();
        let body = format!(
            "workload: {{name: {name}, namespace: shop, spiffeId: \"{own}\"}}\n\
             identity: {{files: {{certificate: {identity}/cert.pem, privateKey: {identity}/key.pem, trustBundle: {identity}/ca.pem}}}}\n\
             outbound:\n  upstreams: [{{listen: \"{listen}\", address: \"{}\", mode: mtls, identities: [\"{expected}\"]}}]\n",
            self.inbound
        );
        (Sidecar::start(self.path(), name, &body), listen)
    }

    pub(crate) fn web(&self) -> (Sidecar, SocketAddr) {
        self.outbound("web", WEB, "web", CART)
    }

    /// Replaces the policy by rename, as an editor does.
    pub(crate) fn set_mode(&self, mode: &str) {
        let target = self.path().join("policies/shop.yaml");
        let draft = self.path().join("policies/.draft");
        fs::write(&draft, POLICY.replace("MODE", mode)).unwrap();
        fs::rename(draft, target).unwrap();
    }
}
