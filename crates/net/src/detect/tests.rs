use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::*;
use crate::replay::Replay;

/// A hello of OpenSSL's that offers `istio-peer-exchange, istio`.
const HELLO: &[u8] = include_bytes!("../../../wire/tests/data/openssl-hello.bin");

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A client that has sent `bytes` and keeps the connection open, and our end of it.
async fn sent(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (mut client, ours) = duplex(1 << 20);
    client.write_all(bytes).await.unwrap();
    (client, ours)
}

#[tokio::test(start_paused = true)]
async fn settled_openings_do_not_wait_for_more() {
    let junk = [&[0x16, 3, 1, 0, 8, 1, 0, 0, 4][..], b"junk"].concat();
    let cases: [(&[u8], Sniff, Opening); 7] = [
        (b"G", Sniff::Hello, Opening::Plain),
        (b"G", Sniff::FirstByte, Opening::Plain),
        (b"\x16hello", Sniff::Hello, Opening::Plain),
        (HELLO, Sniff::Hello, Opening::MeshTls),
        (HELLO, Sniff::FirstByte, Opening::MeshTls),
        (b"\x16hello", Sniff::FirstByte, Opening::UnreadTls),
        (&junk, Sniff::Hello, Opening::Malformed),
    ];
    for (bytes, sniff, opening) in cases {
        let (_client, mut ours) = sent(bytes).await;
        let start = Instant::now();
        let detected = detect(&mut ours, soon(), sniff).await.unwrap();
        assert_eq!((detected.opening, detected.eof), (opening, false), "{}", bytes.escape_ascii());
        assert_eq!(detected.seen, bytes);
        assert_eq!(detected.hello.is_some(), opening == Opening::MeshTls);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_start_and_not_from_the_last_byte() {
    for (bytes, opening) in [(&b""[..], Opening::Silent), (&HELLO[..20], Opening::Incomplete)] {
        let (mut client, mut ours) = duplex(64);
        let start = Instant::now();
        let drip = async {
            for byte in bytes {
                client.write_u8(*byte).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let detected = tokio::select! {
            biased;
            detected = detect(&mut ours, soon(), Sniff::Hello) => detected.unwrap(),
            () = drip => unreachable!(),
        };
        assert_eq!((detected.opening, detected.eof), (opening, false));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert!(bytes.starts_with(&detected.seen));
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_end_leaves_it_silent_or_incomplete() {
    for (bytes, opening) in [(&b""[..], Opening::Silent), (&[0x16, 3, 1], Opening::Incomplete)] {
        let (mut client, mut ours) = sent(bytes).await;
        client.shutdown().await.unwrap();
        let start = Instant::now();
        let detected = detect(&mut ours, soon(), Sniff::Hello).await.unwrap();
        assert_eq!((detected.opening, detected.eof), (opening, true));
        assert_eq!(detected.seen, bytes);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

#[tokio::test]
async fn text_with_a_fin_right_behind_it_is_delivered_and_then_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"SELECT 1").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut ours, _) = listener.accept().await.unwrap();
    let detected = detect(&mut ours, soon(), Sniff::Hello).await.unwrap();
    assert_eq!(detected.opening, Opening::Plain);
    let mut replay = Replay::new(detected.seen, ours);
    let mut got = Vec::new();
    replay.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"SELECT 1");
    // The other direction is still open.
    replay.write_all(b"late answer").await.unwrap();
    drop(replay);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "late answer");
}

#[tokio::test]
async fn a_reset_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut ours, _) = listener.accept().await.unwrap();
    crate::socket::reset_on_close(&client).unwrap();
    drop(client);
    let error = detect(&mut ours, soon(), Sniff::Hello).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_detector_goes_on_where_it_was() {
    let (mut client, mut ours) = duplex(1 << 20);
    let mut detector = Detector::new(Sniff::Hello);
    for piece in HELLO.chunks(100) {
        assert!(timeout(Duration::from_millis(100), detector.run(&mut ours)).await.is_err());
        client.write_all(piece).await.unwrap();
    }
    detector.run(&mut ours).await.unwrap();
    // Once settled, it does not read any more.
    client.write_all(b"more").await.unwrap();
    detector.run(&mut ours).await.unwrap();
    let detected = detector.finish();
    assert_eq!((detected.opening, detected.seen.as_slice()), (Opening::MeshTls, HELLO));
    assert_eq!(detected.hello.unwrap().alpn, ["istio-peer-exchange", "istio"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_holds_no_buffer() {
    let (_client, mut ours) = duplex(64);
    let mut detector = Detector::new(Sniff::Hello);
    assert!(timeout(Duration::from_secs(1), detector.run(&mut ours)).await.is_err());
    assert!(!detector.has_bytes());
    assert_eq!(detector.seen.capacity(), 0);
    assert!(size_of_val(&detector.run(&mut ours)) <= 64, "the read buffer is not part of the connection's state");
}

/// What is read is what was sent, and is classified as the parser classifies it, however it is split between reads.
async fn chunked(bytes: &[u8], sizes: &[usize]) -> Detected {
    let (mut client, mut ours) = duplex(sizes.iter().copied().max().unwrap_or(1));
    let feed = async {
        let mut rest = bytes;
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(size.min(rest.len()));
            client.write_all(piece).await.unwrap();
            rest = after;
        }
        client.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        detected = detect(&mut ours, soon(), Sniff::Hello) => detected.unwrap(),
        () = feed => unreachable!(),
    }
}

proptest! {
    #[test]
    fn chunks_change_nothing(
        change in proptest::option::of((0..HELLO.len(), any::<u8>())),
        cut in 0..=HELLO.len(),
        sizes in vec(1_usize..300, 1..6),
    ) {
        let mut bytes = HELLO[..cut].to_vec();
        if let Some((at, byte)) = change && let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let detected = runtime.block_on(chunked(&bytes, &sizes));
        prop_assert_eq!(detected.opening, portcullis_wire::classify(&bytes));
        prop_assert!(bytes.starts_with(&detected.seen));
        if detected.eof {
            prop_assert_eq!(detected.seen, bytes);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_in_records_of_a_byte_is_not_taken_without_end() {
    let (mut client, mut ours) = duplex(1 << 20);
    let message = [&[1, 1, 0, 0][..], &[0; 65_535]].concat();
    let wire: Vec<u8> = message.iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    let sender = tokio::spawn(async move { client.write_all(&wire).await });
    let detected = detect(&mut ours, soon(), Sniff::Hello).await.unwrap();
    assert_eq!(detected.opening, Opening::Malformed);
    assert!(detected.seen.len() < 70_000, "{}", detected.seen.len());
    sender.abort();
}
