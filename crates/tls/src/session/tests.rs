//! Where rustls stops and the record layer begins.

use std::io::{Read as _, Write as _};

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConnection, ServerConfig, ServerConnection, SupportedCipherSuite};
use rustls_pki_types::ServerName;

use super::*;

const SUITES: [SupportedCipherSuite; 3] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

fn peer() -> RawPeer {
    RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("anything.test").unwrap()
}

fn server_config(suite: SupportedCipherSuite) -> ServerConfig {
    let provider = CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&peer().server().cert_resolver));
    config.send_tls13_tickets = 0;
    config
}

/// A server of ours that waits for the client's Finished, the client, and its Finished.
fn server_before_finished(suite: SupportedCipherSuite) -> (Session, ClientConnection, Vec<u8>) {
    let secrets = Arc::new(TrafficSecretLog::default());
    let mut config = server_config(suite);
    (config.key_log, config.enable_secret_extraction) = (secrets.clone(), true);
    let mut server = Session::server(UnbufferedServerConnection::new(Arc::new(config)).unwrap(), secrets);
    let mut client = ClientConnection::new(Arc::new(peer().client()), name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let (consumed, flight) = read(&mut server, &mut hello);
    assert_eq!(consumed, hello.len());
    give(&mut client, &flight.to_send);
    assert!(!client.is_handshaking() && server.is_handshaking());
    let finished = sent(&mut client);
    (server, client, finished)
}

#[derive(Debug)]
struct Produced {
    received: Vec<u8>,
    to_send: Vec<u8>,
}

fn read(session: &mut Session, bytes: &mut [u8]) -> (usize, Produced) {
    let mut output = Output::new(SendBuffer::default(), None);
    let (consumed, result) = session.read(bytes, &mut output);
    result.unwrap();
    (consumed, Produced { received: output.received.rest, to_send: output.to_send.as_slice().to_vec() })
}

fn write(session: &mut Session, data: &[u8]) -> Vec<u8> {
    let mut output = Output::new(SendBuffer::default(), None);
    session.write(&mut [], data, &mut output).1.unwrap();
    output.to_send.as_slice().to_vec()
}

fn give(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        let mut plaintext = vec![0; client.process_new_packets().unwrap().plaintext_bytes_to_read()];
        client.reader().read_exact(&mut plaintext).unwrap();
        received.extend(plaintext);
    }
    received
}

fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut records).unwrap();
    }
    records
}

fn sent_with(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
    client.writer().write_all(data).unwrap();
    sent(client)
}

/// rustls consumes the handshake and nothing else; the record layer continues with data, KeyUpdates, and incomplete records.
#[test]
fn records_behind_the_handshake_are_left_to_the_record_layer() {
    for suite in SUITES {
        for (name, has_data, has_update) in
            [("data", true, false), ("an update", false, true), ("both", true, true), ("neither", false, false)]
        {
            for cut in [0, 3, 7, 30] {
                let (mut session, mut client, mut bytes) = server_before_finished(suite);
                let finished = bytes.len();
                if has_data {
                    bytes.extend(sent_with(&mut client, b"first"));
                }
                if has_update {
                    client.refresh_traffic_keys().unwrap();
                }
                bytes.extend(sent_with(&mut client, b"second"));
                let later = bytes.split_off(bytes.len() - cut.min(bytes.len() - finished));
                let (consumed, produced) = read(&mut session, &mut bytes);
                assert_eq!(consumed, finished, "{name} {cut}");
                assert!(!session.is_handshaking() && produced.received.is_empty() && produced.to_send.is_empty());

                let mut session = session.established().unwrap();
                assert!(matches!(session, Session::Records(_)));
                let mut rest = [&bytes[consumed..], &later].concat();
                let (consumed, produced) = read(&mut session, &mut rest);
                let expected: &[u8] = if has_data { b"firstsecond" } else { b"second" };
                assert_eq!((consumed, produced.received.as_slice()), (rest.len(), expected), "{name} {cut}");
                for _ in 0..3 {
                    assert_eq!(give(&mut client, &write(&mut session, b"back")), b"back", "{name} {cut}");
                    client.refresh_traffic_keys().unwrap();
                    assert_eq!(read(&mut session, &mut sent_with(&mut client, b"forth")).1.received, b"forth");
                }
            }
        }
    }
}

/// A server may send data with its Finished, before it has the client's.
#[test]
fn data_with_the_server_s_finished_is_left_to_the_record_layer() {
    let secrets = Arc::new(TrafficSecretLog::default());
    let mut config = peer().client();
    (config.key_log, config.enable_secret_extraction) = (secrets.clone(), true);
    let mut client = Session::client(UnbufferedClientConnection::new(Arc::new(config), name()).unwrap(), secrets);
    let mut config = server_config(SUITES[0]);
    config.send_half_rtt_data = true;
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    server.writer().write_all(b"early").unwrap();
    let (_, hello) = read(&mut client, &mut []);
    server.read_tls(&mut hello.to_send.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut flight = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut flight).unwrap();
    }
    let (consumed, produced) = read(&mut client, &mut flight);
    assert!(!client.is_handshaking() && produced.received.is_empty() && !produced.to_send.is_empty());
    // Header, data, content type and tag.
    assert_eq!(flight.len() - consumed, 5 + 5 + 1 + 16);
    let mut client = client.established().unwrap();
    assert_eq!(read(&mut client, &mut flight[consumed..]).1.received, b"early");
}

/// A header that no record may have is refused before the rest of the record comes.
#[test]
fn an_incomplete_record_is_refused_by_its_header() {
    let (mut server, _, _) = server_before_finished(SUITES[0]);
    let mut output = Output::new(SendBuffer::default(), None);
    let (_, result) = server.read(&mut [23, 3, 3, 0xff, 0xff], &mut output);
    assert!(result.is_err());
}
