//! Both directions of connections with rustls.

use rustls::ClientConnection;
use rustls::server::UnbufferedServerConnection;

use super::rustls_ends::server_name;
use super::*;

const LENGTHS: [usize; 10] = [0, 1, 15, 16, 17, 16_383, 16_384, 16_385, 32_768, 100_000];

#[test]
fn bytes_arrive_in_both_directions_in_each_suite_with_any_room_and_in_any_pieces() {
    for suite in SUITES {
        for side in [Side::Client, Side::Server] {
            let (mut ours, mut rustls) = handshake(side, suite);
            for (index, length) in LENGTHS.into_iter().enumerate() {
                let bytes = noise(length);
                assert_eq!(rustls.read(&write(&mut ours, &bytes)).unwrap(), bytes, "{side:?} {suite:?} {length}");
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

/// An incomplete record is not consumed, and none is lost or used twice when it is passed again with more bytes.
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
                    ours.message_encrypter.set_confidentiality_limit(ours.message_encrypter.seq);
                }
                let before = ours.message_encrypter.generation();
                assert_eq!(rustls.read(&write(&mut ours, &[round; 30])).unwrap(), [round; 30]);
                ours.message_encrypter.set_confidentiality_limit(u64::MAX);
                let changed = ours.message_encrypter.generation() != before;
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
        assert_eq!(rustls.read(&write(&mut ours, b"goes on")).unwrap(), b"goes on");

        let (mut ours, mut rustls) = handshake(side, SUITES[0]);
        let mut out = SendBuffer::default();
        ours.write(b"last", &mut out).unwrap();
        ours.send_close_notify(&mut out).unwrap();
        assert_eq!(rustls.read(out.as_slice()).unwrap(), b"last");
        let outcome = read(&mut ours, &rustls.write(b"goes on"), 100);
        outcome.result.unwrap();
        assert_eq!(outcome.received, b"goes on");
    }
}

/// A rustls server sends tickets after the handshake; our client skips them.
#[test]
fn session_tickets_are_ignored() {
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
    let wire = sealed(&mut peer, 22, &[ticket.as_slice(), &ticket, &KEY_UPDATE].concat());
    peer.message_encrypter.update().unwrap();
    let wire = [wire, write(&mut peer, b"after")].concat();
    assert_eq!(read(&mut ours, &wire, 100).received, b"after");
}

/// rustls derives its keys from the logged secrets.
#[test]
fn the_first_keys_come_from_the_secrets() {
    for suite in SUITES {
        for side in [Side::Client, Side::Server] {
            let (mut ours, mut rustls) = handshake(side, suite);
            assert_eq!(
                (ours.message_decrypter.seq, ours.message_encrypter.seq, ours.key_update_requested),
                (0, 0, false)
            );
            assert_eq!(rustls.read(&write(&mut ours, b"derived")).unwrap(), b"derived");
            assert_eq!(read(&mut ours, &rustls.write(b"too"), 100).received, b"too");
        }
    }
}

/// rustls may have sent a record with the first key, such as one with tickets. The sequence number continues behind it.
#[test]
fn the_sequence_number_continues_where_rustls_stopped() {
    let (mut ours, mut rustls) = handshake_with_tickets(Side::Server, SUITES[0], 2);
    assert_eq!(ours.message_encrypter.seq, 1);
    assert_eq!(rustls.read(&write(&mut ours, b"behind the tickets")).unwrap(), b"behind the tickets");
}

/// If rustls has processed a KeyUpdate, its key is not the one of the logged secret.
#[test]
fn a_key_that_rustls_has_updated_is_refused() {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let secrets = Arc::new(TrafficSecretLog::default());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = with_provider(&peer.server(), provider);
    (config.key_log, config.enable_secret_extraction) = (secrets.clone(), true);
    config.send_tls13_tickets = 0;
    let mut server = Handshake::Server(UnbufferedServerConnection::new(Arc::new(config)).unwrap());
    let mut client = Rustls::Client(ClientConnection::new(Arc::new(peer.client()), server_name()).unwrap());
    let flight = server.advance(&mut client.flush());
    client.read(&flight).unwrap();
    client.refresh();
    let mut finished_and_update = client.flush();
    server.advance(&mut finished_and_update);
    assert!(finished_and_update.is_empty());
    let Handshake::Server(session) = server else { unreachable!() };
    assert!(matches!(secrets.server_record_layer(session), Err(Error::General(_))));
}
