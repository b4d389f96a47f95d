//! Frames that are ready together are written together: HTTP/2 writes the header and the content of a frame one after the other, and
//! TLS below would make a record of each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As many bytes go down in one write.
const BATCH: usize = 64 * 1024;
/// No more memory than this is kept while there is nothing to write.
const KEPT: usize = 4 * 1024;

/// Collects what is written until it is flushed, or a batch is full.
pub(crate) struct Coalesced<IO> {
    io: IO,
    unsent: Vec<u8>,
    sent: usize,
}

impl<IO> Coalesced<IO> {
    pub(crate) const fn new(io: IO) -> Self {
        Self { io, unsent: Vec::new(), sent: 0 }
    }
}

impl<IO: AsyncWrite + Unpin> Coalesced<IO> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.sent = 0;
        if self.unsent.capacity() > KEPT {
            self.unsent = Vec::new();
        } else {
            self.unsent.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Coalesced<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Coalesced<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= BATCH {
            ready!(self.poll_send(cx))?;
        }
        let taken = bytes.len().min(BATCH - self.unsent.len());
        self.unsent.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_in_order_and_little_memory_is_kept() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut io = Coalesced::new(ours);
            for piece in sent.chunks(777) {
                io.write_all(piece).await.unwrap();
            }
            io.flush().await.unwrap();
            assert!(io.unsent.capacity() <= KEPT);
        });
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == expected);
    }
}
