//! What a stream holds, which cannot be seen from outside.

use std::sync::Arc;

use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

async fn pair(capacity: usize) -> (Stream<DuplexStream>, Stream<DuplexStream>) {
    let peer = RawPeer::presenting(&Authority::root("example.org").workload("spiffe://example.org/w"));
    let name = ServerName::try_from("anything.test").unwrap();
    let client = UnbufferedClientConnection::new(Arc::new(peer.client()), name).unwrap();
    let server = UnbufferedServerConnection::new(Arc::new(peer.server())).unwrap();
    let (near, far) = tokio::io::duplex(capacity);
    let mut client = Stream::new(near, Session::Client(client));
    let mut server = Stream::new(far, Session::Server(server));
    let (one, other) = tokio::join!(client.handshake(), server.handshake());
    one.and(other).unwrap();
    (client, server)
}

fn held(stream: &Stream<DuplexStream>) -> [usize; 3] {
    let inner = &*stream.0;
    [inner.incoming.capacity(), inner.received.bytes.capacity(), inner.to_send.bytes.capacity()]
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
    let sent = [3; 10 * MAX_WRITE];
    let first = client.write(&sent).await.unwrap();
    assert_eq!(first, MAX_WRITE);
    let [incoming, received, to_send] = held(&client);
    assert!(incoming == 0 && received == 0 && (1..=2 * MAX_WRITE).contains(&to_send), "{to_send}");
    let again = tokio::time::timeout(std::time::Duration::from_millis(20), client.write(&sent)).await;
    assert!(again.is_err(), "nothing is taken while the last write waits");
    let mut got = vec![0; MAX_WRITE];
    let (flushed, read) = tokio::join!(client.flush(), server.read_exact(&mut got));
    flushed.unwrap();
    read.unwrap();
    assert!(got.iter().all(|byte| *byte == 3));
    assert_eq!(held(&client), [0; 3]);
}
