//! Known attacks on HTTP/2, each with the bytes that it consists of.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis_hbone::limits::{EARLY_RESETS, PENDING_RESETS, STREAM_WINDOW, STREAMS};
use portcullis_hbone::{ConnectRefusal, TunnelEnd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect, connect_block,
    contains, frame, literal, preface,
};
use crate::serving::{PATIENCE, Serving, serve};

/// A server that accepts each stream and keeps it open, and reads nothing.
fn victim() -> (DuplexStream, Serving) {
    let (ours, theirs) = duplex(64 * 1024);
    let serving = serve(ours, |request| async move {
        let Ok(_stream) = request.accept() else { return };
        std::future::pending::<()>().await;
    });
    (theirs, serving)
}

/// Sends until the server closes, and discards what it says.
async fn flood(io: DuplexStream, opening: Vec<u8>, piece: impl Fn(u32) -> Vec<u8>, pieces: u32) {
    let (mut reading, mut writing) = tokio::io::split(io);
    let reader = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    let sent = async {
        writing.write_all(&opening).await?;
        for number in 0..pieces {
            writing.write_all(&piece(number)).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let _closed = timeout(PATIENCE, sent).await.expect("the server takes the bytes, or closes");
    reader.abort();
}

const fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// CVE-2023-44487, faster than streams are looked at.
#[tokio::test]
async fn rapid_reset_ends_the_tunnel_after_few_streams() {
    let (io, serving) = victim();
    let requests = std::sync::Arc::clone(&serving.requests);
    let reset = |n| [connect(stream(n)), frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat();
    // Many in one write, so that they are there together.
    flood(io, preface(), |n| (100 * n..100 * (n + 1)).flat_map(reset).collect(), 1000).await;
    assert_eq!(serving.end().await, TunnelEnd::Flood);
    let begun = requests.load(Ordering::SeqCst);
    assert!(begun <= PENDING_RESETS + STREAMS as usize, "{begun} of 100,000 were begun");
}

/// The same, slowly enough that each stream is looked at, but before its answer.
#[tokio::test]
async fn streams_that_are_reset_before_their_answer_end_the_tunnel() {
    let (ours, theirs) = duplex(64 * 1024);
    let serving = serve(ours, |mut request| async move { request.gone().await });
    let requests = std::sync::Arc::clone(&serving.requests);
    let seen = std::sync::Arc::clone(&requests);
    let (mut reading, mut writing) = tokio::io::split(theirs);
    tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
    writing.write_all(&preface()).await.unwrap();
    for number in 0..10_000 {
        if writing.write_all(&connect(stream(number))).await.is_err() {
            break;
        }
        let begun = async {
            while seen.load(Ordering::SeqCst) <= number as usize && !serving.ended.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, begun).await.expect("the stream is begun, or the tunnel has ended");
        let _closed = writing.write_all(&frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes())).await;
    }
    assert_eq!(serving.end().await, TunnelEnd::Flood);
    let begun = requests.load(Ordering::SeqCst);
    assert!(begun > EARLY_RESETS && begun < 2 * EARLY_RESETS, "{begun} streams were begun");
}

/// CVE-2024-27316 and its kin: a header block without an end.
#[tokio::test]
async fn continuation_frames_without_an_end_end_the_tunnel() {
    for piece in [Vec::new(), vec![0; 1000], literal("x-bomb", 4000)] {
        let (io, serving) = victim();
        let requests = std::sync::Arc::clone(&serving.requests);
        let opening = [preface(), frame(HEADERS, 0, 1, &connect_block("10.0.0.7:80"))].concat();
        flood(io, opening, |_| frame(CONTINUATION, 0, 1, &piece), 100_000).await;
        let end = serving.end().await;
        assert!(matches!(end, TunnelEnd::Flood | TunnelEnd::Protocol), "{end:?}");
        assert_eq!(requests.load(Ordering::SeqCst), 0);
    }
}

/// A header list beyond the limit is not given out, however it is compressed.
#[tokio::test]
async fn a_header_bomb_is_not_served() {
    let (mut io, serving) = victim();
    let requests = std::sync::Arc::clone(&serving.requests);
    // One literal into the dynamic table, then a byte for each copy of it: 4 KiB each.
    let mut bomb = literal("x-bomb", 4000);
    bomb[0] = 0x40;
    let block = [connect_block("10.0.0.7:80"), bomb, vec![0xbe; 10_000]].concat();
    io.write_all(&[preface(), frame(HEADERS, END_HEADERS, 1, &block)].concat()).await.unwrap();
    let (mut reading, writing) = tokio::io::split(io);
    let mut answer = vec![0; 4096];
    let read = async {
        let mut all = Vec::new();
        // Its settings, then the answer to the stream, or the end.
        while !contains(&all, HEADERS, 1) && !contains(&all, RST_STREAM, 1) {
            match reading.read(&mut answer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => all.extend(&answer[..count]),
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer");
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    drop((reading, writing));
    serving.end().await;
}

/// Each wants an answer, and the answers are not read: the server stops reading instead of keeping them.
#[tokio::test]
async fn settings_and_pings_whose_answers_are_not_read_are_not_collected() {
    for one in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])] {
        let (mut io, _serving) = victim();
        io.write_all(&preface()).await.unwrap();
        let many: Vec<u8> = one.iter().copied().cycle().take(one.len() * 1000).collect();
        let mut taken = 0;
        while let Ok(Ok(())) = timeout(Duration::from_millis(300), io.write_all(&many)).await {
            taken += many.len();
            assert!(taken < 1_000_000, "{taken} bytes were taken");
        }
    }
}

/// Frames that cost the sender nine bytes, and no window.
#[tokio::test]
async fn empty_data_frames_without_an_end_end_the_tunnel() {
    let (io, serving) = victim();
    let opening = [preface(), connect(1)].concat();
    flood(io, opening, |_| frame(DATA, 0, 1, &[]).repeat(100), 10_000).await;
    assert_eq!(serving.end().await, TunnelEnd::Flood);
}

/// More than the window: the stream is reset, or the tunnel ends; what is held is bounded by the window in any case.
#[tokio::test]
async fn data_beyond_the_window_is_refused() {
    let (mut io, serving) = victim();
    io.write_all(&[preface(), connect(1)].concat()).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(io);
    let attack = tokio::spawn(async move {
        let piece = frame(DATA, 0, 1, &[0; 16_384]);
        for _ in 0..(2 * STREAM_WINDOW / 16_384) {
            if writing.write_all(&piece).await.is_err() {
                break;
            }
        }
        writing
    });
    let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
    let refused = async {
        while !contains(&all, RST_STREAM, 1) {
            match reading.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => all.extend(&buffer[..count]),
            }
        }
    };
    timeout(PATIENCE, refused).await.expect("the stream is reset");
    drop((attack.await.unwrap(), reading));
    serving.end().await;
}

/// A window that grows beyond what HTTP/2 can say, and an increment of nothing.
#[tokio::test]
async fn windows_that_cannot_be_end_the_tunnel() {
    let beyond = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let nothing = frame(WINDOW_UPDATE, 0, 0, &[0; 4]);
    let initial = frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]);
    for game in [beyond, nothing, initial] {
        let (io, serving) = victim();
        flood(io, [preface(), connect(1)].concat(), |_| game.clone(), 2).await;
        let end = serving.end().await;
        assert!(matches!(end, TunnelEnd::Protocol | TunnelEnd::Lost), "{end:?}");
    }
}

/// Streams beyond the limit are refused, and those within it stay.
#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let (io, serving) = victim();
    let requests = std::sync::Arc::clone(&serving.requests);
    let (mut reading, mut writing) = tokio::io::split(io);
    writing.write_all(&preface()).await.unwrap();
    let (mut all, mut buffer) = (Vec::new(), vec![0; 65_536]);
    // The limit holds once the peer has acknowledged it.
    while !contains(&all, SETTINGS, 0) {
        let count = reading.read(&mut buffer).await.unwrap();
        all.extend(&buffer[..count]);
    }
    writing.write_all(&frame(SETTINGS, 1, 0, &[])).await.unwrap();
    let streams: Vec<u8> = (0..STREAMS + 1).flat_map(|number| connect(stream(number))).collect();
    writing.write_all(&streams).await.unwrap();
    let refused = async {
        while !contains(&all, RST_STREAM, stream(STREAMS)) {
            let count = reading.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the tunnel has ended");
            all.extend(&buffer[..count]);
        }
    };
    timeout(PATIENCE, refused).await.expect("the last one is refused");
    assert_eq!(requests.load(Ordering::SeqCst), STREAMS as usize);
}

/// What is no HTTP/2 at all gets no tunnel.
#[tokio::test]
async fn another_protocol_is_not_taken_for_a_tunnel() {
    let (ours, mut theirs) = duplex(64 * 1024);
    let serving = serve(ours, |request| async move { request.refuse(ConnectRefusal::BadRequest) });
    theirs.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(serving.end().await, TunnelEnd::Lost);
}
