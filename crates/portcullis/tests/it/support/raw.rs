//! Sidecars whose peers and apps the test plays itself: certificates of the test kit, TLS by rustls, plain sockets.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Authority, Issued};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::{CART, PATIENCE, POLICY, Sidecar, WEB, free_address};

/// One mesh in one folder.
pub(crate) struct Mesh {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Mesh {
    /// `policies`, and the identities `cart` and `web`.
    pub(crate) fn new(mode: &str) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::root("cluster.local"));
        let root = folder.path();
        fs::create_dir(root.join("policies")).unwrap();
        fs::write(root.join("policies/shop.yaml"), POLICY.replace("MODE", mode)).unwrap();
        for (name, id) in [("cart", CART), ("web", WEB)] {
            fs::create_dir(root.join(name)).unwrap();
            for (file, content) in identity_files(&authority, &authority.workload(id)) {
                fs::write(root.join(name).join(file), content).unwrap();
            }
        }
        Self { folder, authority }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the policy by rename, as an editor does.
    pub(crate) fn set_mode(&self, mode: &str) {
        let draft = self.path().join("policies/.draft");
        fs::write(&draft, POLICY.replace("MODE", mode)).unwrap();
        fs::rename(draft, self.path().join("policies/shop.yaml")).unwrap();
    }

    /// Replaces the identity of a workload, file by file, by rename.
    pub(crate) fn set_identity(&self, name: &str, files: [(&str, String); 3]) {
        for (file, content) in files {
            let draft = self.path().join(name).join(".draft");
            fs::write(&draft, content).unwrap();
            fs::rename(draft, self.path().join(name).join(file)).unwrap();
        }
    }

    /// A sidecar before `app`; it logs JSON unless changed.
    pub(crate) fn cart(&self, app: SocketAddr, change: impl FnOnce(&mut Command)) -> (Sidecar, SocketAddr) {
        self.cart_with(app, "", change)
    }

    /// The same with more in its configuration.
    pub(crate) fn cart_with(
        &self,
        app: SocketAddr,
        more: &str,
        change: impl FnOnce(&mut Command),
    ) -> (Sidecar, SocketAddr) {
        let listen = free_address();
        let body = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
             policies: policies\n\
             identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
             inbound: {{ports: [{{listen: \"{listen}\", port: 8080, app: \"{app}\"}}]}}\n{more}"
        );
        (self.start("cart", &body, change), listen)
    }

    /// A sidecar beside a client of the cart, which is at `address`; it logs JSON unless changed.
    pub(crate) fn web(&self, address: SocketAddr, change: impl FnOnce(&mut Command)) -> (Sidecar, SocketAddr) {
        let listen = free_address();
        let body = format!(
            "workload: {{name: web, namespace: shop, serviceAccount: web}}\n\
             identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
             outbound: {{upstreams: [{{listen: \"{listen}\", address: \"{address}\", mode: mtls, identities: [\"{CART}\"]}}]}}\n"
        );
        (self.start("web", &body, change), listen)
    }

    /// Any sidecar, by its whole configuration.
    pub(crate) fn start(&self, name: &str, body: &str, change: impl FnOnce(&mut Command)) -> Sidecar {
        Sidecar::start_with(self.path(), name, body, |command| {
            change(command);
            if !command.get_args().any(|argument| argument == "--log-format") {
                command.args(["--log-format", "json"]);
            }
        })
    }

    /// The web workload without a sidecar.
    pub(crate) fn client(&self) -> RawPeer {
        RawPeer::presenting(&self.authority.workload(WEB)).with_alpn(&[b"istio"])
    }

    /// The cart workload without a sidecar.
    pub(crate) fn server(&self) -> RawPeer {
        RawPeer::presenting(&self.authority.workload(CART))
    }
}

/// The three files of an identity.
pub(crate) fn identity_files(authority: &Authority, issued: &Issued) -> [(&'static str, String); 3] {
    [("cert.pem", issued.cert_pem()), ("key.pem", issued.key_pem()), ("ca.pem", authority.bundle_pem())]
}

pub(crate) type TlsClient = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type TlsServer = StreamOwned<ServerConnection, TcpStream>;

/// An end with a limit to its patience.
pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

/// The next connection; fails rather than waiting for ever.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let stream = super::eventually("a connection", || match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    });
    stream.set_nonblocking(false).unwrap();
    patient(stream)
}

pub(crate) fn tls_client(stream: TcpStream, config: ClientConfig) -> TlsClient {
    let name = ServerName::try_from("anything.test").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

pub(crate) fn tls_server(stream: TcpStream, config: ServerConfig) -> TlsServer {
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

/// Everything up to the end, and what the end was if it was not clean.
pub(crate) fn read_all(mut stream: impl Read) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).err();
    (bytes, error.map(|error| error.kind()))
}

/// Exactly these bytes come next.
pub(crate) fn expect(mut stream: impl Read, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string());
}

/// What goes out to an app that echoes comes back.
pub(crate) fn alive(stream: &mut (impl Read + Write)) {
    stream.write_all(b"ping").unwrap();
    expect(stream, b"ping");
}

/// Closes with a reset.
pub(crate) fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}
