//! Everything that rustls says is understood, and it understands everything that we say.

use super::*;

const LENGTHS: [usize; 10] = [0, 1, 15, 16, 17, 16_383, 16_384, 16_385, 32_768, 100_000];

#[test]
fn bytes_arrive_in_both_directions_in_each_suite_with_any_room_and_in_any_pieces() {
    for suite in SUITES {
        for side in [Side::Client, Side::Server] {
            let (mut ours, mut rustls) = handshake(side, suite);
            for (index, length) in LENGTHS.into_iter().enumerate() {
                let bytes = noise(length);
                assert_eq!(rustls.take(&write(&mut ours, &bytes)).unwrap(), bytes, "{side:?} {suite:?} {length}");
                let wire = rustls.write(&bytes);
                for room in [0, 1, length, length + 1, 2 * length + 100].into_iter().skip(index % 5).take(1) {
                    let outcome = read(&mut ours, &wire, room);
                    outcome.result.unwrap();
                    assert!(outcome.received == bytes && outcome.left == 0, "{side:?} {suite:?} {length} {room}");
                }
            }
        }
    }
}

/// What is not there as a whole is left, and nothing is lost or used twice when it comes again with more.
#[test]
fn a_record_that_comes_in_pieces_is_opened_once() {
    let (mut ours, mut rustls) = handshake(Side::Server, SUITES[0]);
    let wire = rustls.write(&noise(40_000));
    for step in [1, 3, 1000, 20_000] {
        let wire = if step == 1 { wire.clone() } else { rustls.write(&noise(40_000)) };
        let (mut held, mut got) = (Vec::new(), Vec::new());
        for piece in wire.chunks(step) {
            held.extend_from_slice(piece);
            let outcome = read(&mut ours, &held, 40_001 - got.len());
            outcome.result.unwrap();
            got.extend(outcome.received);
            held.drain(..held.len() - outcome.left);
        }
        assert!(held.is_empty() && got == noise(40_000), "{step}");
    }
}

#[test]
fn keys_change_as_often_as_either_side_wants() {
    for suite in SUITES {
        for side in [Side::Client, Side::Server] {
            let (mut ours, mut rustls) = handshake(side, suite);
            for round in 0..40_u8 {
                if round % 3 != 0 {
                    // It asks for ours as well.
                    rustls.refresh();
                }
                let wire = rustls.write(&[round; 20]);
                let outcome = read(&mut ours, &wire, 100);
                outcome.result.unwrap();
                assert_eq!((outcome.received.as_slice(), outcome.to_send.len()), (&[round; 20][..], 0));
                if round % 4 == 3 {
                    ours.writing.set_limit(ours.writing.sequence);
                }
                let before = ours.writing.generation();
                assert_eq!(rustls.take(&write(&mut ours, &[round; 30])).unwrap(), [round; 30]);
                ours.writing.set_limit(u64::MAX);
                let changed = ours.writing.generation() != before;
                assert_eq!(changed, round % 3 != 0 || round % 4 == 3, "{side:?} {suite:?} {round}");
            }
        }
    }
}

#[test]
fn either_side_may_end_first() {
    for side in [Side::Client, Side::Server] {
        let (mut ours, mut rustls) = handshake(side, SUITES[0]);
        let wire = [rustls.write(b"last"), rustls.close()].concat();
        let outcome = read(&mut ours, &wire, 100);
        outcome.result.unwrap();
        assert!(outcome.received == b"last" && outcome.closed && outcome.to_send.is_empty());
        assert_eq!(rustls.take(&write(&mut ours, b"goes on")).unwrap(), b"goes on");

        let (mut ours, mut rustls) = handshake(side, SUITES[0]);
        let mut out = Outgoing::default();
        ours.write(b"last", &mut out).unwrap();
        ours.close(&mut out).unwrap();
        assert_eq!(rustls.take(out.filled()).unwrap(), b"last");
        let outcome = read(&mut ours, &rustls.write(b"goes on"), 100);
        outcome.result.unwrap();
        assert_eq!(outcome.received, b"goes on");
    }
}

/// A server of rustls hands out tickets behind the handshake; a client of ours passes over them.
#[test]
fn tickets_are_passed_over() {
    let (mut ours, mut peer) = both(SUITES[0]);
    let ticket = [&[4, 0, 1, 0][..], &noise(256)].concat();
    for pieces in [300, 100, 7, 3, 1] {
        let wire: Vec<u8> = ticket.chunks(pieces).flat_map(|piece| sealed(&mut peer, 22, piece)).collect();
        let outcome = read(&mut ours, &wire, 100);
        outcome.result.unwrap();
        assert!(outcome.received.is_empty() && outcome.left == 0);
    }
    assert_eq!(read(&mut ours, &write(&mut peer, b"then"), 100).received, b"then");
    // And in one record with others.
    let wire = sealed(&mut peer, 22, &[ticket.as_slice(), &ticket, &message::KEY_UPDATE].concat());
    peer.writing.update().unwrap();
    let wire = [wire, write(&mut peer, b"after")].concat();
    assert_eq!(read(&mut ours, &wire, 100).received, b"after");
}

/// What follows the end of a handshake may come with it. rustls has seen some of it then, and where it stopped we go on: after
/// data, after other keys, in the middle of a record or of a message.
#[test]
fn what_comes_with_the_end_of_a_handshake_is_not_lost() {
    for suite in SUITES {
        for (name, records) in [("data", 0b01), ("an update", 0b10), ("both", 0b11), ("nothing", 0)] {
            for cut in [0, 3, 7, 30] {
                let (mut session, mut client, mut held) = almost(suite);
                let mut behind = Vec::new();
                if records & 0b01 != 0 {
                    behind.extend(client.write(b"first"));
                }
                if records & 0b10 != 0 {
                    client.refresh();
                }
                behind.extend(client.write(b"second"));
                let whole = held.len() + behind.len();
                held.extend(&behind);
                let later = held.split_off(whole - cut.min(behind.len() - 1));
                let mut output = Output::new(Outgoing::default(), None);
                let (done, result) = session.read(&mut held, &mut output);
                result.unwrap();
                assert!(!session.is_handshaking() && output.to_send.filled().is_empty(), "{name} {cut}");
                let mut got = output.received;
                let rest = held.split_off(done);
                let Session::Records(mut ours) = session.established(&rest).unwrap() else { panic!("{name} {cut}") };
                let outcome = read(&mut ours, &[rest, later].concat(), 100);
                outcome.result.unwrap();
                got.extend(outcome.received);
                let expected: &[u8] = if records & 0b01 == 0 { b"second" } else { b"firstsecond" };
                assert_eq!(got, expected, "{name} {cut}");
                assert_eq!(ours.update_due, records & 0b10 != 0);
                for round in 0..3 {
                    assert_eq!(client.take(&write(&mut ours, b"back")).unwrap(), b"back", "{name} {cut} {round}");
                    client.refresh();
                    assert_eq!(read(&mut ours, &client.write(b"forth"), 100).received, b"forth");
                }
            }
        }
    }
}

/// A message that comes in pieces is rustls' to the end, when its first piece came with the end of the handshake.
#[test]
fn a_message_that_rustls_has_begun_is_left_to_it() {
    let (mut session, mut client, mut held) = almost_with_ours(SUITES[0]);
    held.extend(sealed(&mut client, 22, &[24, 0]));
    let mut output = Output::new(Outgoing::default(), None);
    let (done, result) = session.read(&mut held, &mut output);
    result.unwrap();
    let mut rest = held.split_off(done);
    let mut session = session.established(&rest).unwrap();
    assert!(matches!(session, Session::Rustls(_)) && !rest.is_empty());
    rest.extend(sealed(&mut client, 22, &[0, 1, 0]));
    client.writing.update().unwrap();
    rest.extend(write(&mut client, b"with the next key"));
    let mut output = Output::new(Outgoing::default(), None);
    let (done, result) = session.read(&mut rest, &mut output);
    result.unwrap();
    assert_eq!((done, output.received.as_slice()), (rest.len(), &b"with the next key"[..]));
    let mut output = Output::new(Outgoing::default(), None);
    session.write(&mut [], b"answer", &mut output).1.unwrap();
    assert_eq!(read(&mut client, output.to_send.filled(), 100).received, b"answer");
}

/// The secret that the key log gave is the one that rustls made its keys from.
#[test]
fn the_first_keys_come_from_the_secrets() {
    for suite in SUITES {
        for side in [Side::Client, Side::Server] {
            let (mut ours, mut rustls) = handshake(side, suite);
            assert_eq!((ours.reading.sequence, ours.writing.sequence, ours.update_due), (0, 0, false));
            assert_eq!(rustls.take(&write(&mut ours, b"derived")).unwrap(), b"derived");
            assert_eq!(read(&mut ours, &rustls.write(b"too"), 100).received, b"too");
        }
    }
}
