//! An established stream: a clean end is told from a cut one, and one direction may end before the other.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{DOMAIN, ME, WEB, credentials, expect, pipe};
use portcullis_testkit::certs::Authority;
use portcullis_tls::{Stream, StreamFault, client, server};
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
async fn a_changed_byte_is_a_protocol_fault() {
    let ca = Authority::root(DOMAIN);
    let (me, web, expected) = (credentials(&ca, ME), credentials(&ca, WEB), expect(WEB));
    let (near, far) = pipe();
    let (client, server) = tokio::join!(client::connect(near, &me, &expected, None), server::accept(far, &web));
    let (mut client, mut server) = (client.unwrap().0, server.unwrap().0);
    // A record of application data that nobody with the keys has written.
    client
        .get_mut()
        .write_all(&[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let error = server.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(StreamFault::of(&error).label(), "protocol");
    // And the one who is told so knows that it was the other's word.
    let error = client.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(StreamFault::of(&error).alert(), Some("bad_record_mac"));
}

#[tokio::test]
async fn an_idle_stream_is_small() {
    let (client, _server) = pair().await;
    let size = size_of_val(&client);
    assert!(size <= 2048, "{size}");
}
