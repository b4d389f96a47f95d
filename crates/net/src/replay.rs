//! A stream that gives back the bytes that detection took from it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads of it yield a prefix first, then what the inner stream has. The prefix's memory is freed with its last byte.
/// Writes pass straight through.
#[derive(Debug)]
pub struct Replay<IO> {
    prefix: Vec<u8>,
    /// How much of the prefix has been read; less than its length, or the prefix is empty.
    position: usize,
    io: IO,
}

impl<IO> Replay<IO> {
    /// A stream that yields `prefix`, then what `io` yields.
    pub const fn new(prefix: Vec<u8>, io: IO) -> Self {
        Self { prefix, position: 0, io }
    }

    /// The stream below. Reading from it would get ahead of the prefix.
    pub const fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The stream below, to write to it.
    pub(crate) const fn get_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// How much memory the prefix takes.
    pub(crate) const fn unread_capacity(&self) -> usize {
        self.prefix.capacity()
    }

    /// The part of the prefix that has not been read.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.prefix.get(self.position..).unwrap_or_default()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Replay<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unread = self.unread();
        if unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let served = unread.len().min(buffer.remaining());
        buffer.put_slice(unread.get(..served).unwrap_or_default());
        self.position += served;
        if self.position == self.prefix.len() {
            self.prefix = Vec::new();
            self.position = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Replay<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_prefix_comes_first_whatever_the_read_sizes_and_is_freed() {
        let (mut far, near) = duplex(64);
        far.write_all(b" world").await.unwrap();
        far.shutdown().await.unwrap();
        let mut stream = Replay::new(b"hello".to_vec(), near);
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        assert_eq!((&two, stream.unread()), (b"he", &b"llo"[..]));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"llo world");
        assert_eq!(stream.prefix.capacity(), 0);
    }

    #[tokio::test]
    async fn an_empty_read_buffer_loses_nothing() {
        let (_far, near) = duplex(64);
        let mut stream = Replay::new(b"x".to_vec(), near);
        assert_eq!(stream.read(&mut []).await.unwrap(), 0);
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn writes_pass_through_while_the_prefix_is_unread() {
        let (mut far, near) = duplex(64);
        let mut stream = Replay::new(b"hello".to_vec(), near);
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!((got.as_str(), stream.unread()), ("answer", &b"hello"[..]));
    }
}
