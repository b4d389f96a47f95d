//! Streams for the copy loop to work on: real sockets, and pipes whose ends and failures can be chosen.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use portcullis_buffers::Account;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// What can be seen of a [`Fake`] from outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    reset: Arc<AtomicBool>,
    flushes: Arc<AtomicUsize>,
}

impl Seen {
    pub(super) fn reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(super) fn flushes(&self) -> usize {
        self.flushes.load(Ordering::Relaxed)
    }
}

/// A stream that behaves as its inner one, but for how its read direction ends and what its writes do.
#[derive(Debug)]
pub(super) struct Fake<IO> {
    pub(super) io: IO,
    /// The end of the inner stream is this error instead.
    pub(super) end: Option<ErrorKind>,
    /// Writes fail with this.
    pub(super) write: Option<ErrorKind>,
    /// How much memory it holds.
    pub(super) held: usize,
    /// What was written never gets onto the wire.
    pub(super) stuck: bool,
    seen: Seen,
}

impl<IO> Fake<IO> {
    pub(super) fn new(io: IO) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { io, end: None, write: None, held: 0, stuck: false, seen: seen.clone() }, seen)
    }
}

/// A fake over a pipe of the given capacity, and the pipe's far end.
pub(super) fn pipe(capacity: usize) -> (DuplexStream, Fake<DuplexStream>, Seen) {
    let (far, near) = duplex(capacity);
    let (fake, seen) = Fake::new(near);
    (far, fake, seen)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Fake<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        match (&result, self.end) {
            (Poll::Ready(Ok(())), Some(kind)) if buffer.filled().len() == before => Poll::Ready(Err(kind.into())),
            _ => result,
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Fake<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.write {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seen.flushes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Duplex for Fake<DuplexStream> {
    fn held(&self) -> usize {
        self.held
    }

    fn reset_on_close(&self) -> io::Result<()> {
        self.seen.reset.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn all_sent(&self) -> bool {
        !self.stuck
    }
}

impl Duplex for Fake<TcpStream> {
    fn reset_on_close(&self) -> io::Result<()> {
        self.io.reset_on_close()
    }

    fn all_sent(&self) -> bool {
        self.io.all_sent()
    }
}

/// Copies until the end, then drops both streams, as every caller has to.
pub(super) fn run<D, U>(
    mut downstream: D,
    mut upstream: U,
    limits: CopyLimits,
    counts: ByteCounts,
) -> JoinHandle<Copied>
where
    D: Duplex + Send + 'static,
    U: Duplex + Send + 'static,
{
    let usage = Usage::unlimited();
    tokio::spawn(async move { bidirectional(&mut downstream, &mut upstream, &limits, &counts, &usage).await })
}

/// The same with a budget.
pub(super) fn run_charged<D, U>(mut downstream: D, mut upstream: U, account: Account<u32>) -> JoinHandle<Copied>
where
    D: Duplex + Send + 'static,
    U: Duplex + Send + 'static,
{
    let (limits, counts) = (CopyLimits::default(), ByteCounts::default());
    tokio::spawn(async move { bidirectional(&mut downstream, &mut upstream, &limits, &counts, &account).await })
}

pub(super) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dialled, accepted) =
        tokio::try_join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept()).unwrap();
    (dialled, accepted.0)
}

/// A client and an app with a copy between them, on real sockets.
pub(super) struct Rig {
    pub(super) client: TcpStream,
    pub(super) app: TcpStream,
    pub(super) copy: JoinHandle<Copied>,
    pub(super) counts: ByteCounts,
}

impl Rig {
    pub(super) async fn new() -> Self {
        let (client, downstream) = tcp_pair().await;
        let (upstream, app) = tcp_pair().await;
        let counts = ByteCounts::default();
        let copy = run(downstream, upstream, CopyLimits::default(), counts.clone());
        Self { client, app, copy, counts }
    }

    /// The client's end without a FIN's meaning is a truncation, as with TLS.
    pub(super) async fn with_truncating_client() -> Self {
        let (client, downstream) = tcp_pair().await;
        let (upstream, app) = tcp_pair().await;
        let (mut downstream, _) = Fake::new(downstream);
        downstream.end = Some(ErrorKind::UnexpectedEof);
        let counts = ByteCounts::default();
        let copy = run(downstream, upstream, CopyLimits::default(), counts.clone());
        Self { client, app, copy, counts }
    }
}

/// A small deterministic generator of bytes and sizes.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 1 to `max`.
    pub(super) fn size(&mut self, max: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % max + 1
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
