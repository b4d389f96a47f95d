//! The memory that unauthenticated callers can use.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;

use crate::support::{CART, Stage, csr, der, registered};

/// What HTTP/2 calls a connection's preface, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// RFC 9113 6.5.2.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The settings that a CA begins each connection with.
async fn settings(stage: &Stage) -> Vec<(u16, u32)> {
    let mut roots = RootCertStore::empty();
    der(&stage.root.bundle_pem()).into_iter().for_each(|root| roots.add(root).unwrap());
    let mut config = rustls::ClientConfig::builder_with_provider(portcullis_tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(stage.address).await.unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect("ca.test".try_into().unwrap(), stream).await.unwrap();
    tls.write_all(PREFACE).await.unwrap();
    let mut head = [0; 9];
    tls.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS come first");
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    tls.read_exact(&mut body).await.unwrap();
    let setting =
        |six: &[u8]| (u16::from_be_bytes([six[0], six[1]]), u32::from_be_bytes([six[2], six[3], six[4], six[5]]));
    body.chunks_exact(6).map(setting).collect()
}

/// A message is kept until its end has come, for ten seconds at most; each request that is under way can have one.
#[tokio::test]
async fn an_unauthenticated_connection_uses_little_memory() {
    let stage = Stage::start(&registered(&[CART])).await;
    let settings = settings(&stage).await;
    let said = |which: u16| settings.iter().find(|(name, _)| *name == which).map(|(_, value)| *value).unwrap();
    let (streams, window) = (said(MAX_CONCURRENT_STREAMS), said(INITIAL_WINDOW_SIZE));
    assert!(streams * window <= 256 * 1024, "{streams} requests of {window} bytes in one connection");
    // A message is not longer than a window, and the longest request is refused for what it is.
    let client = stage.connect().await;
    let refused = client.create(&"x".repeat(20_000), Some(&stage.token(CART))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(stage.audit().contains(r#""reason":"csr-too-long""#), "{}", stage.audit());
    let refused = client.create(&"x".repeat(30_000), Some(&stage.token(CART))).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    client.create(&csr(&KeyPair::generate().unwrap()), Some(&stage.token(CART))).await.unwrap();
}
