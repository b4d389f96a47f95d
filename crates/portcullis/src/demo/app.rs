//! The app behind the inbound sidecar: speaks plaintext only, answers a line, and records its connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The prefix of each answer, which proves that it is the app's.
pub(super) const MARKER: &str = "the app got: ";
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long the app waits for a client's line.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const LINE: u64 = 1024;

/// One connection that reached the app.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Visit {
    /// A line of text.
    Line(String),
    /// Bytes of a TLS handshake, which this app does not understand.
    RawTls,
    /// Neither.
    Nothing,
}

/// The running app; it ends with the process.
pub(super) struct App {
    pub(super) address: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
}

impl App {
    pub(super) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let visits = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&visits);
        thread::Builder::new().name("demo-app".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // One at a time is enough: the attempts come one after the other.
                let visit = read(&stream);
                recorded.lock().unwrap_or_else(PoisonError::into_inner).push(visit.clone());
                // Recorded first: when the client sees the answer, or the end, the visit is there.
                answer(stream, &visit);
            }
        })?;
        Ok(Self { address, visits })
    }

    /// The visits since the last call.
    pub(super) fn take_visits(&self) -> Vec<Visit> {
        mem::take(&mut *self.visits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(stream: &TcpStream) -> Visit {
    let _unsupported = stream.set_read_timeout(Some(READ_TIMEOUT));
    let mut reader = BufReader::new(stream);
    match reader.fill_buf().ok().and_then(|bytes| bytes.first().copied()) {
        None => Visit::Nothing,
        Some(TLS_HANDSHAKE) => Visit::RawTls,
        Some(_) => {
            let mut line = String::new();
            match reader.take(LINE).read_line(&mut line) {
                Ok(_) => Visit::Line(line.trim_end().to_owned()),
                Err(_) => Visit::Nothing,
            }
        }
    }
}

fn answer(mut stream: TcpStream, visit: &Visit) {
    if let Visit::Line(line) = visit {
        // The client may have gone.
        let _gone = stream.write_all(format!("{MARKER}{line}\n").as_bytes());
    }
}
