//! One plain HTTP/1.1 GET or POST with a deadline, for readiness and changes on an admin address.
//!
//! A client of 80 lines instead of a dependency: the other end is this program, the answer is small, and an image
//! without a shell needs `healthcheck` to have no needs of its own. It refuses https, redirects and anything large.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The most of an answer that is read; the metrics page of a busy proxy is far below this.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// An `http://` URL, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Url {
    authority: String,
    path: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Url {
    /// Parses `http://HOST[:PORT][/PATH]`; the message says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!("\"{text}\" does not begin with http://"));
        };
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['@', '#']) {
            return Err(format!("{text:?} has a character that does not belong into a URL here"));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if path.starts_with('/') { "" } else { "/" };
        // `[::1]` ends with a bracket: the colons in it are no port.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, port),
            _ => (authority, "80"),
        };
        if host.is_empty() || !matches!(port.parse::<u16>(), Ok(1..)) {
            return Err(format!("\"{text}\" has no host, or a port that is not one"));
        }
        Ok(Self { authority: format!("{host}:{port}"), path: format!("{slash}{path}") })
    }

    /// The URL of a path at an address.
    pub(crate) fn at(address: SocketAddr, path: &str) -> Self {
        Self { authority: address.to_string(), path: path.to_owned() }
    }

    /// Another path of the same server.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self { authority: self.authority.clone(), path: path.to_owned() }
    }

    /// Asks, and waits at most `within` for the whole answer.
    ///
    /// # Errors
    /// If nobody answers in time, or not in HTTP.
    pub(crate) fn get(&self, within: Duration) -> io::Result<Answer> {
        self.request("GET", "", within)
    }

    /// Asks for a change; nothing is sent along.
    ///
    /// # Errors
    /// If nobody answers in time, or not in HTTP.
    pub(crate) fn post(&self, within: Duration) -> io::Result<Answer> {
        self.request("POST", "Content-Length: 0\r\n", within)
    }

    fn request(&self, method: &str, headers: &str, within: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + within;
        let mut stream = self.connect(deadline)?;
        stream.set_write_timeout(Some(left(deadline)?))?;
        let Self { authority, path } = self;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut chunk = [0; 16 * 1024];
        while answer.len() < MAX_ANSWER {
            stream.set_read_timeout(Some(left(deadline)?))?;
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(in_time(error)),
            }
        }
        parse(&String::from_utf8_lossy(&answer))
    }

    fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(deadline)?) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

fn parse(answer: &str) -> io::Result<Answer> {
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5)).ok_or_else(not_http)?;
    Ok(Answer { status: status.parse().map_err(|_digits| not_http())?, body: body.to_owned() })
}

/// What is left until the deadline; never zero, which sockets take for "for ever".
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(timed_out()) } else { Ok(left) }
}

/// A socket's timeout comes as `WouldBlock`, which says nothing to a person.
fn in_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { timed_out() } else { error }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn urls_are_taken_apart_or_refused() {
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
            "http://a/\r\nX: y",
            "http://u@h/",
        ];
        for text in wrong {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_needs_a_status_line_and_an_end_of_its_head() {
        let ready = parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot ready\n").unwrap();
        assert_eq!((ready.status, ready.body.as_str()), (503, "not ready\n"));
        for wrong in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2é0\r\n\r\n"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_costs_no_more_than_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::at(listener.local_addr().unwrap(), "/");
        let begun = Instant::now();
        let error = url.get(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn drops_of_an_answer_do_not_move_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::at(listener.local_addr().unwrap(), "/");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // One byte at a time for ever: ends when the client has gone.
            while stream.write_all(b"x").is_ok() {
                thread::yield_now();
            }
        });
        assert!(url.get(Duration::from_millis(100)).is_err());
        server.join().unwrap();
    }
}
