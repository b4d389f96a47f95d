//! Valid and invalid streams of records, compared with rustls.

use proptest::prelude::*;

use super::*;

/// One action of a peer that holds the keys.
#[derive(Clone, Debug)]
enum Step {
    /// An encrypted record of any type, with any content and padding.
    Sealed { kind: u8, content: Vec<u8>, padding: usize },
    /// A valid KeyUpdate, followed by a change to the peer's next key.
    KeyUpdate { request: bool },
    /// A handshake message in fragments of that size.
    Message { kind: u8, body: Vec<u8>, pieces: usize },
    /// A session ticket in fragments of that size.
    Ticket { length: usize, pieces: usize },
    /// An unencrypted record.
    Plain { kind: u8, version: [u8; 2], content: Vec<u8> },
    /// An encrypted record with one bit flipped.
    Changed { at: usize, bit: u8 },
    /// A replayed record.
    Twice,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind =
        prop_oneof![6 => Just(23_u8), 3 => Just(22), 3 => Just(21), 1 => Just(20), 1 => Just(24), 1 => any::<u8>()];
    let content = prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => Just(Vec::new()),
        1 => Just(noise(16_384)),
        1 => Just(noise(16_385)),
        2 => Just(vec![1, 0]),
        1 => Just(vec![1, 90]),
        1 => Just(vec![2, 40]),
        1 => Just(vec![24, 0, 0, 1, 2]),
        1 => Just(vec![24, 0, 0, 2, 0, 0]),
        1 => Just(vec![24, 0, 0, 1, 0, 24]),
        1 => Just(vec![24, 0, 0, 0]),
    ];
    let version = prop_oneof![3 => Just([3, 3]), 1 => Just([3, 1]), 1 => any::<[u8; 2]>()];
    let step = prop_oneof![
        4 => (kind.clone(), content.clone(), prop_oneof![3 => Just(0_usize), 2 => 0..300_usize])
            .prop_map(|(kind, mut content, padding)| {
                // What looks like a ticket would be parsed by rustls; those are made below.
                if let (22, Some(first @ &mut TICKET)) = (kind, content.first_mut()) {
                    *first = 5;
                }
                // The level of an alert means nothing in TLS 1.3 (section 6); rustls asks that it be one of the two.
                if let (21, [level, _]) = (kind, content.as_mut_slice()) {
                    *level = *level % 2 + 1;
                }
                Step::Sealed { kind, content, padding }
            }),
        10 => proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|content| Step::Sealed { kind: 23, content, padding: 0 }),
        4 => any::<bool>().prop_map(|request| Step::KeyUpdate { request }),
        2 => (1..100_usize, 1..130_usize).prop_map(|(length, pieces)| Step::Ticket { length, pieces }),
        2 => (prop_oneof![2 => Just(24), 1 => any::<u8>().prop_filter("its body is parsed", |kind| *kind != TICKET)],
              proptest::collection::vec(any::<u8>(), 0..60), 1..70_usize)
            .prop_map(|(kind, body, pieces)| Step::Message { kind, body, pieces }),
        1 => (kind, version, content).prop_map(|(kind, version, content)| Step::Plain { kind, version, content }),
        1 => (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Step::Changed { at, bit }),
        1 => Just(Step::Twice),
    ];
    proptest::collection::vec(step, 1..12)
}

const TICKET: u8 = 4;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, u8::try_from(body.len()).unwrap()], body].concat()
}

/// Encrypts the steps with the peer's keys.
fn play(peer: &mut RecordLayer, steps: &[Step]) -> Vec<u8> {
    let mut wire = Vec::new();
    for step in steps {
        match step {
            Step::Sealed { kind, content, padding: 0 } => wire.extend(sealed(peer, *kind, content)),
            Step::Sealed { kind, content, padding } => {
                let content = [content.as_slice(), &[*kind], &vec![0; padding - 1]].concat();
                wire.extend(sealed(peer, 0, &content));
            }
            Step::KeyUpdate { request } => {
                wire.extend(sealed(peer, 22, &[24, 0, 0, 1, u8::from(*request)]));
                peer.message_encrypter.update().unwrap();
            }
            Step::Message { kind, body, pieces } => {
                wire.extend(message(*kind, body).chunks(*pieces).flat_map(|piece| sealed(peer, 22, piece)));
            }
            Step::Ticket { length, pieces } => {
                // A lifetime, what is added to its age, a nonce of one byte, the ticket, no extensions.
                let body =
                    [&[0, 0, 1, 0, 1, 2, 3, 4, 1, 9, 0, u8::try_from(*length).unwrap()][..], &noise(*length), &[0, 0]];
                let ticket = message(TICKET, &body.concat());
                wire.extend(ticket.chunks(*pieces).flat_map(|piece| sealed(peer, 22, piece)));
            }
            Step::Plain { kind, version, content } => {
                let length = u16::try_from(content.len()).unwrap().to_be_bytes();
                wire.extend([&[*kind], &version[..], &length, content].concat());
            }
            Step::Changed { at, bit } => {
                let mut record = sealed(peer, 23, b"to be changed");
                let at = HEADER_LEN + at % (record.len() - HEADER_LEN);
                record[at] ^= 1 << bit;
                wire.extend(record);
            }
            Step::Twice => {
                let record = sealed(peer, 23, b"twice");
                wire.extend([record.as_slice(), &record].concat());
            }
        }
    }
    wire
}

/// Compares plaintext, refusals and alerts for the same steps.
fn compare(ours: Side, (suite, room): (usize, usize), steps: &[Step]) -> Result<(), TestCaseError> {
    // Ours, with a record layer of ours as the peer.
    let suite = SUITES[suite];
    let (client, server) = both(suite);
    let (mut us, mut our_peer) = match ours {
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    let outcome = read(&mut us, &play(&mut our_peer, steps), room);
    let our_alert = alert_in(&mut our_peer, &outcome.to_send);
    // rustls 0.23.46 lets an empty record of a message pass, against RFC 8446, section 5.4, and panics at some that follow one.
    if matches!(outcome.result, Err(Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload))) {
        return Ok(());
    }

    // rustls in our place, and the same peer.
    let (mut peer, mut rustls) = handshake(ours.other(), suite);
    let mut received = Vec::new();
    let mut failed = None;
    // One record after the other, since it does not hand out what came before a failure.
    let wire = play(&mut peer, steps);
    let mut rest = wire.as_slice();
    while failed.is_none() && !rest.is_empty() {
        let (record, behind) = rest.split_at(record_len(rest).unwrap().min(rest.len()));
        rest = behind;
        match rustls.read(record) {
            Ok(bytes) => received.extend(bytes),
            Err(error) => failed = Some(error),
        }
    }
    let their_alert = alert_in(&mut peer, &rustls.flush());

    prop_assert!(received.starts_with(&outcome.received));
    // We refuse a message of a wrong kind or length by its front; rustls waits for the rest, and says what it thinks then.
    if matches!(
        outcome.result,
        Err(Error::InappropriateHandshakeMessage { .. } | Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate))
    ) {
        return Ok(());
    }
    prop_assert_eq!(&outcome.received, &received);
    prop_assert_eq!(outcome.result.is_err(), failed.is_some(), "{:?} {:?}", outcome.result, failed);
    if steps.iter().any(|step| matches!(step, Step::Plain { .. })) {
        // Which of several reasons comes first is another matter.
        return Ok(());
    }
    if let Err(Error::AlertReceived(_)) = outcome.result {
        prop_assert_eq!(our_alert, None);
        return Ok(());
    }
    if let Err(Error::InappropriateMessage { .. }) = outcome.result {
        // For a type that does not exist, rustls sends another alert than RFC 8446, section 5, asks for.
        prop_assert_eq!(our_alert, Some(AlertDescription::UnexpectedMessage));
        return Ok(());
    }
    // Sometimes rustls says nothing.
    prop_assert!(our_alert == their_alert || their_alert.is_none(), "{:?} {:?}", outcome.result, failed);
    if outcome.result.is_ok() && !outcome.closed {
        // Both go on, with keys that the peer has too.
        let said = write(&mut us, b"still here");
        prop_assert_eq!(said.len(), rustls.write(b"still here").len());
        prop_assert_eq!(read(&mut our_peer, &said, 100).received, b"still here");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_server_accepts_what_rustls_accepts(suite in 0..3_usize, room in 0..2_000_usize, steps in steps()) {
        compare(Side::Server, (suite, room), &steps)?;
    }

    #[test]
    fn a_client_accepts_what_rustls_accepts(suite in 0..3_usize, room in 0..2_000_usize, steps in steps()) {
        compare(Side::Client, (suite, room), &steps)?;
    }

    /// Without the keys nothing is received.
    #[test]
    fn without_the_keys_nothing_is_received(mut bytes in proptest::collection::vec(any::<u8>(), 0..2_000), well_formed in any::<bool>()) {
        if let ([front @ .., _, _], true) = (bytes.get_mut(..5).unwrap_or_default(), well_formed) {
            front.copy_from_slice(&[23, 3, 3]);
        }
        let outcome = read(&mut both(SUITES[0]).0, &bytes, 1_000);
        prop_assert!(outcome.received.is_empty() && !outcome.closed);
        prop_assert!(outcome.result.is_err() || record_len(&bytes).is_none_or(|length| length > bytes.len()));
    }
}
