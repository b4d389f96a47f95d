//! The last part of both stories: dial under a deadline, then copy until an end or a forced drain.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use portcullis_net::{ByteCounts, CopyLimits, Duplex, bidirectional, reset_both, socket};
use portcullis_policy::Reason;
use portcullis_telemetry::{ConnRecord, Ending, TlsFacts};
use portcullis_tls::{PathSummary, PeerInfo, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::Instant;

use crate::changes::Changes;
use crate::drain::Phase;
use crate::end;
use crate::seldom::Seldom;
use crate::world::World;

/// The mesh's end of a copy.
pub(crate) enum MeshEnd<IO> {
    /// Its bytes as they are.
    Raw(IO),
    /// What is inside TLS, with a peer that was verified.
    Secured(Stream<IO>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for MeshEnd<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MeshEnd<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_flush(cx),
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Raw(io) => Pin::new(io).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl<IO: Duplex> Duplex for MeshEnd<IO> {
    const SPARE_ROOM: usize = 1;

    fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Raw(io) => io.reset_on_close(),
            Self::Secured(stream) => stream.get_ref().reset_on_close(),
        }
    }

    fn all_sent(&self) -> bool {
        match self {
            Self::Raw(io) => io.all_sent(),
            Self::Secured(stream) => stream.get_ref().all_sent(),
        }
    }

    fn cork(&self) {
        match self {
            Self::Raw(io) => io.cork(),
            Self::Secured(stream) => stream.get_ref().cork(),
        }
    }

    fn before_shutdown(&self) {
        match self {
            Self::Raw(_) => {}
            Self::Secured(stream) => stream.get_ref().cork(),
        }
    }
}

/// Dials, with names resolved now, under one deadline.
pub(crate) async fn dial<A: ToSocketAddrs>(address: A, within: Duration) -> io::Result<TcpStream> {
    let stream = match tokio::time::timeout(within, TcpStream::connect(address)).await {
        Ok(connected) => connected?,
        Err(_elapsed) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
    };
    socket::configure(&stream)?;
    Ok(stream)
}

/// Both ends of a copy. A panic resets them: neither may take what it got for the whole.
pub(crate) struct Ends<D: Duplex, U: Duplex> {
    pub(crate) client: D,
    pub(crate) server: U,
}

impl<D: Duplex, U: Duplex> Drop for Ends<D, U> {
    fn drop(&mut self) {
        if thread::panicking() {
            reset_both(&self.client, &self.server);
        }
    }
}

/// Copies in both directions until one of the ends, the limits, a forced drain or a change ends it: after each change
/// `withdrawn` says whether a connection like this one would still be let through. The ends are to be dropped then.
///
/// They are borrowed, and the rest is few and small, because this future is what an idle connection holds.
pub(crate) async fn relay<D: Duplex, U: Duplex>(
    world: &World,
    ends: &mut Ends<D, U>,
    record: &mut ConnRecord,
    mut changes: Changes,
    withdrawn: impl Fn(&World, &mut ConnRecord) -> Option<Ending>,
) -> Ending {
    let Ends { client, server } = ends;
    let timeouts = &world.settings.timeouts;
    let limits = CopyLimits { idle: timeouts.idle, half_close: timeouts.half_close };
    let counts =
        ByteCounts { from_downstream: record.bytes.received.clone(), from_upstream: record.bytes.sent.clone() };
    let copied = {
        let cut = pin!(async {
            loop {
                if world.drain.phase() == Phase::Forced {
                    return end::because(Reason::DrainForced, None);
                }
                changes.next().await;
                if let Some(ending) = withdrawn(world, record) {
                    return ending;
                }
            }
        });
        tokio::select! {
            biased;
            ending = Seldom::new(cut) => Err(ending),
            copied = bidirectional(client, server, &limits, &counts) => Ok(copied),
        }
    };
    match copied {
        Ok(copied) => {
            if copied.truncated_after_close().is_some() {
                record.count_truncated_after_close();
            }
            end::copied(copied.end)
        }
        Err(ending) => {
            reset_both(client, server);
            ending
        }
    }
}

/// Whether the credentials in force would not accept the peer's chain any more.
pub(crate) fn distrusted(world: &World, record: &ConnRecord, path: &PathSummary) -> Option<Ending> {
    let error = world.credentials.latest()?.still_trusts(record.peer.as_ref()?, path).err()?;
    Some(end::because(Reason::TrustChanged, Some(error.to_string())))
}

/// Notes whom the handshake has verified, and how.
pub(crate) fn authenticated(world: &World, record: &mut ConnRecord, peer: &PeerInfo, began: Instant) {
    let root = Arc::clone(peer.path.root_fingerprint());
    let facts = TlsFacts { version: peer.tls_version, group: peer.group, cipher: peer.cipher, root };
    record.secured(peer.id.clone(), facts, began.elapsed());
    world.expiries.note(peer.path.not_after_unix());
    for (used, check) in [(peer.relaxed.eku, "eku"), (peer.relaxed.ku_critical, "ku-critical")] {
        if used {
            world.metrics.compat_used.with(&[check]).add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_panic_resets_both_ends_and_a_clean_end_does_not() {
        for poisoned in [true, false] {
            let ((mut peer, client), (mut app, server)) = (pair().await, pair().await);
            let task = tokio::spawn(async move {
                let _ends = Ends { client, server };
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
