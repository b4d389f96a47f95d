//! The record layer connected to rustls, and compared with it.

mod differential;
mod interop;
mod limits;
mod rustls_ends;

use std::sync::Arc;

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{AlertDescription, ContentType, Error, InvalidMessage, SupportedCipherSuite};

use self::rustls_ends::{Configs, Handshake, Rustls, Side};
use crate::frame::HEADER_LEN;
use crate::post_handshake::{KEY_UPDATE, PostHandshake};
use crate::{PlaintextSink, RecordLayer, SendBuffer, TrafficSecretLog, record_len};

const SUITES: [SupportedCipherSuite; 3] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// A real handshake of rustls, up to the point where our record layer takes over at one end.
fn handshake(ours: Side, suite: SupportedCipherSuite) -> (RecordLayer, Rustls) {
    handshake_with_tickets(ours, suite, 0)
}

/// The same with a server that sends so many tickets.
fn handshake_with_tickets(ours: Side, suite: SupportedCipherSuite, tickets: usize) -> (RecordLayer, Rustls) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let secrets = Arc::new(TrafficSecretLog::default());
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() });
    // The suite is the server's choice; a client's configuration cannot be given another provider once it is made.
    let (client, mut server) = (peer.client(), with_provider(&peer.server(), provider));
    server.send_tls13_tickets = tickets;
    let (session, rustls) = Handshake::complete(ours, Configs { client, server }, secrets.clone());
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

#[test]
fn a_record_in_memory_that_was_used_before_is_as_long_as_it_says() {
    let (mut ours, mut peer) = both(SUITES[0]);
    let mut out = SendBuffer::default();
    ours.write(&noise(5_000), &mut out).unwrap();
    assert_eq!(read(&mut peer, out.as_slice(), 5_000).received.len(), 5_000);
    out.clear();
    ours.write(b"short", &mut out).unwrap();
    let sent = read(&mut peer, out.as_slice(), 100);
    assert_eq!((sent.received.as_slice(), sent.left), (&b"short"[..], 0));
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}
