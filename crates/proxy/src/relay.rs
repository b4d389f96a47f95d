//! The last part of both stories: dial under a deadline, then copy until an end or a forced drain.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_net::{ByteCounts, CopyLimits, Duplex, bidirectional, reset_both, socket};
use portcullis_policy::Reason;
use portcullis_settings::Timeouts;
use portcullis_telemetry::{Bytes, Ending};
use portcullis_tls::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::drain::{DrainToken, Phase};
use crate::end;

/// A TLS stream as one end of a copy.
pub(crate) struct Secured<IO>(pub(crate) Stream<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<IO: Duplex> Duplex for Secured<IO> {
    fn reset_on_close(&self) -> io::Result<()> {
        self.0.get_ref().reset_on_close()
    }

    fn all_sent(&self) -> bool {
        self.0.get_ref().all_sent()
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

/// Copies in both directions until one of the ends, the limits or a forced drain ends it.
pub(crate) async fn relay<D: Duplex, U: Duplex>(
    mut client: D,
    mut server: U,
    timeouts: Timeouts,
    bytes: &Bytes,
    drain: &DrainToken,
) -> Ending {
    let limits = CopyLimits { idle: timeouts.idle, half_close: timeouts.half_close };
    let counts = ByteCounts { from_downstream: bytes.received.clone(), from_upstream: bytes.sent.clone() };
    let copied = tokio::select! {
        biased;
        () = drain.reached(Phase::Forced) => None,
        copied = bidirectional(&mut client, &mut server, &limits, &counts) => Some(copied),
    };
    match copied {
        Some(copied) => end::copied(copied.end),
        None => {
            reset_both(&client, &server);
            end::because(Reason::DrainForced, None)
        }
    }
}
