//! What a stream holds, which cannot be seen from outside.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use portcullis_record::TrafficSecretLog;
use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::ClientConnection;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

fn sessions() -> (Session, Session) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let (near, far) = (Arc::new(TrafficSecretLog::default()), Arc::new(TrafficSecretLog::default()));
    let (mut client, mut server) = (peer.client(), peer.server());
    (client.key_log, server.key_log) = (near.clone(), far.clone());
    (client.enable_secret_extraction, server.enable_secret_extraction) = (true, true);
    let name = ServerName::try_from("anything.test").unwrap();
    let client = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
    let server = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
    (Session::client(client, near), Session::server(server, far))
}

async fn pair(capacity: usize) -> (Stream<DuplexStream>, Stream<DuplexStream>) {
    let (client, server) = sessions();
    let (near, far) = tokio::io::duplex(capacity);
    let (mut client, mut server) = (Stream::new(near, client), Stream::new(far, server));
    let dial = async {
        client.handshake().await?;
        client.flush().await
    };
    let (one, other) = tokio::join!(dial, server.handshake());
    one.and(other).unwrap();
    (client.established().unwrap(), server.established().unwrap())
}

fn held(stream: &Stream<DuplexStream>) -> [usize; 3] {
    let inner = &*stream.0;
    [inner.incoming.capacity(), inner.received.bytes.capacity(), inner.to_send.held()]
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer() {
    let (mut client, mut server) = pair(100_000).await;
    for _ in 0..2 {
        client.write_all(&[1; 50_000]).await.unwrap();
        server.read_exact(&mut [0; 50_000]).await.unwrap();
        server.write_all(&[2; 50_000]).await.unwrap();
        client.read_exact(&mut [0; 50_000]).await.unwrap();
        assert_eq!((held(&client), held(&server)), ([0; 3], [0; 3]));
    }
}

#[tokio::test]
async fn a_slow_peer_makes_a_stream_keep_one_write_and_no_more() {
    let (mut client, mut server) = pair(1000).await;
    let sent = vec![3; 10 * BATCH_PLAINTEXT_LEN];
    let first = client.write(&sent).await.unwrap();
    assert_eq!(first, BATCH_PLAINTEXT_LEN);
    let [incoming, received, to_send] = held(&client);
    assert!(incoming == 0 && received == 0 && (1..=2 * BATCH_PLAINTEXT_LEN).contains(&to_send), "{to_send}");
    let again = tokio::time::timeout(std::time::Duration::from_millis(20), client.write(&sent)).await;
    assert!(again.is_err(), "nothing is taken while the last write waits");
    let mut got = vec![0; BATCH_PLAINTEXT_LEN];
    let (flushed, read) = tokio::join!(client.flush(), server.read_exact(&mut got));
    flushed.unwrap();
    read.unwrap();
    assert!(got.iter().all(|byte| *byte == 3));
    assert_eq!(held(&client), [0; 3]);
}

/// A peer can send the beginning of a record and stop.
#[tokio::test]
async fn what_came_of_a_record_counts_as_held() {
    let (mut client, mut server) = pair(100_000).await;
    let part = [&[0x17, 3, 3, 0x40, 0x11][..], &[0; 10_000]].concat();
    client.get_mut().write_all(&part).await.unwrap();
    let mut got = vec![0; BATCH_PLAINTEXT_LEN];
    let read = tokio::time::timeout(std::time::Duration::from_millis(20), server.read(&mut got)).await;
    assert!(read.is_err(), "there is no whole record");
    assert!((part.len()..=2 * part.len()).contains(&server.held()), "{}", server.held());
}

/// Otherwise each stalled connection would hold the beginning of the next record.
#[tokio::test]
async fn a_reader_with_room_for_one_record_gets_one_and_leaves_the_next_in_the_connection() {
    let (mut client, mut server) = pair(100_000).await;
    for number in 0..3 {
        client.write_all(&[number; 9000]).await.unwrap();
    }
    let mut got = vec![0; 16 * 1024 + 1];
    for number in 0..3 {
        assert_eq!(server.read(&mut got).await.unwrap(), 9000);
        assert!(got[..9000].iter().all(|byte| *byte == number));
        assert_eq!(server.held(), 0);
    }
}

/// Counts the writes that reach the connection below.
struct Counted(DuplexStream, usize);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1 += 1;
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// However the client goes on, the server gets the end of the handshake; with bytes it is one write.
#[tokio::test]
async fn the_end_of_a_handshake_goes_with_the_first_bytes_or_by_itself() {
    for first in ["write", "read", "flush", "shutdown"] {
        let (client, server) = sessions();
        let (near, far) = tokio::io::duplex(100_000);
        let mut client = Stream::new(Counted(near, 0), client);
        let mut server = Stream::new(far, server);
        let serve = async {
            server.handshake().await?;
            let mut server = server.established().unwrap();
            if first == "read" {
                server.write_all(b"server first").await?;
            }
            let mut got = vec![0; 5];
            let count = server.read(&mut got).await?;
            got.truncate(count);
            // Both are kept, so that neither ends the other's connection.
            io::Result::Ok((got, server))
        };
        let dial = async {
            client.handshake().await?;
            let mut client = client.established().unwrap();
            let hello = client.get_ref().1;
            match first {
                "write" => client.write_all(b"first").await?,
                "read" => drop(client.read(&mut [0; 20]).await?),
                "flush" => client.flush().await?,
                _ => client.shutdown().await?,
            }
            let writes = client.get_ref().1 - hello;
            client.shutdown().await?;
            io::Result::Ok((writes, client))
        };
        let both = async { tokio::try_join!(dial, serve).unwrap_or_else(|error| panic!("{first}: {error}")) };
        let ((writes, _client), (got, _server)) =
            tokio::time::timeout(std::time::Duration::from_secs(10), both).await.unwrap();
        assert_eq!((writes, got.as_slice()), (1, if first == "write" { &b"first"[..] } else { b"" }), "{first}");
    }
}

/// A rustls client that has sent its ClientHello to `server` and answered the server's flight. Returns its answer unsent.
async fn client_with_finished(server: &mut DuplexStream) -> (ClientConnection, Vec<u8>) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let name = ServerName::try_from("anything.test").unwrap();
    let mut client = ClientConnection::new(Arc::new(peer.client()), name).unwrap();
    server.write_all(&flushed(&mut client)).await.unwrap();
    while client.is_handshaking() {
        let mut flight = vec![0; 20_000];
        let len = server.read(&mut flight).await.unwrap();
        client.read_tls(&mut &flight[..len]).unwrap();
        client.process_new_packets().unwrap();
    }
    let finished = flushed(&mut client);
    (client, finished)
}

fn flushed(client: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut records).unwrap();
    }
    records
}

/// More KeyUpdates than may follow each other, with data between them, in the same segment as the client's Finished.
#[tokio::test]
async fn key_updates_and_data_may_come_with_the_end_of_the_handshake() {
    let (mut io, far) = tokio::io::duplex(100_000);
    let mut server = Stream::new(far, sessions().1);
    let client = async {
        let (mut client, mut records) = client_with_finished(&mut io).await;
        let mut sent = Vec::new();
        for round in 0..100_u8 {
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(&[round; 3]).unwrap();
            records.extend(flushed(&mut client));
            sent.extend([round; 3]);
        }
        io.write_all(&records).await.unwrap();
        (client, sent)
    };
    let ((mut client, sent), result) = tokio::join!(client, server.handshake());
    result.unwrap();
    let mut server = server.established().unwrap();
    let mut received = vec![0; sent.len()];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(received, sent);
    // And the keys of both directions are the peer's.
    server.write_all(b"answer").await.unwrap();
    let mut records = vec![0; 1000];
    let len = io.read(&mut records).await.unwrap();
    client.read_tls(&mut &records[..len]).unwrap();
    client.process_new_packets().unwrap();
    let mut answer = [0; 6];
    client.reader().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

/// The limit of a RecordLayer holds for them too, and it is a fault of the stream, not of the handshake.
#[tokio::test]
async fn too_many_key_updates_with_the_end_of_the_handshake_end_the_stream() {
    let (mut io, far) = tokio::io::duplex(100_000);
    let mut server = Stream::new(far, sessions().1);
    let client = async {
        let (mut client, mut records) = client_with_finished(&mut io).await;
        client.writer().write_all(b"before").unwrap();
        records.extend(flushed(&mut client));
        for _ in 0..33 {
            client.refresh_traffic_keys().unwrap();
        }
        records.extend(flushed(&mut client));
        io.write_all(&records).await.unwrap();
    };
    let ((), result) = tokio::join!(client, server.handshake());
    result.unwrap();
    let mut server = server.established().unwrap();
    server.read_exact(&mut [0; 6]).await.unwrap();
    assert_eq!(StreamFault::of(&server.read(&mut [0; 10]).await.unwrap_err()), StreamFault::Protocol);
}

/// What is to be said about a failure waits for room as everything else does, and is said once.
#[tokio::test]
async fn an_alert_that_finds_no_room_is_sent_later() {
    for end in ["read", "shutdown"] {
        let (mut client, mut server) = pair(1000).await;
        let sent = [3; BATCH_PLAINTEXT_LEN];
        assert_eq!(server.write(&sent).await.unwrap(), BATCH_PLAINTEXT_LEN);
        // A record that was not sealed with the client's key.
        client.get_mut().write_all(&[&[23, 3, 3, 0, 20][..], &[7; 20]].concat()).await.unwrap();
        assert_eq!(StreamFault::of(&server.read(&mut [0; 10]).await.unwrap_err()), StreamFault::BadRecord);
        let mut got = Vec::new();
        let goes_on = async {
            loop {
                // It stays failed, and each try sends what there is room for.
                let again =
                    if end == "read" { server.read(&mut [0; 10]).await.map(drop) } else { server.shutdown().await };
                assert!(again.is_err() || end == "shutdown", "{end}");
                tokio::task::yield_now().await;
            }
        };
        let error = tokio::select! {
            error = client.read_to_end(&mut got) => error.unwrap_err(),
            () = goes_on => unreachable!(),
        };
        assert_eq!(StreamFault::of(&error).alert(), Some("bad_record_mac"), "{end}");
        assert!(got == sent, "{end}");
    }
}
