//! A collector in HTTP/1.1 by hand, which answers as a test says.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Far above what any step takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Request {
    /// Request line and headers, as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
    /// The number of its connection.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What the collector does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Status, further headers (each line with its end), body.
    Answer(u16, String, Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// The same as an empty 200, and then the connection ends.
    LastAnswer,
    /// The connection ends without an answer.
    Hangup,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, String::new(), Vec::new())
    }

    pub(crate) fn with(status: u16, headers: &str, body: &[u8]) -> Self {
        Self::Answer(status, headers.to_owned(), body.to_vec())
    }
}

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    requests: Receiver<Request>,
}

/// Chooses the reply to the n-th request, from 0.
type Script = Arc<Mutex<dyn FnMut(usize) -> Reply + Send>>;

impl Collector {
    pub(crate) fn start(script: impl FnMut(usize) -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn on(listener: TcpListener, script: impl FnMut(usize) -> Reply + Send + 'static) -> Self {
        Self::wrapped(listener, script, Some)
    }

    /// `wrap` makes what is spoken over of each connection, such as TLS; `None` if that fails.
    pub(crate) fn wrapped<S: Read + Write + Send + 'static>(
        listener: TcpListener,
        script: impl FnMut(usize) -> Reply + Send + 'static,
        wrap: impl Fn(TcpStream) -> Option<S> + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let (script, count): (Script, _) = (Arc::new(Mutex::new(script)), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Some(stream) = stream.ok().and_then(&wrap) else { continue };
                let (script, count, sender) = (Arc::clone(&script), Arc::clone(&count), sender.clone());
                thread::spawn(move || serve(stream, number, &script, &count, &sender));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn next(&self) -> Request {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }

    /// No request within this time.
    pub(crate) fn is_idle_for(&self, time: Duration) -> bool {
        self.requests.recv_timeout(time).is_err()
    }
}

fn serve(stream: impl Read + Write, connection: usize, script: &Script, count: &AtomicUsize, sender: &Sender<Request>) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = read(&mut stream) {
        let reply = script.lock().unwrap()(count.fetch_add(1, Ordering::SeqCst));
        if sender.send(Request { head, body, at: Instant::now(), connection }).is_err() {
            return;
        }
        let (status, headers, body, last) = match reply {
            Reply::Answer(status, headers, body) => (status, headers, body, false),
            Reply::LastAnswer => (200, String::new(), Vec::new(), true),
            Reply::Hangup => return,
            Reply::Silence => loop {
                thread::park();
            },
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Any\r\ncontent-length: {length}\r\n{headers}\r\n");
        let written = stream.get_mut().write_all(&[answer.as_bytes(), &body].concat());
        if written.is_err() || stream.get_mut().flush().is_err() || last {
            return;
        }
    }
}

fn read(stream: &mut BufReader<impl Read>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length?];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}
