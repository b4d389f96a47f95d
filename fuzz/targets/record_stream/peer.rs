//! A peer that holds the keys and sends what it likes.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};

use crate::constant_handshake::Secrets;
use crate::rustls_ends::Side;

const APPLICATION_DATA: u8 = 23;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const NEW_SESSION_TICKET: u8 = 4;
/// A stream is not longer than that.
const MAX_WIRE: usize = 300_000;

pub(crate) struct Peer {
    keys: Keys,
    wire: Vec<u8>,
    has_plain_records: bool,
    has_forged_header: bool,
    has_empty_records: bool,
}

/// What the peer sends.
pub(crate) struct Stream {
    pub(crate) wire: Vec<u8>,
    /// A record without encryption is among it. Which of several reasons to refuse it comes first is not compared.
    pub(crate) has_plain_records: bool,
    /// The content type or version of an encrypted record was changed.
    pub(crate) has_forged_header: bool,
    /// A record of application data has no content.
    pub(crate) has_empty_records: bool,
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// The keys of one direction.
pub(crate) struct Keys {
    aead: &'static Algorithm,
    hkdf: aws_lc_rs::hkdf::Algorithm,
    secret: Vec<u8>,
    seq: u64,
}

impl Keys {
    /// The keys with which that side sends.
    pub(crate) fn new(sender: Side, suite: usize, secrets: &Secrets) -> Self {
        let (aead, hkdf) =
            [(&AES_128_GCM, HKDF_SHA256), (&AES_256_GCM, HKDF_SHA384), (&CHACHA20_POLY1305, HKDF_SHA256)][suite % 3];
        let label = match sender {
            Side::Client => "CLIENT_TRAFFIC_SECRET_0",
            Side::Server => "SERVER_TRAFFIC_SECRET_0",
        };
        Self { aead, hkdf, secret: secrets.get(label), seq: 0 }
    }

    fn expand_label(&self, label: &str, len: usize) -> Vec<u8> {
        let label = format!("tls13 {label}");
        let info = [&[0, len as u8, label.len() as u8], label.as_bytes(), &[0]].concat();
        let mut out = vec![0; len];
        Prk::new_less_safe(self.hkdf, &self.secret).expand(&[&info], Len(len)).unwrap().fill(&mut out).unwrap();
        out
    }

    fn update(&mut self) {
        self.secret = self.expand_label("traffic upd", self.secret.len());
        self.seq = 0;
    }

    /// Key and nonce of the next record.
    fn next(&mut self) -> (LessSafeKey, Nonce) {
        let key = UnboundKey::new(self.aead, &self.expand_label("key", self.aead.key_len())).unwrap();
        let mut nonce: [u8; 12] = self.expand_label("iv", 12).try_into().unwrap();
        for (byte, seq) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= seq;
        }
        self.seq += 1;
        (LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce))
    }

    /// A record with any content type, content and padding, encrypted.
    fn seal(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let (key, nonce) = self.next();
        let mut payload = [content, &[content_type], &vec![0; padding]].concat();
        let [high, low] = ((payload.len() + 16) as u16).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        key.seal_in_place_append_tag(nonce, Aad::from(header), &mut payload).unwrap();
        [&header[..], &payload].concat()
    }

    /// The alerts in a stream of valid records.
    pub(crate) fn alerts(mut self, mut wire: &[u8]) -> Vec<Vec<u8>> {
        let mut alerts = Vec::new();
        while let Some((header, rest)) = wire.split_first_chunk::<5>() {
            let (payload, rest) = rest.split_at(usize::from(u16::from_be_bytes([header[3], header[4]])));
            wire = rest;
            let (key, nonce) = self.next();
            let mut payload = payload.to_vec();
            let opened = key.open_in_place(nonce, Aad::from(*header), &mut payload).unwrap();
            let (content_type, content) = opened.split_last().unwrap();
            match *content_type {
                ALERT => alerts.push(content.to_vec()),
                HANDSHAKE => {
                    assert_eq!(content, [24, 0, 0, 1, 0]);
                    self.update();
                }
                other => panic!("a record of type {other} was not expected"),
            }
        }
        assert!(wire.is_empty());
        alerts
    }
}

impl Peer {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys, wire: Vec::new(), has_plain_records: false, has_forged_header: false, has_empty_records: false }
    }

    fn send(&mut self, content_type: u8, content: &[u8], padding: usize) {
        self.has_empty_records |= content_type == APPLICATION_DATA && content.is_empty();
        let record = self.keys.seal(content_type, content, padding);
        self.wire.extend(record);
    }

    fn key_update(&mut self, request_update: bool) {
        self.send(HANDSHAKE, &[24, 0, 0, 1, u8::from(request_update)], 0);
        self.keys.update();
    }

    fn message(&mut self, typ: u8, body: &[u8], piece_len: usize) {
        let message = [&[typ, 0, (body.len() >> 8) as u8, body.len() as u8], body].concat();
        for piece in message.chunks(piece_len) {
            self.send(HANDSHAKE, piece, 0);
        }
    }

    /// Plays a script: a byte for each action, and its parameters.
    pub(crate) fn play(mut self, mut script: &[u8]) -> Stream {
        while let Some((action, rest)) = script.split_first() {
            script = rest;
            self.act(*action, &mut script);
            if self.wire.len() > MAX_WIRE {
                break;
            }
        }
        Stream {
            wire: self.wire,
            has_plain_records: self.has_plain_records,
            has_forged_header: self.has_forged_header,
            has_empty_records: self.has_empty_records,
        }
    }

    fn act(&mut self, action: u8, script: &mut &[u8]) {
        match action % 16 {
            0 | 1 => {
                let content = bytes(script);
                self.send(APPLICATION_DATA, &content, 0);
            }
            2 => {
                let (content_type, padding, mut content) = (byte(script), byte(script), bytes(script));
                // rustls parses the body of a ticket. Well-formed ones are made below.
                if content_type == HANDSHAKE && content.first() == Some(&NEW_SESSION_TICKET) {
                    content[0] = 5;
                }
                // Alert levels have no meaning in TLS 1.3 (section 6), but rustls refuses unknown ones.
                if let (ALERT, [level, _]) = (content_type, content.as_mut_slice()) {
                    *level = *level % 2 + 1;
                }
                self.send(content_type, &content, usize::from(padding));
            }
            3 => {
                let request_update = byte(script) % 2 == 1;
                self.key_update(request_update);
            }
            4 => {
                let count = byte(script) % 40;
                (0..count).for_each(|_| self.key_update(count % 2 == 1));
            }
            5 => {
                let (count, padding) = (byte(script) % 40, byte(script));
                (0..count).for_each(|_| self.send(APPLICATION_DATA, &[], usize::from(padding)));
            }
            6 => {
                let (level, description) = (byte(script) % 2 + 1, byte(script));
                self.send(ALERT, &[level, description], 0);
            }
            7 => {
                let count = byte(script) % 8;
                (0..count).for_each(|_| self.send(ALERT, &[1, 90], 0));
            }
            8 => {
                let (typ, piece_len, body) = (byte(script), usize::from(byte(script)) + 1, bytes(script));
                let typ = if typ == NEW_SESSION_TICKET { 5 } else { typ };
                self.message(typ, &body, piece_len);
            }
            9 => {
                let (ticket, piece_len) = (bytes(script), usize::from(byte(script)) + 1);
                let ticket = if ticket.is_empty() { vec![1] } else { ticket };
                // Lifetime, age_add, a nonce of one byte, the ticket, no extensions.
                let len = (ticket.len() as u16).to_be_bytes();
                let body = [&[0, 0, 1, 0, 1, 2, 3, 4, 1, 9][..], &len, &ticket, &[0, 0]].concat();
                self.message(NEW_SESSION_TICKET, &body, piece_len);
            }
            10 => {
                let (content_type, major, minor, content) = (byte(script), byte(script), byte(script), bytes(script));
                let [high, low] = (content.len() as u16).to_be_bytes();
                self.wire.extend([&[content_type, major, minor, high, low][..], &content].concat());
                self.has_plain_records = true;
            }
            11 => {
                // A record with one bit changed, in the header too.
                let (at, bit, content) = (usize::from(byte(script)), byte(script) % 8, bytes(script));
                let mut record = self.keys.seal(APPLICATION_DATA, &content, 0);
                let at = at % record.len();
                record[at] ^= 1 << bit;
                self.has_forged_header |= at < 3;
                self.has_plain_records |= at < 5;
                self.wire.extend(record);
            }
            12 => {
                // A replay.
                let record = self.keys.seal(APPLICATION_DATA, b"twice", 0);
                self.wire.extend([record.as_slice(), &record].concat());
            }
            13 => {
                // A record of about the largest length, by its content or by its padding.
                let (content_type, less, padding) =
                    (byte(script), usize::from(byte(script) % 8), byte(script) % 2 == 1);
                let len = 16_384 + 4 - less;
                match padding {
                    true => self.send(content_type, b"", len),
                    false => self.send(content_type, &vec![5; len], 0),
                }
            }
            14 => {
                // Longer than a record may be, or than it can be.
                let len = 16_384 + usize::from(byte(script)) * 2;
                self.send(APPLICATION_DATA, &vec![6; len], 0);
            }
            _ => {
                // The connection is cut.
                let cut = usize::from(byte(script));
                self.wire.truncate(self.wire.len().saturating_sub(cut));
                *script = &[];
            }
        }
    }
}

fn byte(script: &mut &[u8]) -> u8 {
    let (byte, rest) = script.split_first().unwrap_or((&0, &[]));
    *script = rest;
    *byte
}

/// So many bytes as the next one says.
fn bytes(script: &mut &[u8]) -> Vec<u8> {
    let len = usize::from(byte(script)).min(script.len());
    let (bytes, rest) = script.split_at(len);
    *script = rest;
    bytes.to_vec()
}
