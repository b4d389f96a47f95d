//! The limit on descriptors is the process's, so this test has one to itself.

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpStream;
    use std::num::NonZeroUsize;
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    use portcullis_net::accept::{AcceptError, Acceptor};
    use portcullis_net::listen::listen;
    use rustix::process::{Resource, getrlimit, setrlimit};

    #[tokio::test]
    async fn accepting_backs_off_without_descriptors_and_recovers() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), NonZeroUsize::MIN).unwrap().remove(0);
        let mut acceptor = Acceptor::new(listener).unwrap();
        let address = acceptor.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();

        let before = getrlimit(Resource::Nofile);
        let mut none_left = before;
        let lowest_free = File::open("/dev/null").unwrap().as_raw_fd();
        none_left.current = Some(u64::try_from(lowest_free).unwrap());
        setrlimit(Resource::Nofile, none_left).unwrap();

        let start = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            match acceptor.accept().await {
                Err(AcceptError::Exhausted { pause, .. }) => pauses.push(pause.as_millis()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses, [5, 10, 20, 40]);
        // Three of the four pauses are over; the calls did not spin.
        assert!(start.elapsed() >= Duration::from_millis(35));

        setrlimit(Resource::Nofile, before).unwrap();
        let accepted = acceptor.accept().await.unwrap();
        assert_eq!(accepted.client.get(), client.local_addr().unwrap());
    }
}
