use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::listen::listen;

fn bound() -> (StdListener, SocketAddr) {
    let mut listeners = listen("127.0.0.1:0".parse().unwrap(), std::num::NonZeroUsize::MIN).unwrap();
    let listener = listeners.remove(0);
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn acceptor() -> (Acceptor, SocketAddr) {
    let (listener, address) = bound();
    (Acceptor::new(listener).unwrap(), address)
}

/// Polls once, without a waker.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn an_accepted_connection_is_configured() {
    let (mut acceptor, address) = acceptor();
    let client = TcpStream::connect(address).await.unwrap();
    let accepted = acceptor.accept().await.unwrap();
    assert_eq!(accepted.client.get(), client.local_addr().unwrap());
    // Inherited from the listening socket.
    let socket = socket2::SockRef::from(&accepted.stream);
    assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), socket::KEEPALIVE_AFTER);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), socket::KEEPALIVE_INTERVAL);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), socket::KEEPALIVE_PROBES);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), socket::UNSENT);
}

#[tokio::test]
async fn a_dropped_accept_loses_no_connection() {
    let (mut acceptor, address) = acceptor();
    assert!(poll_once(acceptor.accept()).is_pending());
    let client = TcpStream::connect(address).await.unwrap();
    let accepted = acceptor.accept().await.unwrap();
    assert_eq!(accepted.client.get(), client.local_addr().unwrap());
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_a_second_and_start_again_after_a_success() {
    let mut backoff = Backoff::default();
    let pauses: Vec<u128> = (0..10).map(|_| backoff.increase().as_millis()).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    let start = Instant::now();
    backoff.wait().await;
    assert_eq!(start.elapsed(), MAX_BACKOFF);
    backoff.wait().await;
    assert_eq!(start.elapsed(), MAX_BACKOFF, "one pause for one failure");
    backoff.reset();
    assert_eq!(backoff.increase(), MIN_BACKOFF);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pause_is_not_a_shorter_one() {
    let mut backoff = Backoff::default();
    backoff.increase();
    let start = Instant::now();
    assert!(poll_once(backoff.wait()).is_pending());
    backoff.wait().await;
    assert!(start.elapsed() >= MIN_BACKOFF);
}

#[test]
fn only_errors_of_one_connection_cost_no_pause() {
    for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::NETDOWN, Errno::HOSTUNREACH] {
        assert!(is_gone(&errno.into()), "{errno}");
    }
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM, Errno::INVAL, Errno::BADF] {
        assert!(!is_gone(&errno.into()), "{errno}");
    }
}
