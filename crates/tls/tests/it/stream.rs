//! An established stream: a clean end is distinguished from truncation, and one direction may end before the other.

use crate::common::{DOMAIN, ME, WEB, credentials, expect, pipe};
use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::Authority;
use portcullis_tls::{MinVersion, Stream, StreamFault, client, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

async fn pair() -> (Stream<DuplexStream>, Stream<DuplexStream>) {
    let ca = Authority::root(DOMAIN);
    let (near, far) = pipe();
    let (me, web, expected) = (credentials(&ca, ME), credentials(&ca, WEB), expect(WEB));
    let (client, server) = tokio::join!(client::connect(near, &me, &expected, None), server::accept(far, &web));
    (client.unwrap().0, server.unwrap().0)
}

#[tokio::test]
async fn truncation_is_not_clean_eof() {
    for cut_server in [true, false] {
        let (client, server) = pair().await;
        let (mut cut, mut reader) = if cut_server { (server, client) } else { (client, server) };
        cut.write_all(b"the last that came").await.unwrap();
        cut.flush().await.unwrap();
        // Gone without close_notify.
        drop(cut);
        let mut seen = Vec::new();
        let error = reader.read_to_end(&mut seen).await.unwrap_err();
        assert_eq!(seen, b"the last that came", "what came is delivered first");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(StreamFault::of(&error), StreamFault::Truncated);
    }
}

#[tokio::test]
async fn a_clean_end_is_zero_bytes_and_the_other_direction_goes_on() {
    for client_ends in [true, false] {
        let (client, server) = pair().await;
        let (mut ended, mut open) = if client_ends { (client, server) } else { (server, client) };
        ended.write_all(b"question").await.unwrap();
        ended.shutdown().await.unwrap();
        let mut seen = Vec::new();
        open.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"question");
        open.write_all(b"a late answer").await.unwrap();
        open.shutdown().await.unwrap();
        let mut seen = Vec::new();
        ended.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"a late answer");
    }
}

#[tokio::test]
async fn a_large_transfer_arrives_whole_in_both_directions_at_once() {
    let (client, server) = pair().await;
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut server_reads, mut server_writes) = tokio::io::split(server);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let write = async |half: &mut tokio::io::WriteHalf<Stream<DuplexStream>>| {
        half.write_all(&sent).await.unwrap();
        half.shutdown().await.unwrap();
    };
    tokio::join!(
        write(&mut client_writes),
        write(&mut server_writes),
        async { server_reads.read_to_end(&mut up).await.unwrap() },
        async { client_reads.read_to_end(&mut down).await.unwrap() },
    );
    assert!(up == sent && down == sent);
}

#[tokio::test]
async fn a_record_that_does_not_authenticate_is_a_bad_record() {
    let ca = Authority::root(DOMAIN);
    let (me, web, expected) = (credentials(&ca, ME), credentials(&ca, WEB), expect(WEB));
    let (near, far) = pipe();
    let (client, server) = tokio::join!(client::connect(near, &me, &expected, None), server::accept(far, &web));
    let (mut client, mut server) = (client.unwrap().0, server.unwrap().0);
    // A record of application data that was not encrypted with the session's keys.
    client
        .get_mut()
        .write_all(&[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let error = server.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!((StreamFault::of(&error), server.fault()), (StreamFault::BadRecord, Some(StreamFault::BadRecord)));
    // The sender gets the alert, and reports it as the peer's.
    let error = client.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(StreamFault::of(&error).alert(), Some("bad_record_mac"));
}

#[tokio::test]
async fn an_idle_stream_is_small() {
    let (client, _server) = pair().await;
    let size = size_of_val(&client);
    assert!(size <= 2048, "{size}");
}

/// Everything in pieces of one byte: no record arrives whole, and hardly a write is taken whole.
#[tokio::test]
async fn a_connection_that_carries_single_bytes_carries_everything() {
    let ca = Authority::root(DOMAIN);
    let (near, far) = tokio::io::duplex(1);
    let (me, web, expected) = (credentials(&ca, ME), credentials(&ca, WEB), expect(WEB));
    let (client, server) = tokio::join!(client::connect(near, &me, &expected, None), server::accept(far, &web));
    let (mut client, mut server) = (client.unwrap().0, server.unwrap().0);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let talk = async {
        client.write_all(&[7; 40_000]).await.unwrap();
        client.shutdown().await.unwrap();
        client.read_to_end(&mut down).await.unwrap();
    };
    let answer = async {
        server.read_to_end(&mut up).await.unwrap();
        server.write_all(&up).await.unwrap();
        server.shutdown().await.unwrap();
    };
    tokio::join!(talk, answer);
    assert!(up == [7; 40_000] && down == up);
}

/// A peer that changes its keys, and asks for ours to be changed, is followed in both directions.
#[tokio::test]
async fn a_key_update_is_followed_and_answered() {
    let ca = Authority::root(DOMAIN);
    let me = credentials(&ca, ME);
    let (near, far) = pipe();
    let connector =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(RawPeer::presenting(&ca.workload(WEB)).client()));
    let name = rustls_pki_types::ServerName::try_from("anything.test").unwrap();
    let (server, client) = tokio::join!(server::accept(near, &me), connector.connect(name, far));
    let (mut server, mut client) = (server.unwrap().0, client.unwrap());
    for round in 0..3_u8 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round]).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), round);
        server.write_all(&[round + 100]).await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), round + 100);
    }
}

#[tokio::test]
async fn small_reads_get_every_byte_and_nothing_is_written_after_the_end() {
    let (mut client, mut server) = pair().await;
    let sent: Vec<u8> = (0..100_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let write = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut seen = Vec::new();
    let read = async {
        let mut piece = [0; 7];
        loop {
            match server.read(&mut piece).await.unwrap() {
                0 => break,
                count => seen.extend_from_slice(&piece[..count]),
            }
        }
    };
    tokio::join!(write, read);
    assert!(seen == sent);
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

/// A connection that hands on so many bytes, and the rest after a while.
struct CutAt(DuplexStream, usize);

impl tokio::io::AsyncRead for CutAt {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let most = if self.1 == 0 { buf.remaining() } else { self.1.min(buf.remaining()) };
        let mut part = buf.take(most);
        std::task::ready!(std::pin::Pin::new(&mut self.0).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        self.1 = self.1.saturating_sub(count);
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for CutAt {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Messages of the handshake in many small records, cut anywhere, in both roles and versions; bytes behind them are not lost.
#[tokio::test]
async fn small_records_that_are_cut_anywhere_make_a_handshake() {
    let ca = Authority::root(DOMAIN);
    let me = credentials(&ca, ME);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let rules = if version == &rustls::version::TLS12 {
            crate::common::credentials_with(&ca, ME, |rules| rules.min_version = MinVersion::Tls12)
        } else {
            me.clone()
        };
        let peer = RawPeer::presenting(&ca.workload(WEB)).with_versions(&[version]);
        for cut in (1..400).step_by(13) {
            let (near, far) = tokio::io::duplex(100_000);
            let mut config = peer.client();
            config.max_fragment_size = Some(64);
            let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
            let name = rustls_pki_types::ServerName::try_from("anything.test").unwrap();
            let dial = async {
                let mut client = connector.connect(name, far).await.unwrap();
                client.write_all(b"from the client").await.unwrap();
                client
            };
            let (server, mut client) = tokio::join!(server::accept(CutAt(near, cut), &rules), dial);
            talk(server.unwrap().0, &mut client, b"from the client").await;

            let (near, far) = tokio::io::duplex(100_000);
            let mut config = peer.server();
            config.max_fragment_size = Some(64);
            let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
            let serve = async {
                let mut server = acceptor.accept(far).await.unwrap();
                server.write_all(b"from the server").await.unwrap();
                server
            };
            let expected = expect(WEB);
            let dial = client::connect(CutAt(near, cut), &rules, &expected, None);
            let (mut server, client) = tokio::join!(serve, dial);
            talk(client.unwrap().0, &mut server, b"from the server").await;
        }
    }
}

/// Ours has the peer's first words, and then both speak.
async fn talk<Peer: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut ours: Stream<CutAt>,
    peer: &mut Peer,
    first: &[u8],
) {
    let mut got = vec![0; first.len()];
    ours.read_exact(&mut got).await.unwrap();
    assert_eq!(got, first);
    ours.write_all(&[5; 40_000]).await.unwrap();
    let mut got = vec![0; 40_000];
    peer.read_exact(&mut got).await.unwrap();
    peer.write_all(&got).await.unwrap();
    peer.flush().await.unwrap();
    let mut back = vec![0; 40_000];
    ours.read_exact(&mut back).await.unwrap();
    assert!(back == [5; 40_000]);
}
