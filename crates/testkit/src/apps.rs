//! Small applications to stand behind a proxy.

use std::net::{SocketAddr, TcpListener};
use std::thread;

/// An app that sends back what it gets, on every connection until it ends. It runs as long as the process.
#[must_use]
pub fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = stream.try_clone().expect("a descriptor");
                let _ended = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    address
}
