//! A stream of records from a peer that holds the keys, after the handshake.
//!
//! - Whatever the peer sends and however it is cut, our record layer delivers the plaintext that rustls delivers, and refuses
//!   what rustls refuses, with the same alert.
//! - If both go on, the records that they write next are the same bytes: keys, sequence numbers and answers to KeyUpdates agree.
//!
//! The handshake is rustls', with a key exchange, signatures and random numbers that are constant. So every handshake of a suite
//! ends in the same secrets, and one stream serves both. The peer is written against RFC 8446 and shares no code with either.
#![no_main]

#[path = "record_stream/constant_handshake.rs"]
mod constant_handshake;
#[path = "record_stream/peer.rs"]
mod peer;
/// Shared with the unit tests of the crate, some of which use more of it.
#[allow(dead_code)]
#[path = "../../crates/record/src/tests/rustls_ends.rs"]
mod rustls_ends;

use libfuzzer_sys::fuzz_target;
use portcullis_record::{PlaintextSink, RecordLayer, SendBuffer};
use rustls::{Error, InvalidMessage, PeerMisbehaved};

use peer::{Keys, Peer, Stream};
use rustls_ends::{Rustls, Side};

/// The length of a record's header.
const HEADER_LEN: usize = 5;
const STILL_HERE: &[u8] = b"still here";
/// A fatal alert.
const UNEXPECTED_MESSAGE: [u8; 2] = [2, 10];

/// A reader's buffer, and what it had no room for.
struct Received {
    room: Vec<u8>,
    len: usize,
    rest: Vec<u8>,
}

impl Received {
    fn all(&self) -> Vec<u8> {
        [&self.room[..self.len], &self.rest].concat()
    }
}

impl PlaintextSink for Received {
    fn space(&mut self, len: usize) -> Option<&mut [u8]> {
        self.room.get_mut(self.len..self.len + len).filter(|_| self.rest.is_empty())
    }

    fn advance(&mut self, len: usize) {
        self.len += len;
    }

    fn append(&mut self, plaintext: &[u8]) {
        self.rest.extend_from_slice(plaintext);
    }
}

struct Outcome {
    consumed: usize,
    received: Vec<u8>,
    result: Result<(), Error>,
    closed: bool,
    sent: Vec<u8>,
}

fn read_ours(records: &mut RecordLayer, wire: &[u8], first: usize, step: usize, room: usize) -> Outcome {
    let mut received = Received { room: vec![0; room], len: 0, rest: Vec::new() };
    let (mut to_send, mut held) = (SendBuffer::default(), Vec::new());
    let (mut rest, mut size) = (wire, first);
    let (mut result, mut closed, mut consumed) = (Ok(()), false, 0);
    while result.is_ok() && !closed && !rest.is_empty() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        held.extend_from_slice(piece);
        let outcome = records.read(&mut held, &mut received, &mut to_send);
        held.drain(..outcome.consumed);
        consumed += outcome.consumed;
        (result, closed) = (outcome.result, outcome.has_received_close_notify);
        (rest, size) = (after, (size + step) % 20_000 + 1);
    }
    Outcome { consumed, received: received.all(), result, closed, sent: to_send.as_slice().to_vec() }
}

/// The length of the record at the start of `bytes`, of which a part may be missing.
fn record_len(bytes: &[u8]) -> usize {
    match bytes {
        [_, _, _, high, low, ..] => HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low])),
        _ => bytes.len(),
    }
}

fn read_rustls(rustls: &mut Rustls, wire: &[u8]) -> Outcome {
    let (mut received, mut result, mut rest) = (Vec::new(), Ok(()), wire);
    // One record after the other: it does not hand out what came before a failure.
    while result.is_ok() && !rest.is_empty() {
        let (record, after) = rest.split_at(record_len(rest).min(rest.len()));
        result = rustls.read_into(record, &mut received);
        rest = after;
    }
    let sent = rustls.flush();
    Outcome { consumed: wire.len() - rest.len(), received, result, closed: false, sent }
}

// Two bytes choose suite and side, two the cuts, one the room for plaintext. The rest is what the peer does.
fuzz_target!(|input: &[u8]| {
    let [suite, side, first, step, room, script @ ..] = input else { return };
    let side = if side % 2 == 0 { Side::Client } else { Side::Server };
    let suite = usize::from(*suite);
    let mut ours = constant_handshake::record_layer(side, suite);
    let (mut rustls, secrets) = constant_handshake::rustls(side, suite);
    let Stream { wire, has_plain_records, has_forged_header, has_empty_records } =
        Peer::new(Keys::new(side.other(), suite, &secrets)).play(script);

    let first = usize::from(*first) * usize::from(*first) + 1;
    let step = usize::from(*step) * 11;
    let our = read_ours(&mut ours, &wire, first, step, usize::from(*room) * 100);
    // rustls lets an empty record of a message pass, against RFC 8446, section 5.4, and 0.23.46 panics at some that follow one.
    if matches!(our.result, Err(Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload))) {
        return;
    }
    let their = read_rustls(&mut rustls, &wire);

    assert!(their.received.starts_with(&our.received), "we delivered what rustls did not");
    if has_forged_header {
        // We authenticate the header as it came (section 5.2). rustls authenticates the only valid one in its place, and so accepts
        // a record whose type or version was changed.
        assert!(our.result.is_err() || our.closed || their.result.is_ok());
        return;
    }
    // We refuse a message by its header; rustls waits for the rest of it.
    if matches!(
        our.result,
        Err(Error::InappropriateHandshakeMessage { .. } | Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate))
    ) {
        return;
    }
    let rest = &wire[our.consumed..];
    if our.result.is_err() && rest.len() < record_len(rest) {
        // Refused by its header; rustls may wait for the rest of the record.
        return;
    }
    if our.result.is_ok() && (1..HEADER_LEN).contains(&rest.len()) {
        // We wait for the whole header; rustls may refuse its first bytes.
        return;
    }
    if has_empty_records && our.result == Err(PeerMisbehaved::TooManyEmptyFragments.into()) {
        // rustls allows 32 in a row, we allow 32 without data between them: alternating with KeyUpdates they cost as much.
        return;
    }
    if has_empty_records && our.result == Err(PeerMisbehaved::TooManyKeyUpdateRequests.into()) {
        // For rustls an empty record resets the count.
        return;
    }
    assert_eq!(our.received, their.received);
    assert_eq!(our.result.is_err(), their.result.is_err(), "{:?} {:?}", our.result, their.result);
    match (&our.result, &their.result) {
        (Ok(()), Ok(())) if !our.closed => {
            assert!(our.sent.is_empty() && their.sent.is_empty());
            let mut to_send = SendBuffer::default();
            ours.write(STILL_HERE, &mut to_send).unwrap();
            assert_eq!(to_send.as_slice(), rustls.write(STILL_HERE));
        }
        // rustls counts an alert that ends the connection as a warning if its level says so.
        (Err(Error::AlertReceived(_)), Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived))) => {
            assert!(our.sent.is_empty());
        }
        (Err(our_error), Err(their_error)) if !has_plain_records => {
            assert_eq!(class(our_error), class(their_error), "{our_error:?} {their_error:?}");
            // It also answers a KeyUpdate before the alert.
            let alerts = |sent: &[u8]| Keys::new(side, suite, &secrets).alerts(sent);
            let (ours, theirs) = (alerts(&our.sent), alerts(&their.sent));
            match our_error {
                // rustls answers an unknown alert with another; section 6.2 has the connection closed.
                Error::AlertReceived(_) => assert!(ours.is_empty()),
                // For an unknown content type rustls sends another alert than section 5 requires.
                Error::InappropriateMessage { .. } => assert_eq!(ours, [UNEXPECTED_MESSAGE]),
                // Sometimes rustls sends none.
                _ if theirs.is_empty() => assert_eq!(ours.len(), 1),
                _ => assert_eq!(ours, theirs, "{our_error:?} {their_error:?}"),
            }
        }
        _ => {}
    }
});

/// Errors of the same kind.
fn class(error: &Error) -> &'static str {
    match error {
        Error::AlertReceived(_) => "alert",
        Error::DecryptError => "decrypt",
        Error::PeerSentOversizedRecord => "oversized",
        Error::PeerMisbehaved(_) | Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "protocol",
        Error::InappropriateHandshakeMessage { .. } => "protocol",
        _ => "other",
    }
}
