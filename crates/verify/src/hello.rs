//! Hellos of versions that rustls does not speak: one record out, one record back.

use std::io::{ErrorKind, Read as _, Write as _};

use portcullis_wire::CLIENT_ALPN;
use rustls::AlertDescription;

use crate::connection::Connection;
use crate::observation::{End, Observation, Stage};
use crate::plaintext::reset_or_broken;

/// TLS 1.0 to 1.2 on the wire.
pub(crate) const TLS10: u16 = 0x0301;
pub(crate) const TLS11: u16 = 0x0302;
pub(crate) const TLS12: u16 = 0x0303;

/// ECDHE and RSA, AES and SHA-1: what a server with such a version has. The last three are of TLS 1.2 only.
const SUITES: [u16; 9] = [0xc009, 0xc00a, 0xc013, 0xc014, 0x002f, 0x0035, 0xc02b, 0xc02f, 0x009c];
/// X25519, P-256, P-384.
const GROUPS: [u16; 3] = [0x001d, 0x0017, 0x0018];
/// ECDSA, RSA-PSS and RSA with SHA-256, ECDSA with SHA-384, RSA and ECDSA with SHA-1.
const SIGNATURES: [u16; 6] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0201, 0x0203];

const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;
const SERVER_HELLO: u8 = 2;
/// A record header, and the head of a ServerHello with its version.
const RECORD_HEADER: usize = 5;

/// A whole ClientHello record of this version at most, with the mesh's protocol name.
fn client_hello(version: u16, server: Option<&str>, random: [u8; 32]) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = server {
        let entry = [[0].as_slice(), &counted16(name.as_bytes())].concat();
        extensions.extend(extension(0x0000, &counted16(&entry)));
    }
    extensions.extend(extension(0x000a, &counted16(&numbers(&GROUPS))));
    // Uncompressed points.
    extensions.extend(extension(0x000b, &[1, 0]));
    if version >= TLS12 {
        extensions.extend(extension(0x000d, &counted16(&numbers(&SIGNATURES))));
    }
    extensions.extend(extension(0x0010, &counted16(&counted8(CLIENT_ALPN))));
    // Extended master secret, and no renegotiation so far.
    extensions.extend(extension(0x0017, &[]));
    extensions.extend(extension(0xff01, &[0]));
    let suites = if version >= TLS12 { SUITES.as_slice() } else { SUITES.get(..6).unwrap_or_default() };
    let body = [
        version.to_be_bytes().as_slice(),
        &random,
        &counted8(&[]),
        &counted16(&numbers(suites)),
        &counted8(&[0]),
        &counted16(&extensions),
    ]
    .concat();
    let message = [[1, 0].as_slice(), &counted16(&body)].concat();
    // Old servers look at the version of the record, which 1.0 suits everywhere.
    [[HANDSHAKE].as_slice(), &TLS10.to_be_bytes(), &counted16(&message)].concat()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Lengths here are far below their limits.
fn counted8(bytes: &[u8]) -> Vec<u8> {
    [[u8::try_from(bytes.len()).unwrap_or(u8::MAX)].as_slice(), bytes].concat()
}

fn counted16(bytes: &[u8]) -> Vec<u8> {
    [u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes().as_slice(), bytes].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), &counted16(content)].concat()
}

/// Sends a hello of this version at most, and reads the first record of the answer.
pub(crate) fn old(connection: &mut Connection, version: u16, server: Option<&str>, random: [u8; 32]) -> Observation {
    let hello = client_hello(version, server, random);
    // A server that has closed says so when it is read.
    let _gone = connection.write_all(&hello);
    connection.wait_to_the_end();
    let mut record = Vec::new();
    let mut buffer = [0; 512];
    let end = loop {
        if let Some(end) = answer(&record) {
            break end;
        }
        match connection.read(&mut buffer) {
            Ok(0) => break End::Closed,
            Ok(count) => record.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => break End::Silent,
            Err(error) => break reset_or_broken(&error),
        }
    };
    let bytes = if end == End::NotTls { record } else { Vec::new() };
    Observation { bytes, ..Observation::ended(Stage::Opening, end) }
}

/// What the beginning of an answer says; `None`: more is needed.
fn answer(record: &[u8]) -> Option<End> {
    match *record.first()? {
        ALERT => record.get(RECORD_HEADER.saturating_add(1)).map(|byte| End::Alert(AlertDescription::from(*byte))),
        HANDSHAKE => {
            let message = record.get(RECORD_HEADER..)?;
            match message {
                [SERVER_HELLO, _, _, _, major, minor, ..] => {
                    Some(End::ServerHello(u16::from_be_bytes([*major, *minor])))
                }
                [SERVER_HELLO, ..] | [] => None,
                _ => Some(End::Broken("the answer to the hello is no ServerHello".to_owned())),
            }
        }
        _ => Some(End::NotTls),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_wire::{HelloParser, Opening};

    use super::*;

    #[test]
    fn a_hello_of_any_version_is_a_whole_mesh_hello() {
        for version in [TLS10, TLS11, TLS12] {
            for server in [None, Some("cart.shop")] {
                let hello = client_hello(version, server, [7; 32]);
                let mut parser = HelloParser::new();
                assert_eq!(parser.push(&hello[..hello.len() - 1]).opening(), None);
                assert_eq!(parser.push(&hello[hello.len() - 1..]).opening(), Some(Opening::MeshTls));
            }
        }
    }

    #[test]
    fn an_answer_is_read_from_its_first_bytes() {
        assert_eq!(answer(&[0x15, 3, 1, 0, 2, 2]), None);
        assert_eq!(answer(&[0x15, 3, 1, 0, 2, 2, 70]), Some(End::Alert(AlertDescription::ProtocolVersion)));
        assert_eq!(answer(&[0x16, 3, 1, 0, 50, 2, 0, 0, 46, 3]), None);
        assert_eq!(answer(&[0x16, 3, 1, 0, 50, 2, 0, 0, 46, 3, 1]), Some(End::ServerHello(TLS10)));
        assert_eq!(answer(b"HTTP/1.1 400"), Some(End::NotTls));
        assert!(matches!(answer(&[0x16, 3, 1, 0, 50, 11]), Some(End::Broken(_))));
    }
}
