//! The record layer against rustls: with it, and compared with what it makes of the same bytes.

mod against_rustls;
mod lies;
mod limits;

use std::sync::Arc;

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConnection, ServerConnection, SupportedCipherSuite};
use rustls_pki_types::ServerName;

use super::*;
use crate::session::Session;

const SUITES: [SupportedCipherSuite; 3] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Which end of the connection is ours.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

/// rustls at the other end.
enum Rustls {
    Client(ClientConnection),
    Server(ServerConnection),
}

/// A real handshake of rustls with the beginning of ours, up to where the records take over.
fn handshake(ours: Side, suite: SupportedCipherSuite) -> (Records, Rustls) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let secrets = Arc::new(TrafficSecrets::default());
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() });
    let name = ServerName::try_from("anything.test").unwrap();
    let (mut client, mut server) = (peer.client(), peer.server());
    server.send_tls13_tickets = 0;
    // The suite is the server's choice; a client's configuration cannot be given another provider once it is made.
    server = with_provider(server, provider);
    let (session, mut rustls) = match ours {
        Side::Client => {
            (client.key_log, client.enable_secret_extraction) = (secrets.clone(), true);
            let session = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
            let rustls = Rustls::Server(ServerConnection::new(Arc::new(server)).unwrap());
            (Session::client(session, secrets), rustls)
        }
        Side::Server => {
            (server.key_log, server.enable_secret_extraction) = (secrets.clone(), true);
            let session = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
            let rustls = Rustls::Client(ClientConnection::new(Arc::new(client), name).unwrap());
            (Session::server(session, secrets), rustls)
        }
    };
    let mut session = session;
    let (mut to_us, mut out) = (Vec::new(), Outgoing::default());
    for _ in 0..10 {
        let mut output = Output::new(std::mem::take(&mut out), None);
        let (done, result) = session.read(&mut to_us, &mut output);
        result.unwrap();
        to_us.drain(..done);
        rustls.take(output.to_send.filled()).unwrap();
        to_us.extend(rustls.said());
    }
    assert!(to_us.is_empty() && !session.is_handshaking() && !rustls.is_handshaking());
    match session.established(&[]).unwrap() {
        Session::Records(records) => (records, rustls),
        Session::Rustls(_) => panic!("it did not take over"),
    }
}

/// A server of ours that waits for the client's last words, the client, and those words.
fn almost(suite: SupportedCipherSuite) -> (Session, Rustls, Vec<u8>) {
    let (mut server, client, _) = sessions(suite);
    let mut client = Rustls::Client(client);
    let (mut hello, mut output) = (client.said(), Output::new(Outgoing::default(), None));
    assert_eq!(server.read(&mut hello, &mut output), (hello.len(), Ok(())));
    client.take(output.to_send.filled()).unwrap();
    assert!(!client.is_handshaking());
    let finished = client.said();
    (server, client, finished)
}

/// The same with a client of ours.
fn almost_with_ours(suite: SupportedCipherSuite) -> (Session, Records, Vec<u8>) {
    let (mut server, _, mut client) = sessions(suite);
    let mut to_client = Vec::new();
    let mut finished = Vec::new();
    for _ in 0..2 {
        let mut output = Output::new(Outgoing::default(), None);
        assert_eq!(client.read(&mut to_client, &mut output), (to_client.len(), Ok(())));
        finished = output.to_send.filled().to_vec();
        if client.is_handshaking() {
            let mut output = Output::new(Outgoing::default(), None);
            assert_eq!(server.read(&mut finished, &mut output), (finished.len(), Ok(())));
            to_client = output.to_send.filled().to_vec();
        }
    }
    match client.established(&[]).unwrap() {
        Session::Records(records) => (server, records, finished),
        Session::Rustls(_) => panic!("it did not take over"),
    }
}

/// A server of ours, and two clients for it.
fn sessions(suite: SupportedCipherSuite) -> (Session, ClientConnection, Session) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let (near, far) = (Arc::new(TrafficSecrets::default()), Arc::new(TrafficSecrets::default()));
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() });
    let name = ServerName::try_from("anything.test").unwrap();
    let (mut client, mut server) = (peer.client(), with_provider(peer.server(), provider));
    server.send_tls13_tickets = 0;
    (server.key_log, server.enable_secret_extraction) = (far.clone(), true);
    let server = Session::server(UnbufferedServerConnection::new(Arc::new(server)).unwrap(), far);
    let rustls = ClientConnection::new(Arc::new(client.clone()), name.clone()).unwrap();
    (client.key_log, client.enable_secret_extraction) = (near.clone(), true);
    let ours = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
    (server, rustls, Session::client(ours, near))
}

/// Two record layers that talk with each other.
fn both(suite: SupportedCipherSuite) -> (Records, Records) {
    let (client, rustls) = handshake(Side::Client, suite);
    let Rustls::Server(server) = rustls else { panic!("we are the client") };
    // The other end's keys are the same, seen from there.
    let Records { reading, writing, .. } = &client;
    let server_records = Records {
        reading: writing.copy(),
        writing: reading.copy(),
        messages: Messages::new(false),
        update_due: false,
        closed: false,
    };
    drop(server);
    (client, server_records)
}

fn with_provider(config: rustls::ServerConfig, provider: Arc<CryptoProvider>) -> rustls::ServerConfig {
    let mut other = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    other.send_tls13_tickets = config.send_tls13_tickets;
    other
}

impl Rustls {
    fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(it) => it.is_handshaking(),
            Self::Server(it) => it.is_handshaking(),
        }
    }

    /// Gives it what was sent, in pieces as large as it takes. An error comes with what it was.
    fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
        use std::io::Read as _;
        let mut got = Vec::new();
        while !bytes.is_empty() {
            let (count, state) = match self {
                Self::Client(it) => (it.read_tls(&mut bytes).unwrap(), it.process_new_packets()),
                Self::Server(it) => (it.read_tls(&mut bytes).unwrap(), it.process_new_packets()),
            };
            if count == 0 {
                // Behind close_notify it takes nothing any more.
                break;
            }
            let mut buffer = vec![0; state?.plaintext_bytes_to_read()];
            match self {
                Self::Client(it) => it.reader().read_exact(&mut buffer).unwrap(),
                Self::Server(it) => it.reader().read_exact(&mut buffer).unwrap(),
            }
            got.extend(buffer);
        }
        Ok(got)
    }

    /// What it has to send.
    fn said(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Client(it) => {
                while it.wants_write() {
                    it.write_tls(&mut out).unwrap();
                }
            }
            Self::Server(it) => {
                while it.wants_write() {
                    it.write_tls(&mut out).unwrap();
                }
            }
        }
        out
    }

    fn write(&mut self, bytes: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let (mut rest, mut out) = (bytes, Vec::new());
        while !rest.is_empty() {
            let count = match self {
                Self::Client(it) => it.writer().write(rest).unwrap(),
                Self::Server(it) => it.writer().write(rest).unwrap(),
            };
            rest = &rest[count..];
            out.extend(self.said());
        }
        out
    }

    fn refresh(&mut self) {
        match self {
            Self::Client(it) => it.refresh_traffic_keys().unwrap(),
            Self::Server(it) => it.refresh_traffic_keys().unwrap(),
        }
    }

    fn close(&mut self) -> Vec<u8> {
        match self {
            Self::Client(it) => it.send_close_notify(),
            Self::Server(it) => it.send_close_notify(),
        }
        self.said()
    }
}

/// What came of some bytes.
#[derive(Debug)]
struct Outcome {
    received: Vec<u8>,
    to_send: Vec<u8>,
    closed: bool,
    result: Result<(), Error>,
    left: usize,
}

/// Gives it bytes, with `room` for what is in them.
fn read(records: &mut Records, bytes: &[u8], room: usize) -> Outcome {
    let (mut bytes, mut room) = (bytes.to_vec(), vec![0; room]);
    let mut into = tokio::io::ReadBuf::new(&mut room);
    let mut output = Output::new(Outgoing::default(), Some(&mut into));
    let (done, result) = records.read(&mut bytes, &mut output);
    let (to_send, closed, rest) = (output.to_send.filled().to_vec(), output.peer_closed, output.received);
    let received = [into.filled(), &rest].concat();
    Outcome { received, to_send, closed, result, left: bytes.len() - done }
}

fn write(records: &mut Records, bytes: &[u8]) -> Vec<u8> {
    let mut out = Outgoing::default();
    records.write(bytes, &mut out).unwrap();
    out.filled().to_vec()
}

/// A record with any type and content, as a peer could send it that holds the key.
fn sealed(records: &mut Records, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Outgoing::default();
    records.seal(&mut out, ContentType::from(kind), content).unwrap();
    out.filled().to_vec()
}

/// Which alert came, as the one who sent nothing else sees it.
fn alert_in(records: &mut Records, bytes: &[u8]) -> Option<AlertDescription> {
    match read(records, bytes, 0).result {
        Err(Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}
