//! The first bytes of a connection from outside: a load balancer's PROXY header, and whether TLS follows. They are read and given
//! back, as in detection; a connection that has sent nothing holds no buffer.

use std::io;

use portcullis_net::Replay;
use portcullis_telemetry::Ending;
use portcullis_wire::proxy_header::{Origin, ProxyHeaderError, decode};
use portcullis_wire::{HANDSHAKE_RECORD, HelloParser, Progress};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::outcome::{self, Reason};

/// How much is read at a time: a header of usual length and a ClientHello.
const READ_SIZE: usize = 2048;
/// The most bytes that are read in search of the end of a ClientHello, as in detection. TLS refuses what is longer.
const MAX_SEEN: usize = 66 * 1024;

pub(super) struct FirstBytes {
    stream: TcpStream,
    seen: Vec<u8>,
    deadline: Instant,
}

/// Why no more bytes came.
enum End {
    /// The client ended its direction.
    Fin,
    Deadline,
}

/// What came of a ClientHello.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hello {
    /// All of it.
    Whole,
    /// It was cut short by a FIN or the deadline, or is none. TLS knows the alert and the reason.
    Unusable,
}

impl FirstBytes {
    pub(super) const fn new(stream: TcpStream, deadline: Instant) -> Self {
        Self { stream, seen: Vec::new(), deadline }
    }

    /// The stream, with what was read and not used.
    pub(super) fn into_stream(self) -> Replay<TcpStream> {
        Replay::new(self.seen, self.stream)
    }

    /// Takes the header, which has to be there.
    pub(super) async fn proxy_header(&mut self) -> Result<Origin, Ending> {
        loop {
            match decode(&self.seen) {
                Ok(Some(header)) => {
                    self.seen.drain(..header.len.min(self.seen.len()));
                    return Ok(header.origin);
                }
                Ok(None) => {}
                Err(error) => return Err(Ending::new(Reason::BadProxyHeader, Some(error.to_string()))),
            }
            let nothing = self.seen.is_empty();
            let why = match self.more().await? {
                None => continue,
                // A health check that only connects.
                Some(End::Fin) if nothing => return Err(Ending::new(Reason::ClientGone, None)),
                Some(End::Fin) => "the connection ended before the header did",
                Some(End::Deadline) if nothing => "nothing was sent within timeouts.handshake",
                Some(End::Deadline) => "the header was not complete within timeouts.handshake",
            };
            return Err(Ending::new(Reason::BadProxyHeader, Some(why.to_owned())));
        }
    }

    /// Waits for the first byte, which has to be that of TLS, and then for the rest of the ClientHello. `has_header` says whether a
    /// PROXY header was taken.
    pub(super) async fn tls(&mut self, has_header: bool) -> Result<Hello, Ending> {
        while self.seen.is_empty() {
            match self.more().await? {
                None => {}
                // Load balancers and health checks connect and close; that is not a silent client.
                Some(End::Fin) => return Err(Ending::new(Reason::ClientGone, None)),
                Some(End::Deadline) => return Err(outcome::silent_at_gateway()),
            }
        }
        if self.seen.first() == Some(&HANDSHAKE_RECORD) {
            return self.hello().await;
        }
        let looks_like_header = !has_header && !matches!(decode(&self.seen), Err(ProxyHeaderError::NoHeader));
        Err(outcome::plaintext_at_gateway(looks_like_header))
    }

    /// Reads until the ClientHello is whole, or it is certain that it will not be.
    async fn hello(&mut self) -> Result<Hello, Ending> {
        let mut parser = HelloParser::new();
        let mut parsed = 0;
        loop {
            let progress = parser.push(self.seen.get(parsed..).unwrap_or_default());
            parsed = self.seen.len();
            match progress {
                Progress::Hello(_) => return Ok(Hello::Whole),
                Progress::NotTls | Progress::Malformed => return Ok(Hello::Unusable),
                Progress::NeedMore if parsed >= MAX_SEEN => return Ok(Hello::Unusable),
                Progress::NeedMore => {}
            }
            if self.more().await?.is_some() {
                return Ok(Hello::Unusable);
            }
        }
    }

    /// Reads once.
    async fn more(&mut self) -> Result<Option<End>, Ending> {
        match timeout_at(self.deadline, self.receive()).await {
            Ok(Ok(0)) => Ok(Some(End::Fin)),
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => Err(outcome::client_gone(&error)),
            Err(_elapsed) => Ok(Some(End::Deadline)),
        }
    }

    async fn receive(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            self.seen.reserve(READ_SIZE);
            match self.stream.try_read_buf(&mut self.seen) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, FirstBytes) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(200);
        (client, FirstBytes::new(listener.accept().await.unwrap().0, deadline))
    }

    #[tokio::test]
    async fn a_header_is_taken_and_what_follows_is_given_back() {
        for piece in [1, 7, 1000] {
            let (mut client, mut first) = pair().await;
            let sending = async {
                for bytes in b"PROXY TCP4 192.0.2.1 198.51.100.2 1 443\r\n\x16\x03\x01rest".chunks(piece) {
                    client.write_all(bytes).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let (origin, ()) = tokio::join!(first.proxy_header(), sending);
            let Ok(Origin::Client { source, .. }) = origin else { panic!("{piece}") };
            assert_eq!(source, "192.0.2.1:1".parse().unwrap());
            assert!(first.tls(true).await.is_ok());
            let mut rest = Vec::new();
            first.into_stream().read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"\x16\x03\x01rest");
        }
    }

    /// One of OpenSSL's.
    const HELLO: &[u8] = include_bytes!("../../../wire/tests/data/openssl-hello.bin");

    #[tokio::test]
    async fn only_a_whole_hello_is_one() {
        let (start, end) = HELLO.split_at(HELLO.len() - 1);
        for (bytes, fin, hello) in [
            (HELLO, false, Hello::Whole),
            (start, false, Hello::Unusable),
            (start, true, Hello::Unusable),
            (b"\x16", false, Hello::Unusable),
            (b"\x16GET /", false, Hello::Unusable),
        ] {
            let (mut client, mut first) = pair().await;
            client.write_all(bytes).await.unwrap();
            if fin {
                client.shutdown().await.unwrap();
            }
            assert_eq!(first.tls(false).await.ok(), Some(hello), "{} {fin}", bytes.len());
            assert_eq!(first.seen, bytes);
        }
        // It may come in pieces.
        let (mut client, mut first) = pair().await;
        let (hello, ()) = tokio::join!(first.tls(false), async {
            client.write_all(start).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.write_all(end).await.unwrap();
        });
        assert_eq!(hello.ok(), Some(Hello::Whole));
        assert_eq!(first.seen, HELLO);
    }

    #[tokio::test]
    async fn what_ends_early_is_told_apart() {
        for (bytes, fin, reason) in [
            (&b""[..], true, Reason::ClientGone),
            (b"", false, Reason::BadProxyHeader),
            (b"PROXY TCP4", true, Reason::BadProxyHeader),
            (b"PROXY TCP4", false, Reason::BadProxyHeader),
            (b"\x16\x03\x01", false, Reason::BadProxyHeader),
            (b"GET / HTTP/1.1\r\n", true, Reason::BadProxyHeader),
        ] {
            let (mut client, mut first) = pair().await;
            client.write_all(bytes).await.unwrap();
            if fin {
                client.shutdown().await.unwrap();
            }
            let Err(ending) = first.proxy_header().await else { panic!("{bytes:?}") };
            assert_eq!(ending.reason, reason.label(), "{bytes:?} {fin}");
        }
        for (bytes, has_header, fin, reason, hint) in [
            (&b""[..], false, true, Reason::ClientGone, ""),
            (b"", false, false, Reason::SilentClient, "outside"),
            (b"GET /", false, false, Reason::PlaintextAtGateway, "plaintext"),
            (b"PROXY TCP4", false, false, Reason::PlaintextAtGateway, "proxyProtocol.from"),
            (b"\r\n\r\n\0", false, false, Reason::PlaintextAtGateway, "proxyProtocol.from"),
            // A header behind the header is only plaintext.
            (b"PROXY TCP4", true, false, Reason::PlaintextAtGateway, "plaintext"),
        ] {
            let (mut client, mut first) = pair().await;
            client.write_all(bytes).await.unwrap();
            if fin {
                client.shutdown().await.unwrap();
            }
            let Err(ending) = first.tls(has_header).await else { panic!("{bytes:?}") };
            assert_eq!(ending.reason, reason.label(), "{bytes:?}");
            assert!(ending.hint.contains(hint), "{}", ending.hint);
        }
    }
}
