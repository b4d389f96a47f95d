//! Options of a connected TCP socket, the same for accepted and dialled ones.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Silence after which the kernel asks whether the peer is still there.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(180);
/// How often it asks again.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How often in all, before the connection counts as dead.
pub const KEEPALIVE_PROBES: u32 = 5;

/// How much may wait in the kernel without having been sent once. Without a mark a socket with megabytes of buffer counts as
/// writable only once a third of them is empty, so a receiver that is slow but steady looks idle for minutes; and what
/// waits there is memory.
pub const UNSENT: u32 = 128 * 1024;

/// For a connected socket, or for a listening one, whose connections inherit its options: six system calls fewer for each.
///
/// Switches Nagle's algorithm off (we forward what we get, at once) and keepalive on (a peer that vanished must not hold
/// descriptors for ever), bounds unsent bytes, and switches pacing off on loopback.
///
/// # Errors
/// If the socket is in no state to take options.
pub fn configure(socket: &impl AsFd) -> io::Result<()> {
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_notsent_lowat(UNSENT)?;
    if is_paced(socket)
        && options.local_addr()?.as_socket().is_some_and(|local| local.ip().to_canonical().is_loopback())
    {
        disable_pacing(socket);
    }
    Ok(())
}

/// For a socket whose bytes do not leave this host, or a listening one of which that is true for all connections. [`configure`]
/// knows it of addresses of loopback.
///
/// Where the system paces what is sent (BBR), it does not here: nothing on the way can be congested, and pacing cuts what
/// is one packet into many, each with a timer.
pub fn disable_pacing(socket: &impl AsFd) {
    if is_paced(socket) {
        // Always there, and open to all. Were it not, the bytes would cost more and arrive as well.
        let _unpaced = sockopt::set_tcp_congestion(socket, "reno");
    }
}

/// Whether the default congestion control of the system paces. Read once, from the first socket.
fn is_paced(socket: &impl AsFd) -> bool {
    static PACED: OnceLock<bool> = OnceLock::new();
    *PACED.get_or_init(|| sockopt::tcp_congestion(socket).is_ok_and(|name| name.starts_with("bbr")))
}

/// Makes the close that comes when the stream is dropped a reset, which also discards what is still unsent.
///
/// # Errors
/// If the socket is in no state to take options.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Lets the kernel keep a small segment, for 200 ms at most, until more or the end comes.
pub(crate) fn cork(stream: &TcpStream) {
    // Without it the FIN takes a segment of its own.
    let _uncorked = SockRef::from(stream).set_tcp_cork(true);
}

/// A second handle to a connection, to reset it while another task owns the stream. It is a descriptor of its own: as long as
/// it is open, the connection is not closed.
#[derive(Debug)]
pub struct SecondHandle(OwnedFd);

impl SecondHandle {
    /// Duplicates the descriptor of `stream`.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self)
    }

    /// Closes it, which resets the connection if the other handle is closed already.
    pub fn reset(self) {
        // A socket that accepts no more options is closed already.
        let _closed = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }
}

/// Whether the kernel has put everything on the wire that was written. Meant for the end of a connection: it changes
/// when the socket counts as writable.
///
/// A socket that cannot be asked has nothing to wait for, so the answer is yes.
#[must_use]
pub fn all_sent(stream: &TcpStream) -> bool {
    // With this mark, poll(2) says "writable" only while not one byte waits to be sent for the first time.
    if SockRef::from(stream).set_tcp_notsent_lowat(1).is_err() {
        return true;
    }
    is_writable(stream)
}

/// Whether the kernel takes bytes now, or a write would fail. A socket that cannot be asked is left to the write.
pub(crate) fn is_writable(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) =
            tokio::try_join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept()).unwrap();
        (dialled, accepted.0)
    }

    #[tokio::test]
    async fn options_are_set() {
        let (stream, _peer) = pair().await;
        configure(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
    }

    #[tokio::test]
    async fn what_stays_on_the_host_is_not_paced() {
        let (dialled, accepted) = pair().await;
        let default = sockopt::tcp_congestion(&accepted).unwrap();
        configure(&dialled).unwrap();
        // Where the system does not pace, nothing is changed; that is all that can be seen there.
        let expected = if default.starts_with("bbr") { "reno" } else { &default };
        assert_eq!(sockopt::tcp_congestion(&dialled).unwrap(), expected);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        configure(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (born, _) = listener.accept().unwrap();
        assert_eq!(sockopt::tcp_congestion(&born).unwrap(), expected, "born with it");
    }

    #[tokio::test]
    async fn unsent_bytes_are_noticed_until_the_peer_reads() {
        let (stream, mut peer) = pair().await;
        assert!(all_sent(&stream));
        let chunk = vec![0; 1 << 20];
        let mut written = 0;
        while let Ok(n) = stream.try_write(&chunk) {
            written += n;
            // Loopback delivers within the call, so "would block" means that the peer's window is full.
        }
        assert!(!all_sent(&stream), "{written} bytes written and none left unsent");
        let mut sink = vec![0; 1 << 20];
        while !all_sent(&stream) {
            assert!(peer.read(&mut sink).await.unwrap() > 0);
        }
    }

    #[tokio::test]
    async fn a_reset_on_close_is_a_reset() {
        let (stream, mut peer) = pair().await;
        reset_on_close(&stream).unwrap();
        drop(stream);
        let error = peer.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn the_second_handle_resets_what_the_first_one_has_left() {
        let (stream, mut peer) = pair().await;
        let second = SecondHandle::of(&stream).unwrap();
        drop(stream);
        second.reset();
        let error = peer.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
