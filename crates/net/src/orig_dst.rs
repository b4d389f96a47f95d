//! Where a redirected connection was going: `SO_ORIGINAL_DST`.

use std::io;

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::addr::OrigDst;

/// The original destination of a connection that a netfilter rule redirected to us. `None` if the kernel knows of no
/// translation for it.
///
/// With connection tracking on, the kernel also answers for connections that were not redirected, and names the local
/// address then; see [`OrigDst`].
///
/// # Errors
/// If the socket cannot be asked, for example because it is closed already.
pub fn original_destination(stream: &TcpStream) -> io::Result<Option<OrigDst>> {
    let socket = SockRef::from(stream);
    // A dual-stack listener hands out IPv4 connections as IPv6 sockets, but their translation is kept with IPv4. So the
    // address decides, not the family of the socket.
    let answer = if stream.local_addr()?.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    match answer {
        Ok(address) => Ok(address.as_socket().map(OrigDst::new)),
        Err(error) if no_translation(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// ENOENT: connection tracking does not know the connection. ENOPROTOOPT: there is no connection tracking.
fn no_translation(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOPROTOOPT))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    /// Redirected connections need a network namespace of their own. What is claimed here is that the option of the
    /// right family is asked for: the wrong one is an error (EOPNOTSUPP) on an IPv4 socket.
    async fn unredirected(listen: &str, dial: &str) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialled = SocketAddr::new(dial.parse().unwrap(), port);
        let (_client, (accepted, _)) = tokio::try_join!(TcpStream::connect(dialled), listener.accept()).unwrap();
        let answer = original_destination(&accepted).unwrap();
        assert!(answer.is_none() || answer == Some(OrigDst::new(dialled)), "{answer:?}");
    }

    #[tokio::test]
    async fn an_unredirected_connection_has_no_other_destination_than_ours() {
        unredirected("127.0.0.1:0", "127.0.0.1").await;
        unredirected("[::1]:0", "::1").await;
        unredirected("[::]:0", "127.0.0.1").await;
    }
}
