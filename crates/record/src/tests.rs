//! The record layer connected to rustls, and compared with it.

mod differential;
mod interop;
mod limits;

use std::sync::Arc;

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConnection, ContentType, Error, InvalidMessage, ServerConnection, SupportedCipherSuite,
};
use rustls_pki_types::ServerName;

use crate::frame::HEADER_LEN;
use crate::post_handshake::{KEY_UPDATE, PostHandshake};
use crate::{PlaintextSink, RecordLayer, SendBuffer, TrafficSecretLog, record_len};

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

/// Our end during the handshake.
enum Handshake {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl Handshake {
    /// Processes what the peer sent and returns the answer.
    fn advance(&mut self, incoming: &mut Vec<u8>) -> Vec<u8> {
        let mut to_send = Vec::new();
        loop {
            let (discard, is_done) = match self {
                Self::Client(session) => step(session.process_tls_records(incoming), &mut to_send),
                Self::Server(session) => step(session.process_tls_records(incoming), &mut to_send),
            };
            incoming.drain(..discard);
            if is_done {
                return to_send;
            }
        }
    }
}

fn step<Data>(
    UnbufferedStatus { discard, state, .. }: UnbufferedStatus<'_, '_, Data>,
    to_send: &mut Vec<u8>,
) -> (usize, bool) {
    match state.unwrap() {
        ConnectionState::EncodeTlsData(mut message) => {
            let mut record = vec![0; 20_000];
            let len = message.encode(&mut record).unwrap();
            to_send.extend(&record[..len]);
        }
        ConnectionState::TransmitTlsData(message) => message.done(),
        _ => return (discard, true),
    }
    (discard, false)
}

/// A real handshake of rustls, up to the point where our record layer takes over at one end.
fn handshake(ours: Side, suite: SupportedCipherSuite) -> (RecordLayer, Rustls) {
    handshake_with_tickets(ours, suite, 0)
}

/// The same with a server that sends so many tickets.
fn handshake_with_tickets(ours: Side, suite: SupportedCipherSuite, tickets: usize) -> (RecordLayer, Rustls) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let secrets = Arc::new(TrafficSecretLog::default());
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() });
    let name = ServerName::try_from("anything.test").unwrap();
    // The suite is the server's choice; a client's configuration cannot be given another provider once it is made.
    let (mut client, mut server) = (peer.client(), with_provider(&peer.server(), provider));
    server.send_tls13_tickets = tickets;
    let (mut session, mut rustls) = match ours {
        Side::Client => {
            (client.key_log, client.enable_secret_extraction) = (secrets.clone(), true);
            let session = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
            (Handshake::Client(session), Rustls::Server(ServerConnection::new(Arc::new(server)).unwrap()))
        }
        Side::Server => {
            (server.key_log, server.enable_secret_extraction) = (secrets.clone(), true);
            let session = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
            (Handshake::Server(session), Rustls::Client(ClientConnection::new(Arc::new(client), name).unwrap()))
        }
    };
    let mut to_us = Vec::new();
    for _ in 0..10 {
        rustls.read(&session.advance(&mut to_us)).unwrap();
        to_us.extend(rustls.flush());
    }
    assert!(to_us.is_empty() && !rustls.is_handshaking());
    let records = match session {
        Handshake::Client(session) => secrets.client_record_layer(session),
        Handshake::Server(session) => secrets.server_record_layer(session),
    };
    (records.unwrap(), rustls)
}

/// Two connected record layers.
fn both(suite: SupportedCipherSuite) -> (RecordLayer, RecordLayer) {
    let (client, rustls) = handshake(Side::Client, suite);
    let Rustls::Server(server) = rustls else { panic!("we are the client") };
    // The other end's keys are the same, with the directions swapped.
    let RecordLayer { message_decrypter, message_encrypter, .. } = &client;
    let server_records = RecordLayer {
        message_decrypter: message_encrypter.copy(),
        message_encrypter: message_decrypter.copy(),
        post_handshake: PostHandshake::new(false),
        key_update_requested: false,
        has_sent_close_notify: false,
    };
    drop(server);
    (client, server_records)
}

fn with_provider(config: &rustls::ServerConfig, provider: Arc<CryptoProvider>) -> rustls::ServerConfig {
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

    /// Passes it records and returns the plaintext.
    fn read(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
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

    /// The records that it has to send.
    fn flush(&mut self) -> Vec<u8> {
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
            out.extend(self.flush());
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
        self.flush()
    }
}

/// The result of reading some bytes.
#[derive(Debug)]
struct Outcome {
    received: Vec<u8>,
    to_send: Vec<u8>,
    closed: bool,
    result: Result<(), Error>,
    left: usize,
}

/// A buffer with space for some of the plaintext; the rest is appended elsewhere.
struct Received {
    space: Vec<u8>,
    len: usize,
    rest: Vec<u8>,
}

impl PlaintextSink for Received {
    fn space(&mut self, len: usize) -> Option<&mut [u8]> {
        self.space.get_mut(self.len..self.len + len).filter(|_| self.rest.is_empty())
    }

    fn advance(&mut self, len: usize) {
        self.len += len;
    }

    fn append(&mut self, plaintext: &[u8]) {
        self.rest.extend_from_slice(plaintext);
    }
}

/// Reads bytes, with `room` for their plaintext.
fn read(records: &mut RecordLayer, bytes: &[u8], room: usize) -> Outcome {
    let (mut bytes, mut to_send) = (bytes.to_vec(), SendBuffer::default());
    let mut received = Received { space: vec![0; room], len: 0, rest: Vec::new() };
    let outcome = records.read(&mut bytes, &mut received, &mut to_send);
    Outcome {
        received: [&received.space[..received.len], &received.rest].concat(),
        to_send: to_send.as_slice().to_vec(),
        closed: outcome.has_received_close_notify,
        result: outcome.result,
        left: bytes.len() - outcome.consumed,
    }
}

fn write(records: &mut RecordLayer, bytes: &[u8]) -> Vec<u8> {
    let mut out = SendBuffer::default();
    records.write(bytes, &mut out).unwrap();
    out.as_slice().to_vec()
}

/// A record of any type, as a peer that holds the key could send it.
fn sealed(records: &mut RecordLayer, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = SendBuffer::default();
    records.encrypt(&mut out, ContentType::from(kind), content).unwrap();
    out.as_slice().to_vec()
}

/// The alert in `bytes`, read by the peer.
fn alert_in(records: &mut RecordLayer, bytes: &[u8]) -> Option<AlertDescription> {
    match read(records, bytes, 0).result {
        Err(Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}
