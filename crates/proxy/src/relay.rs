//! What inbound and outbound connections share: dialling under a deadline, then copying until a side ends, a change of policy
//! or trust ends it, or the drain is forced.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use portcullis_dns::Names;
use portcullis_hbone::TunnelStream;
use portcullis_net::{ByteCounts, CopyEnd, CopyLimits, Duplex, Side, bidirectional, reset_both, socket};
use portcullis_telemetry::{Bytes, ConnRecord, Ending, TlsFacts};
use portcullis_tls::{PathSummary, PeerInfo, Stream, StreamFault};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::buffers;
use crate::changes::ChangeWatch;
use crate::drain::Phase;
use crate::outcome::{self, Reason};
use crate::state::ProxyState;
use crate::wake_gated::WakeGated;

/// The mesh's side of a connection.
pub(crate) enum MeshStream<IO> {
    /// Plaintext, or the client's own TLS.
    Raw(IO),
    /// Mutual TLS with a verified peer.
    Secured(Stream<IO>),
    /// A stream of a tunnel to a verified peer. Boxed, since few connections have one, and each would reserve space for it.
    Tunneled(Box<TunnelStream>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MeshStream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tunneled(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MeshStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tunneled(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunneled(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunneled(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl<IO: Duplex> Duplex for MeshStream<IO> {
    const SPARE_ROOM: usize = 1;

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Raw(io) => io.poll_sent(cx),
            Self::Secured(stream) => stream.poll_sent(cx),
            Self::Tunneled(stream) => stream.poll_sent(cx),
        }
    }

    fn poll_takes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Raw(io) => io.poll_takes(cx),
            Self::Secured(stream) => {
                ready!(stream.poll_sent(cx))?;
                stream.get_mut().poll_takes(cx)
            }
            Self::Tunneled(stream) => stream.poll_takes(cx),
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Raw(io) => io.held(),
            Self::Secured(stream) => stream.held(),
            Self::Tunneled(stream) => stream.held(),
        }
    }

    fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Raw(io) => io.reset_on_close(),
            Self::Secured(stream) => stream.get_ref().reset_on_close(),
            Self::Tunneled(stream) => stream.reset_on_close(),
        }
    }

    fn all_sent(&self) -> bool {
        match self {
            Self::Raw(io) => io.all_sent(),
            Self::Secured(stream) => stream.get_ref().all_sent(),
            Self::Tunneled(stream) => stream.all_sent(),
        }
    }

    fn cork(&self) {
        match self {
            Self::Raw(io) => io.cork(),
            Self::Secured(stream) => stream.get_ref().cork(),
            Self::Tunneled(_) => {}
        }
    }

    fn before_shutdown(&self) {
        match self {
            Self::Raw(_) | Self::Tunneled(_) => {}
            Self::Secured(stream) => stream.get_ref().cork(),
        }
    }
}

/// One side of a connection, as the relay sees it.
pub(crate) trait Endpoint: Duplex {
    /// What broke TLS on this side, if anything did.
    fn tls_fault(&self) -> Option<StreamFault>;
}

impl Endpoint for TcpStream {
    fn tls_fault(&self) -> Option<StreamFault> {
        None
    }
}

impl<IO: Duplex> Endpoint for MeshStream<IO> {
    fn tls_fault(&self) -> Option<StreamFault> {
        match self {
            Self::Raw(_) | Self::Tunneled(_) => None,
            Self::Secured(stream) => stream.fault(),
        }
    }
}

impl Endpoint for TunnelStream {
    fn tls_fault(&self) -> Option<StreamFault> {
        None
    }
}

/// Looks the host up and dials its addresses until one answers, under one deadline. The answer is not one that was given to an
/// earlier dial: the address of a stopped container may be another one's a moment later.
pub(crate) async fn dial_host(names: &Names, host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + within;
    let found = addresses(names, host, port, within).await?;
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "there is no such name, or it has no address");
    let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
    for address in found {
        // Each address gets its share of the time that is left, so that one that is gone does not take all of it.
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match dial(address, share).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The addresses of a host by a look-up that begins now, in the order in which they are to be dialled.
pub(crate) async fn addresses(names: &Names, host: &str, port: u16, within: Duration) -> io::Result<Vec<SocketAddr>> {
    match tokio::time::timeout(within, names.look_up_once(host)).await {
        Ok(Ok(answer)) => {
            Ok(dial_order(answer.addresses).into_iter().map(|address| SocketAddr::new(address, port)).collect())
        }
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// IPv6 before IPv4, as the system does it, and each family in random order, so that all addresses get connections.
fn dial_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    fastrand::shuffle(&mut addresses);
    addresses.sort_by_key(IpAddr::is_ipv4);
    addresses
}

/// Dials under a deadline.
pub(crate) async fn dial(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    let stream = match tokio::time::timeout(within, TcpStream::connect(address)).await {
        Ok(connected) => connected?,
        Err(_elapsed) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    socket::configure(&stream)?;
    Ok(stream)
}

/// Both endpoints of a connection: `client` is downstream, `server` upstream. A panic resets them, so that neither side takes
/// truncated data for complete.
pub(crate) struct Endpoints<D: Duplex, U: Duplex> {
    pub(crate) client: D,
    pub(crate) server: U,
}

impl<D: Duplex, U: Duplex> Drop for Endpoints<D, U> {
    fn drop(&mut self) {
        if thread::panicking() {
            reset_both(&self.client, &self.server);
        }
    }
}

/// How a change ends an open connection.
pub(crate) enum Closing {
    /// At once, with a reset: a connection like this one would be refused now.
    Now(Ending),
    /// Between two answers of the server, [`MAX_CLOSING`] later at the latest: a connection like this one would be made in
    /// another way now.
    BetweenAnswers(Ending),
}

/// When no byte follows those of the server for this long, its answer is taken for complete.
const ANSWERED: Duration = Duration::from_millis(10);
/// The connection ends then in any case. Less than the half of the transition that a port has after a change of its mode.
const MAX_CLOSING: Duration = Duration::from_millis(200);

/// Copies in both directions until an endpoint, a timeout, a forced drain or a change ends it: after each change
/// `reauthorize` says whether it ends. The endpoints are to be dropped then.
///
/// They are borrowed, and the other parameters are few and small, because an idle connection holds this future.
pub(crate) async fn relay<D: Endpoint, U: Endpoint>(
    state: &ProxyState,
    endpoints: &mut Endpoints<D, U>,
    record: &mut ConnRecord,
    mut changes: ChangeWatch,
    reauthorize: impl Fn(&ProxyState, &mut ConnRecord) -> Option<Closing>,
) -> Ending {
    let Endpoints { client, server } = endpoints;
    let timeouts = &state.settings.timeouts;
    let limits = CopyLimits { idle: timeouts.idle, half_close: timeouts.half_close };
    let counts =
        ByteCounts { from_downstream: record.bytes.received.clone(), from_upstream: record.bytes.sent.clone() };
    let account = buffers::account(&state.buffers, record);
    let copied = {
        let closed_by_us = pin!(async {
            loop {
                if state.drain.phase() == Phase::Forced {
                    return (Ending::new(Reason::DrainForced, None), false);
                }
                changes.next().await;
                match reauthorize(state, record) {
                    None => {}
                    Some(Closing::Now(ending)) => return (ending, false),
                    // Boxed: hardly any connection ever needs the space.
                    Some(Closing::BetweenAnswers(ending)) => {
                        return Box::pin(wait_for_answer(&record.bytes, ending)).await;
                    }
                }
            }
        });
        tokio::select! {
            biased;
            closed = WakeGated::new(closed_by_us) => Err(closed),
            copied = bidirectional(client, server, &limits, &counts, &account) => Ok(copied),
        }
    };
    match copied {
        Ok(copied) => {
            if copied.truncated_after_close().is_some() {
                record.count_truncated_after_close();
            }
            outcome::copied(copied.end, tls_fault(copied.end, client, server))
        }
        Err((ending, was_idle)) => {
            if !was_idle {
                reset_both(client, server);
            }
            ending
        }
    }
}

/// Waits until an answer of the server seems complete. Returns the ending, and whether nothing has passed at all in
/// [`MAX_CLOSING`]: only then a FIN cannot make a part look like the whole.
async fn wait_for_answer(bytes: &Bytes, ending: Ending) -> (Ending, bool) {
    let passed = || (bytes.received.load(Ordering::Relaxed), bytes.sent.load(Ordering::Relaxed));
    let (began, first) = (Instant::now(), passed());
    let (mut before, mut is_answer) = (first, false);
    while began.elapsed() < MAX_CLOSING {
        tokio::time::sleep(ANSWERED).await;
        let now = passed();
        if is_answer && now == before {
            return (ending, false);
        }
        is_answer = now.1 != before.1;
        before = now;
    }
    (ending, before == first)
}

/// The TLS failure of the side that ended a copy, if there is one.
fn tls_fault(end: CopyEnd, client: &impl Endpoint, server: &impl Endpoint) -> Option<StreamFault> {
    match end {
        CopyEnd::Reset { by: side } | CopyEnd::Error { side, .. } => match side {
            Side::Downstream => client.tls_fault(),
            Side::Upstream => server.tls_fault(),
        },
        CopyEnd::Clean | CopyEnd::IdleTimeout | CopyEnd::HalfCloseTimeout | CopyEnd::Truncated { .. } => None,
    }
}

/// Returns an ending if the credentials now in force no longer trust the peer's chain.
pub(crate) fn check_trust(state: &ProxyState, record: &ConnRecord, path: &PathSummary) -> Option<Ending> {
    let error = state.credentials.latest()?.still_trusts(record.peer.as_ref()?, path).err()?;
    Some(Ending::new(Reason::TrustChanged, Some(error.to_string())))
}

/// Records the verified peer and what the handshake negotiated.
pub(crate) fn record_peer(state: &ProxyState, record: &mut ConnRecord, peer: &PeerInfo, began: Instant) {
    let facts = note_peer(state, peer);
    record.secured(peer.id.clone(), facts, began.elapsed());
}

/// The same without a record. Returns what was negotiated.
pub(crate) fn note_peer(state: &ProxyState, peer: &PeerInfo) -> TlsFacts {
    state.trust_expiries.track(peer.path.not_after_unix());
    for (used, check) in [(peer.relaxed.eku, "eku"), (peer.relaxed.ku_critical, "ku-critical")] {
        if used {
            state.metrics.compat_used.with(&[check]).add(1);
        }
    }
    let root = Arc::clone(peer.path.root_fingerprint());
    TlsFacts { version: peer.tls_version, group: peer.group, cipher: peer.cipher, root }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use portcullis_dns::{Answer, Lookup, LookupFuture};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    struct Fixed(Vec<IpAddr>);

    impl Lookup for Fixed {
        fn lookup<'a>(&'a self, _name: &'a str) -> LookupFuture<'a> {
            let answer = Answer { addresses: self.0.clone(), valid_for: Duration::ZERO, incomplete: None };
            Box::pin(async { Ok(answer) })
        }
    }

    #[tokio::test]
    async fn every_address_of_a_host_is_dialled_until_one_answers() {
        let listener = TcpListener::bind("127.0.0.9:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dial = async |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            dial_host(&Names::with_lookup(Arc::new(Fixed(addresses))), "cart", port, Duration::from_secs(5)).await
        };
        // Nothing listens at the others.
        let stream = dial(&["::1", "127.0.0.7", "127.0.0.8", "127.0.0.9"]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(dial(&["127.0.0.7"]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(dial(&[]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn ipv6_comes_first_and_each_address_is_dialled_first_at_times() {
        let addresses: Vec<IpAddr> =
            ["10.0.0.1", "::1", "::2"].iter().map(|address| address.parse().unwrap()).collect();
        let first: HashSet<_> = (0..100).map(|_| dial_order(addresses.clone())[0]).collect();
        assert_eq!(first, HashSet::from([addresses[1], addresses[2]]));
    }

    #[tokio::test]
    async fn a_panic_resets_both_ends_and_a_clean_end_does_not() {
        for poisoned in [true, false] {
            let ((mut peer, client), (mut app, server)) = (pair().await, pair().await);
            let task = tokio::spawn(async move {
                let _ends = Endpoints { client, server };
                assert!(!poisoned, "on purpose");
            });
            assert_eq!(task.await.is_err(), poisoned);
            let expected = if poisoned { Err(io::ErrorKind::ConnectionReset) } else { Ok(0) };
            for end in [&mut peer, &mut app] {
                assert_eq!(end.read(&mut [0]).await.map_err(|error| error.kind()), expected);
            }
        }
    }
}
