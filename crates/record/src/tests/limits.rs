//! Limits of keys and of messages that carry no data.

use rustls::PeerMisbehaved;

use super::*;
use crate::traffic_key::Suite;

#[test]
fn a_key_is_updated_at_its_limit_before_it_seals_more() {
    let (mut ours, mut peer) = both(SUITES[0]);
    ours.message_encrypter.set_confidentiality_limit(3);
    for round in 0..20_u8 {
        let outcome = read(&mut peer, &write(&mut ours, &[round]), 100);
        outcome.result.unwrap();
        assert_eq!(outcome.received, [round]);
        assert!(ours.message_encrypter.seq < 3);
    }
    // Within one write too.
    let outcome = read(&mut peer, &write(&mut ours, &noise(200_000)), 300_000);
    outcome.result.unwrap();
    assert!(outcome.received == noise(200_000));
    assert_eq!(SUITES.map(|suite| Suite::new(suite).unwrap().confidentiality_limit()), [1 << 24, 1 << 24, u64::MAX]);
}

/// The nonce of the last sequence number is never used, so that none repeats.
#[test]
fn numbers_do_not_begin_again() {
    let (mut ours, mut peer) = both(SUITES[2]);
    (ours.message_encrypter.seq, peer.message_decrypter.seq) = (u64::MAX - 1, u64::MAX - 1);
    assert_eq!(read(&mut peer, &sealed(&mut ours, 23, b"last"), 100).received, b"last");
    let mut out = SendBuffer::default();
    assert_eq!(ours.encrypt(&mut out, ContentType::ApplicationData, b"more"), Err(Error::EncryptError));
    assert!(out.as_slice().is_empty());
    let wire = sealed(&mut both(SUITES[2]).1, 23, b"more");
    assert_eq!(read(&mut peer, &wire, 100).result, Err(Error::DecryptError));
}

/// The nonce is the IV XORed with the sequence number in network order (RFC 8446, section 5.3).
#[test]
fn a_nonce_is_the_number_over_the_iv() {
    let (mut ours, _) = both(SUITES[0]);
    ours.message_encrypter.iv = [0; 12];
    for (sequence, expected) in [
        (0, [0; 12]),
        (1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (0x0102_0304_0506_0708, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ] {
        ours.message_encrypter.seq = sequence;
        assert_eq!(*ours.message_encrypter.next_nonce().unwrap().as_ref(), expected);
    }
}

/// Accepted up to the limit, refused beyond it.
#[test]
fn records_without_content_are_bounded() {
    let update = |peer: &mut RecordLayer| {
        let wire = sealed(peer, 22, &KEY_UPDATE);
        peer.message_encrypter.update().unwrap();
        wire
    };
    let empty = |peer: &mut RecordLayer| sealed(peer, 23, b"");
    let warning = |peer: &mut RecordLayer| sealed(peer, 21, &[1, 90]);
    let data = |peer: &mut RecordLayer| sealed(peer, 23, b"data");
    let both_kinds = |peer: &mut RecordLayer| [update(peer), empty(peer)].concat();
    for (one, bound, again) in [
        (&update as &dyn Fn(&mut RecordLayer) -> Vec<u8>, 32, true),
        (&empty, 32, true),
        (&both_kinds, 32, true),
        (&warning, 4, false),
    ] {
        let (mut ours, mut peer) = both(SUITES[0]);
        for _ in 0..bound {
            read(&mut ours, &one(&mut peer), 100).result.unwrap();
        }
        if again {
            // Data between them begins the count again.
            assert_eq!(read(&mut ours, &data(&mut peer), 100).received, b"data");
            for _ in 0..bound {
                read(&mut ours, &one(&mut peer), 100).result.unwrap();
            }
        }
        let outcome = read(&mut ours, &one(&mut peer), 100);
        assert!(matches!(outcome.result, Err(Error::PeerMisbehaved(_))), "{outcome:?}");
        assert_eq!(alert_in(&mut peer, &outcome.to_send), Some(AlertDescription::UnexpectedMessage));
    }
}

/// A peer that only receives may change its key as often as it gets data: a long download is not a flood.
#[test]
fn data_that_is_sent_resets_the_count_of_key_updates() {
    let (mut ours, mut peer) = both(SUITES[0]);
    let update = |peer: &mut RecordLayer| {
        let wire = sealed(peer, 22, &[24, 0, 0, 1, 1]);
        peer.message_encrypter.update().unwrap();
        wire
    };
    for round in 0..100_u8 {
        let outcome = read(&mut ours, &update(&mut peer), 100);
        outcome.result.unwrap();
        assert_eq!(read(&mut peer, &write(&mut ours, &[round]), 100).received, [round]);
    }
    // Nothing is sent by an empty write.
    for _ in 0..32 {
        read(&mut ours, &update(&mut peer), 100).result.unwrap();
        assert!(write(&mut ours, b"").is_empty());
    }
    let outcome = read(&mut ours, &update(&mut peer), 100);
    assert_eq!(outcome.result, Err(Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)));
}

/// What a header may announce, before the rest of the record has come.
#[test]
fn headers_are_refused_at_once() {
    let (mut ours, mut peer) = both(SUITES[0]);
    let longest = read(&mut ours, &[23, 3, 3, 0x41, 0x00], 0);
    assert_eq!((longest.result, longest.left), (Ok(()), 5));
    for (header, error, alert) in [
        ([23, 3, 3, 0x41, 0x01], Error::PeerSentOversizedRecord, AlertDescription::RecordOverflow),
        ([23, 3, 3, 0, 16], Error::DecryptError, AlertDescription::BadRecordMac),
        ([23, 2, 3, 0, 17], InvalidMessage::UnknownProtocolVersion.into(), AlertDescription::DecodeError),
        (
            [20, 3, 3, 0, 1],
            PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into(),
            AlertDescription::UnexpectedMessage,
        ),
    ] {
        let outcome = read(&mut ours, &header, 0);
        assert_eq!((outcome.result, outcome.left), (Err(error), 5));
        assert_eq!(alert_in(&mut peer, &outcome.to_send), Some(alert));
    }
}

/// What follows a KeyUpdate is encrypted with another key, so nothing may follow it in its record.
#[test]
fn nothing_follows_a_key_update_in_its_record() {
    for rest in [&b"\0"[..], &KEY_UPDATE] {
        let (mut ours, mut peer) = both(SUITES[0]);
        let wire = sealed(&mut peer, 22, &[&KEY_UPDATE, rest].concat());
        let outcome = read(&mut ours, &wire, 0);
        assert_eq!(outcome.result, Err(PeerMisbehaved::KeyEpochWithPendingFragment.into()));
        assert_eq!(alert_in(&mut peer, &outcome.to_send), Some(AlertDescription::UnexpectedMessage));
    }
}

/// A ticket is as long as rustls allows, however it is fragmented.
#[test]
fn the_length_of_a_ticket_is_bounded() {
    for (len, result) in [
        ([0, 0xff, 0xff], Ok(())),
        ([1, 0, 0], Err(InvalidMessage::HandshakePayloadTooLarge.into())),
        ([0, 0, 0], Err(InvalidMessage::MissingData("NewSessionTicket").into())),
    ] {
        let (mut ours, mut peer) = both(SUITES[0]);
        let wire = sealed(&mut peer, 22, &[&[4], &len[..], b"begins"].concat());
        assert_eq!(read(&mut ours, &wire, 0).result, result);
    }
}

/// Nothing is sent after close_notify, not even an alert.
#[test]
fn nothing_follows_close_notify() {
    let (mut ours, mut peer) = both(SUITES[0]);
    let mut out = SendBuffer::default();
    ours.send_close_notify(&mut out).unwrap();
    assert!(read(&mut peer, out.as_slice(), 100).closed);
    let wire = [sealed(&mut peer, 22, &[24, 0, 0, 1, 1]), sealed(&mut peer, 23, b"with the old key")].concat();
    let outcome = read(&mut ours, &wire, 100);
    assert_eq!((outcome.result, outcome.to_send.len()), (Err(Error::DecryptError), 0));
}
