//! One plain HTTP/1.1 GET or POST with a deadline, over TCP or a Unix socket: hyper's client, with a connection for each request.
//!
//! It refuses https, redirects and large answers. An image without a shell has no other HTTP client.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::AdminAddress;

/// The largest answer that is read: 10,000 observations are far below this.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The address to dial, and the path to request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url {
    address: AdminAddress,
    path: String,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; bytes that are not UTF-8 are replaced.
    pub body: String,
}

impl Url {
    /// Parses `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("http://") {
            return Err(format!("\"{text}\" does not begin with http://"));
        }
        // A URI may have these; nothing here has a use for them, and they would be dropped silently.
        if text.contains(['@', '#']) {
            return Err(format!("{text:?} has a user or a fragment, which is not supported"));
        }
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let port = match authority.strip_prefix(host) {
            Some("") => Some(80),
            Some(port) => port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0),
            None => None,
        };
        let Some(port) = port.filter(|_| !host.is_empty()) else {
            return Err(format!("\"{text}\" has no host, or an invalid port"));
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { address: AdminAddress::Tcp(format!("{host}:{port}")), path: format!("{slash}{path}") })
    }

    /// A path at an address.
    #[must_use]
    pub fn at(address: SocketAddr, path: &str) -> Self {
        Self::of(address.into(), path)
    }

    /// A path of an admin server.
    #[must_use]
    pub fn of(address: AdminAddress, path: &str) -> Self {
        Self { address, path: path.to_owned() }
    }

    /// Another path of the same server.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        Self::of(self.address.clone(), path)
    }

    /// Sends a GET, and waits at most `within` for the whole answer.
    ///
    /// # Errors
    /// If there is no whole answer in time, or it is not HTTP.
    pub fn get(&self, within: Duration) -> io::Result<Answer> {
        block_on(self.fetch(Method::GET, within))
    }

    /// Sends an empty POST, and waits at most `within` for the whole answer.
    ///
    /// # Errors
    /// If there is no whole answer in time, or it is not HTTP.
    pub fn post(&self, within: Duration) -> io::Result<Answer> {
        block_on(self.fetch(Method::POST, within))
    }

    /// Sends a request without a body from within a runtime. The deadline covers name lookup, connecting and the whole answer.
    ///
    /// # Errors
    /// If there is no whole answer in time, or it is not HTTP.
    pub async fn fetch(&self, method: Method, within: Duration) -> io::Result<Answer> {
        let timed_out = |_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        timeout(within, self.exchange(method)).await.map_err(timed_out)?
    }

    async fn exchange(&self, method: Method) -> io::Result<Answer> {
        match &self.address {
            AdminAddress::Tcp(authority) => self.exchange_over(TcpStream::connect(authority).await?, method).await,
            AdminAddress::Unix(path) => self.exchange_over(UnixStream::connect(path).await?, method).await,
        }
    }

    async fn exchange_over<S>(&self, stream: S, method: Method) -> io::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut client = http1::Builder::new();
        // As most clients write them; some small servers compare names byte by byte.
        client.title_case_headers(true);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(not_answered)?;
        // The task ends with the answer or with this runtime. Its failure is the error of the request.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        let mut request =
            Request::builder().uri(&self.path).header(HOST, self.address.authority()).header(CONNECTION, "close");
        if method == Method::POST {
            request = request.header(CONTENT_LENGTH, 0);
        }
        let request = request.method(method).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(not_answered)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => not_answered(*error),
                Err(error) if error.is::<LengthLimitError>() => io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"),
                ),
                Err(error) => io::Error::other(error),
            }
        })?;
        Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            AdminAddress::Tcp(authority) => write!(f, "http://{authority}{}", self.path),
            AdminAddress::Unix(socket) => write!(f, "unix:{}:{}", socket.display(), self.path),
        }
    }
}

/// Runs a request where there is no runtime.
fn block_on(request: impl Future<Output = io::Result<Answer>>) -> io::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(request);
    // A name lookup that still runs in a thread of its own is not waited for.
    runtime.shutdown_background();
    answer
}

fn not_answered(error: hyper::Error) -> io::Error {
    if error.is_parse() {
        return io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1");
    }
    if error.is_incomplete_message() {
        return io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the whole answer");
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
        None => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn urls_are_split_or_refused() {
        let parsed = |text| Url::parse(text).map(|url| url.to_string());
        assert_eq!(parsed("http://127.0.0.1:15021/healthz/ready").unwrap(), "http://127.0.0.1:15021/healthz/ready");
        assert_eq!(parsed("http://localhost").unwrap(), "http://localhost:80/");
        assert_eq!(parsed("http://[::1]/x").unwrap(), "http://[::1]:80/x");
        assert_eq!(parsed("http://[::1]:90?q").unwrap(), "http://[::1]:90/?q");
        let wrong = [
            "https://a/",
            "a:80",
            "http://",
            "http://:80/",
            "http://a:0/",
            "http://a:x",
            "http://a:/",
            "http://a/\r\nX: y",
            "http://u@h/",
            "http://h/#part",
        ];
        for text in wrong {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    fn read_request(stream: &mut impl io::Read) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.extend(byte);
        }
        Ok(())
    }

    /// A server for one request: it answers with these bytes and closes.
    fn answering(answer: &'static [u8]) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::at(listener.local_addr().unwrap(), "/");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream).unwrap();
            stream.write_all(answer).unwrap();
        });
        url
    }

    const WITHIN: Duration = Duration::from_secs(20);

    #[test]
    fn an_answer_has_a_status_and_a_whole_body() {
        let until_close =
            answering(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot ready\n").get(WITHIN).unwrap();
        assert_eq!((until_close.status, until_close.body.as_str()), (503, "not ready\n"));
        let counted = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").post(WITHIN).unwrap();
        assert_eq!((counted.status, counted.body.as_str()), (200, "yes"));
        let kind = |answer| answering(answer).get(WITHIN).unwrap_err().kind();
        assert_eq!(kind(b"hello\r\n\r\n"), io::ErrorKind::InvalidData);
        assert_eq!(kind(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(b""), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_server_that_is_silent_costs_no_more_than_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::at(listener.local_addr().unwrap(), "/");
        let begun = Instant::now();
        let error = url.get(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn an_answer_that_trickles_does_not_move_the_deadline() {
        // On a busy machine the server may begin after the deadline, and that would prove nothing.
        let trickled = [100, 1_000, 10_000].into_iter().any(|deadline| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = Url::at(listener.local_addr().unwrap(), "/");
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // An answer before the request would be an error of its own.
                let begin = read_request(&mut stream).and_then(|()| stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
                let mut written = 0;
                // One byte at a time for ever: ends when the client has gone.
                while begin.is_ok() && stream.write_all(b"x").is_ok() {
                    written += 1;
                    thread::yield_now();
                }
                written
            });
            assert_eq!(url.get(Duration::from_millis(deadline)).unwrap_err().kind(), io::ErrorKind::TimedOut);
            server.join().unwrap() > 100
        });
        assert!(trickled, "the server never answered in time");
    }
}
