//! What a peer sends into an inbound HBONE tunnel, behind the preface and its settings.
//!
//! - Nothing panics, and the tunnel ends when the peer's bytes do.
//! - A request is given out with an address only if it is a CONNECT to exactly that address, which is canonical and has a port.
//! - No stream holds more than its window.
#![no_main]

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portcullis_hbone::limits::STREAM_WINDOW;
use portcullis_hbone::{ConnectRefusal, Event, Request, ServerTunnel, TunnelStream, parse_authority};
use portcullis_net::Duplex as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The peer's bytes in pieces, then the end. What is written to it is gone.
struct Peer {
    bytes: VecDeque<u8>,
    piece: usize,
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.bytes.len()).min(buffer.remaining());
        let piece: Vec<u8> = self.bytes.drain(..count).collect();
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What this side does with a stream, by the input.
async fn answer(request: Request, what: u8, open: &mut Vec<TunnelStream>) {
    if let Ok(target) = request.target {
        assert_eq!(parse_authority(&target.to_string()), Ok(target));
        assert!(target.port() != 0 && target.ip() == target.ip().to_canonical());
    }
    match what % 5 {
        0 => request.refuse(ConnectRefusal::Denied),
        1 => request.reset(),
        2 => drop(request),
        _ => {
            let Ok(mut stream) = request.accept() else { return };
            if what % 2 == 0 {
                let _taken = tokio::time::timeout(Duration::from_millis(1), stream.write_all(b"answer")).await;
            }
            if what % 3 == 0 {
                let _read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 100])).await;
            }
            open.push(stream);
        }
    }
}

// The first two bytes say how the rest arrives, and what becomes of streams.
fuzz_target!(|input: &[u8]| {
    let [piece, what, frames @ ..] = input else { return };
    let mut bytes = VecDeque::from(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec());
    bytes.extend(frames);
    let peer = Peer { bytes, piece: usize::from(*piece) * 8 + 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let Ok(mut tunnel) = ServerTunnel::handshake(peer).await else { return };
        let (mut open, mut what) = (Vec::new(), *what);
        loop {
            // An hour of its clock: a tunnel that hangs is a bug.
            match tokio::time::timeout(Duration::from_secs(3600), tunnel.next()).await.expect("the tunnel ends") {
                Event::Request(request) => answer(request, what, &mut open).await,
                Event::Ended(_) => return,
            }
            what = what.wrapping_mul(31).wrapping_add(7);
            if what % 4 == 0 {
                open.pop();
            }
            for stream in &open {
                assert!(stream.held() <= STREAM_WINDOW as usize);
            }
        }
    });
});
