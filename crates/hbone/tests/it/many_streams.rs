//! Streams that have trouble, and the others of their tunnel.

use std::future::pending;
use std::net::SocketAddr;

use portcullis_hbone::limits::{CLIENT_STREAMS, STREAM_WINDOW, STREAMS};
use portcullis_hbone::{Connect, Request, TunnelHandle, TunnelStream};
use portcullis_net::Duplex as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, duplex, split};
use tokio::time::timeout;

use crate::frames::{DATA, GOAWAY, HEADERS, RST_STREAM, connect, connect_to, contains, frame, preface};
use crate::serving::{PATIENCE, serve};

/// Where a request goes.
fn port(request: &Request) -> u16 {
    request.target.unwrap().port()
}

/// A tunnel of this crate on both ends.
async fn tunnel<F>(handle: impl Fn(Request) -> F + Send + 'static) -> TunnelHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = duplex(64 * 1024);
    drop(serve(theirs, handle));
    let (client, mut connection) = portcullis_hbone::connect(ours).await.unwrap();
    tokio::spawn(async move { connection.end().await });
    client
}

async fn open(client: &TunnelHandle, port: u16) -> TunnelStream {
    let destination = SocketAddr::from(([10, 0, 0, 7], port));
    let request = Connect { destination, baggage: None, client: destination };
    let permit = client.try_reserve().expect("a place");
    timeout(PATIENCE, permit.open(&request)).await.expect("an answer").unwrap()
}

/// Reads nothing, writes without end, or sends back what it gets.
async fn app(request: Request) {
    let port = port(&request);
    let mut stream = request.accept().unwrap();
    match port {
        1 => pending().await,
        2 => while stream.write_all(&[7; 16_384]).await.is_ok() {},
        _ => {
            let (mut reading, mut writing) = split(stream);
            let _gone = copy(&mut reading, &mut writing).await;
        }
    }
}

async fn echoes(client: &TunnelHandle) {
    let (mut reading, mut writing) = split(open(client, 3).await);
    let payload: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut received, sent) = (vec![0; payload.len()], payload.clone());
    tokio::spawn(async move { writing.write_all(&sent).await });
    timeout(PATIENCE, reading.read_exact(&mut received)).await.expect("it is not held up").unwrap();
    assert!(received == payload);
}

/// As many as a tunnel has, but one. Each holds its window, at the server or at the client.
#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other() {
    let client = tunnel(app).await;
    let mut stuck = Vec::new();
    for number in 1..CLIENT_STREAMS {
        let mut stream = open(&client, 1 + u16::from(number % 2 == 0)).await;
        if number % 2 == 0 {
            // What the server has sent is kept here.
            let full = async {
                while stream.held() < STREAM_WINDOW as usize {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, full).await.expect("the server sends a window");
        } else {
            let window = vec![7; STREAM_WINDOW as usize];
            timeout(PATIENCE, stream.write_all(&window)).await.expect("its own window").unwrap();
        }
        stuck.push(stream);
    }
    echoes(&client).await;
    assert_eq!(stuck.iter().map(TunnelStream::held).max(), Some(STREAM_WINDOW as usize));
}

/// The server resets all streams of a tunnel, while bytes for each of them are on their way: as when a policy denies them, or their app
/// dies.
#[tokio::test]
async fn what_was_sent_before_a_reset_was_seen_is_no_flood() {
    let (ours, theirs) = duplex(1024 * 1024);
    let _serving = serve(ours, |request| async move {
        let again = port(&request) == 81;
        let stream = request.accept().unwrap();
        if again {
            pending::<()>().await;
        }
        drop(stream);
    });
    let (mut reading, mut writing) = split(theirs);
    writing.write_all(&preface()).await.unwrap();
    let (mut answers, mut buffer) = (Vec::new(), vec![0; 65_536]);
    let number = |n: u32| 2 * n + 1;
    for n in 0..STREAMS {
        writing.write_all(&connect(number(n))).await.unwrap();
    }
    let mut read_until = async |kind: u8, stream: u32| {
        let read = async {
            while !contains(&answers, kind, stream) {
                let count = reading.read(&mut buffer).await.unwrap();
                assert!(count > 0 && !contains(&answers, GOAWAY, 0), "the tunnel has ended");
                answers.extend(&buffer[..count]);
            }
        };
        timeout(PATIENCE, read).await.expect("a frame");
    };
    for n in 0..STREAMS {
        read_until(RST_STREAM, number(n)).await;
    }
    // All of them were reset before any of this is read.
    for _ in 0..10 {
        for n in 0..STREAMS {
            writing.write_all(&frame(DATA, 0, number(n), &[7; 100])).await.unwrap();
        }
    }
    writing.write_all(&connect_to(number(STREAMS), "10.0.0.7:81")).await.unwrap();
    read_until(HEADERS, number(STREAMS)).await;
}
