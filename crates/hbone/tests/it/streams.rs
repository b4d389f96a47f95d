//! Streams against an independent client: the `h2` crate, without anything of ours.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request as HttpRequest};
use portcullis_hbone::limits::STREAM_WINDOW;
use portcullis_hbone::{BadRequest, ConnectRefusal, Request, TunnelEnd, TunnelStream};
use portcullis_net::Duplex as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frames::{connect, preface};
use crate::serving::{PATIENCE, Serving, serve};

const DESTINATION: &str = "10.0.0.7:80";

/// A client and a server on one connection; streams that were accepted come out of the channel.
async fn accepting() -> (SendRequest<Bytes>, mpsc::UnboundedReceiver<TunnelStream>, Serving) {
    let (streams, accepted) = mpsc::unbounded_channel();
    let (client, serving) = serving_with(move |request| {
        let streams = streams.clone();
        async move { streams.send(request.accept().unwrap()).unwrap() }
    })
    .await;
    (client, accepted, serving)
}

async fn serving_with<F>(handle: impl Fn(Request) -> F + Send + 'static) -> (SendRequest<Bytes>, Serving)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ours, theirs) = duplex(64 * 1024);
    let serving = serve(ours, handle);
    (client(theirs).await, serving)
}

async fn client(io: DuplexStream) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    client
}

fn request(method: Method, uri: &str) -> HttpRequest<()> {
    HttpRequest::builder().method(method).uri(uri).body(()).unwrap()
}

async fn open(client: &SendRequest<Bytes>, request: HttpRequest<()>) -> (ResponseFuture, SendStream<Bytes>) {
    client.clone().ready().await.unwrap().send_request(request, false).unwrap()
}

/// Opens a stream that is accepted.
async fn connected(client: &SendRequest<Bytes>) -> (RecvStream, SendStream<Bytes>) {
    let (response, send) = open(client, request(Method::CONNECT, DESTINATION)).await;
    let response = timeout(PATIENCE, response).await.expect("an answer").unwrap();
    assert_eq!(response.status(), 200);
    (response.into_body(), send)
}

/// Everything up to the end of the direction.
async fn read_all(mut recv: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(bytes) = timeout(PATIENCE, recv.data()).await.expect("bytes or an end") {
        let bytes = bytes?;
        recv.flow_control().release_capacity(bytes.len()).unwrap();
        all.extend(bytes);
    }
    Ok(all)
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_direction_ends_by_itself() {
    let (client, mut accepted, _serving) = accepting().await;
    let (recv, mut send) = connected(&client).await;
    let mut stream = accepted.recv().await.unwrap();
    let (up, down) = (pattern(3_000_000), pattern(5_000_000));
    let answer = down.clone();
    let server = tokio::spawn(async move {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        // The client's direction has ended, ours has not.
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.unwrap();
        received
    });
    send.send_data(Bytes::from(up.clone()), true).unwrap();
    assert!(read_all(recv).await.unwrap() == down);
    assert!(server.await.unwrap() == up);
}

#[tokio::test]
async fn a_refusal_has_its_status_and_no_stream() {
    for (refusal, status) in
        [(ConnectRefusal::BadRequest, 400), (ConnectRefusal::Denied, 401), (ConnectRefusal::Unavailable, 503)]
    {
        let (client, _serving) = serving_with(move |request| async move { request.refuse(refusal) }).await;
        let (response, _send) = open(&client, request(Method::CONNECT, DESTINATION)).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), status);
        assert!(read_all(response.into_body()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn only_a_connect_to_an_address_is_served() {
    let (seen, mut targets) = mpsc::unbounded_channel();
    let (client, _serving) = serving_with(move |request| {
        let seen = seen.clone();
        async move {
            seen.send(request.target).unwrap();
            request.refuse(ConnectRefusal::BadRequest);
        }
    })
    .await;
    let mut other_network = request(Method::CONNECT, DESTINATION);
    other_network.headers_mut().insert("x-istio-origin-network", "other".parse().unwrap());
    let mut websocket = request(Method::CONNECT, "http://10.0.0.7:80/");
    websocket.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
    for (request, expected) in [
        (request(Method::CONNECT, "[fd00::1]:80"), Ok("[fd00::1]:80".parse().unwrap())),
        (request(Method::GET, "http://10.0.0.7:80/"), Err(BadRequest::NotConnect)),
        (other_network, Err(BadRequest::OtherNetwork)),
    ] {
        let (response, _send) = open(&client, request).await;
        assert_eq!(targets.recv().await.unwrap(), expected);
        assert_eq!(response.await.unwrap().status(), 400);
    }
    let (_response, _send) = open(&client, request(Method::CONNECT, "cart.shop:80")).await;
    assert!(matches!(targets.recv().await.unwrap(), Err(BadRequest::Authority(_))));
}

#[tokio::test]
async fn a_reset_is_a_reset_whatever_its_code_and_comes_after_what_was_sent() {
    for code in [Reason::CONNECT_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let (client, mut accepted, _serving) = accepting().await;
        let (_recv, mut send) = connected(&client).await;
        let mut stream = accepted.recv().await.unwrap();
        send.send_data(Bytes::from_static(b"part"), false).unwrap();
        let mut part = [0; 4];
        stream.read_exact(&mut part).await.unwrap();
        send.send_reset(code);
        let error = timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{code:?}");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_or_told_to_reset_is_reset_with_connect_error() {
    for (told, ended) in [(false, false), (true, false), (true, true), (false, true)] {
        let (client, mut accepted, _serving) = accepting().await;
        let (recv, mut send) = connected(&client).await;
        let mut stream = accepted.recv().await.unwrap();
        stream.write_all(b"part").await.unwrap();
        if ended {
            send.send_data(Bytes::new(), true).unwrap();
            assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 0);
        }
        if told {
            stream.reset_on_close().unwrap();
        }
        drop(stream);
        let error = read_all(recv).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR), "told {told}, ended {ended}");
    }
}

#[tokio::test]
async fn a_lost_tunnel_is_a_reset_of_its_streams() {
    let (ours, theirs) = duplex(64 * 1024);
    let (streams, mut accepted) = mpsc::unbounded_channel();
    let serving = serve(ours, move |request| {
        let streams = streams.clone();
        async move { streams.send(request.accept().unwrap()).unwrap() }
    });
    let (mut client, connection) = h2::client::handshake(theirs).await.unwrap();
    let connection = tokio::spawn(connection);
    client = client.ready().await.unwrap();
    let (response, mut send) = client.send_request(request(Method::CONNECT, DESTINATION), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    let mut stream: TunnelStream = accepted.recv().await.unwrap();
    send.send_data(Bytes::from_static(b"part"), false).unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    connection.abort();
    let error = timeout(PATIENCE, stream.read(&mut [0; 4])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    drop(stream);
    serving.end().await;
}

/// Twenty streams of which one is not read: it may send no more than its window, and the others are not held up.
#[tokio::test]
async fn a_stream_that_is_not_read_holds_its_window_and_nobody_else() {
    let (client, mut accepted, _serving) = accepting().await;
    let (_recv, mut stuck) = connected(&client).await;
    let unread = accepted.recv().await.unwrap();
    let endless = pattern(4 * STREAM_WINDOW);
    stuck.send_data(Bytes::from(endless), true).unwrap();
    for _ in 0..20 {
        let (recv, mut send) = connected(&client).await;
        let mut stream = accepted.recv().await.unwrap();
        let echo = tokio::spawn(async move {
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            stream.write_all(&received).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let payload = pattern(1_000_000);
        send.send_data(Bytes::from(payload.clone()), true).unwrap();
        assert!(read_all(recv).await.unwrap() == payload);
        echo.await.unwrap();
    }
    // All the time since then nothing more than the window has been taken, which is what `capacity` says of the sender.
    stuck.reserve_capacity(1);
    assert_eq!(stuck.capacity(), 0);
    drop(unread);
}

/// The peer gives no window: nothing is taken from the writer, so nothing is kept for it.
#[tokio::test]
async fn a_write_waits_for_the_window_of_the_peer() {
    let (ours, theirs) = duplex(64 * 1024);
    let (streams, mut accepted) = mpsc::unbounded_channel();
    let _serving = serve(ours, move |request| {
        let streams = streams.clone();
        async move { streams.send(request.accept().unwrap()).unwrap() }
    });
    let (client, connection) = h2::client::Builder::new().initial_window_size(0).handshake(theirs).await.unwrap();
    tokio::spawn(connection);
    let (recv, send) = connected(&client).await;
    let mut stream: TunnelStream = accepted.recv().await.unwrap();
    assert!(timeout(Duration::from_millis(100), stream.write(b"x")).await.is_err(), "there is no window");
    let writer = tokio::spawn(async move { stream.write_all(b"answer").await.map(|()| stream) });
    drop((recv, send));
    let written = timeout(PATIENCE, writer).await.unwrap().unwrap();
    assert!(written.is_err(), "a peer that gives up its stream wakes the writer");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_a_ping_is_given_up() {
    let (ours, mut theirs) = duplex(64 * 1024);
    let serving = serve(ours, |request| async move { drop(request.accept()) });
    theirs.write_all(&[preface(), connect(1)].concat()).await.unwrap();
    let began = tokio::time::Instant::now();
    // It reads, and says nothing.
    let silent = tokio::spawn(async move { tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await });
    assert_eq!(serving.ended.await.unwrap(), TunnelEnd::Unresponsive);
    assert!((29..32).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    silent.await.unwrap().unwrap();
}

/// The client answers its PINGs, and the tunnel has no streams.
#[tokio::test(start_paused = true)]
async fn a_tunnel_without_streams_ends_by_goaway() {
    let (_client, serving) = serving_with(|request| async move { drop(request.accept()) }).await;
    let began = tokio::time::Instant::now();
    assert_eq!(serving.ended.await.unwrap(), TunnelEnd::Closed);
    let after = began.elapsed();
    assert!(after >= portcullis_hbone::limits::IDLE && after < 2 * portcullis_hbone::limits::IDLE, "{after:?}");
}
