//! A client with any opening bytes: it sends them and reports the outcome. It reports what it observes and does not depend
//! on the expectation.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::{RawPeer, openssl_path};
use rustls::{AlertDescription, ClientConnection};
use rustls_pki_types::ServerName;

use crate::support::PATIENCE;

/// What a client sends through TLS once it has it.
pub(crate) const PAYLOAD: &[u8] = b"hello through the mesh";

/// What a client begins with.
#[derive(Clone)]
pub(crate) enum Opening {
    /// These bytes in these pieces with a pause between them, possibly none at all.
    Bytes(Vec<Vec<u8>>, Fin),
    /// TLS, with its hello cut somehow. It waits for an answer before it goes on.
    Tls(RawPeer, Cut),
}

/// When the client ends its direction.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fin {
    /// Right behind its bytes.
    AtOnce,
    /// When the first byte of an answer is there.
    Later,
}

/// How a hello is cut.
#[derive(Clone, Copy)]
pub(crate) enum Cut {
    Whole,
    /// Written byte by byte.
    Bytes,
    /// The first part, a pause that other parties may take for the end, the rest.
    Pause(usize, Duration),
    /// In records of so many bytes each.
    Records(usize),
}

/// What the client got.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// Not a byte before the end, or before a reset (which of the two depends on unread bytes and is not guaranteed).
    Nothing,
    /// These bytes and then a clean end.
    Raw(Vec<u8>),
    /// These bytes within TLS, ended by close_notify.
    Secured(Vec<u8>),
    /// A TLS alert.
    Alert(AlertDescription),
    /// Any other outcome.
    Odd(String),
}

/// One connection, as the client saw it.
pub(crate) struct Talk {
    pub(crate) address: SocketAddr,
    /// What went out before any answer.
    pub(crate) opening: Vec<u8>,
    pub(crate) answer: Answer,
    pub(crate) took: Duration,
}

/// Opens a connection and follows it to its end.
pub(crate) fn talk(address: SocketAddr, opening: &Opening) -> Talk {
    let begin = Instant::now();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let local = stream.local_addr().unwrap();
    let (sent, answer) = match opening {
        Opening::Bytes(pieces, fin) => plain(stream, pieces, *fin),
        Opening::Tls(peer, cut) => secured(stream, peer, *cut),
    };
    Talk { address: local, opening: sent, answer, took: begin.elapsed() }
}

fn plain(mut stream: TcpStream, pieces: &[Vec<u8>], fin: Fin) -> (Vec<u8>, Answer) {
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            thread::sleep(Duration::from_millis(500));
        }
        // The other side may have seen enough.
        let _refused = stream.write_all(piece);
    }
    if fin == Fin::AtOnce {
        let _refused = stream.shutdown(Shutdown::Write);
    }
    let answer = match first_byte(&stream) {
        Ok(Some(_)) => raw(stream),
        Ok(None) => Answer::Nothing,
        Err(odd) => odd,
    };
    (pieces.concat(), answer)
}

fn secured(mut stream: TcpStream, peer: &RawPeer, cut: Cut) -> (Vec<u8>, Answer) {
    let name = ServerName::try_from("anything.test").unwrap();
    let mut tls = ClientConnection::new(Arc::new(peer.client()), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    let sent = send(&mut stream, hello, cut);
    let answer = match first_byte(&stream) {
        Ok(Some(0x14..=0x17)) => speak(&mut tls, &mut stream),
        Ok(Some(_)) => raw(stream),
        Ok(None) => Answer::Nothing,
        Err(odd) => odd,
    };
    (sent, answer)
}

/// Waits for an answer without taking it. `None` if none will come.
fn first_byte(stream: &TcpStream) -> Result<Option<u8>, Answer> {
    let mut first = [0];
    match stream.peek(&mut first) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(first[0])),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(Answer::Odd(format!("waiting for an answer: {error}"))),
    }
}

/// Ends our direction and takes what comes until the end.
fn raw(mut stream: TcpStream) -> Answer {
    let _ended_before = stream.shutdown(Shutdown::Write);
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    match (bytes.as_slice(), end) {
        // A plaintext alert; a reset may follow.
        ([0x15, 3, _, 0, 2, _, code], _) => Answer::Alert(AlertDescription::from(*code)),
        (_, Ok(_)) => Answer::Raw(bytes),
        (_, Err(error)) => Answer::Odd(format!("{error} after {}", bytes.escape_ascii())),
    }
}

/// Sends the payload with whatever is left of the handshake, ends our direction, and reads to the end.
fn speak(tls: &mut ClientConnection, stream: &mut TcpStream) -> Answer {
    tls.writer().write_all(PAYLOAD).unwrap();
    let (mut bytes, mut ended) = (Vec::new(), false);
    loop {
        if !tls.is_handshaking() && !ended {
            tls.send_close_notify();
            ended = true;
        }
        while tls.wants_write() {
            // Refused while we were speaking; what the server had to say about it is still to be read.
            if tls.write_tls(stream).is_err() {
                break;
            }
        }
        let end = tls.read_tls(stream);
        match tls.process_new_packets() {
            Ok(state) => {
                let mut news = vec![0; state.plaintext_bytes_to_read()];
                tls.reader().read_exact(&mut news).unwrap();
                bytes.extend(news);
                if state.peer_has_closed() {
                    return Answer::Secured(bytes);
                }
            }
            Err(rustls::Error::AlertReceived(alert)) => return Answer::Alert(alert),
            Err(error) => return Answer::Odd(error.to_string()),
        }
        match end {
            Ok(0) => return Answer::Odd(format!("no close_notify after {}", bytes.escape_ascii())),
            Ok(_) => {}
            Err(error) => return Answer::Odd(format!("{error} after {}", bytes.escape_ascii())),
        }
    }
}

/// Sends the hello as it is to be cut; returns what went out.
fn send(stream: &mut TcpStream, hello: Vec<u8>, cut: Cut) -> Vec<u8> {
    let sent = match cut {
        Cut::Records(size) => in_records(&hello, size),
        Cut::Whole | Cut::Bytes | Cut::Pause(..) => hello,
    };
    // The other side may close before it has everything; what became of it shows in the answer.
    let mut write = |bytes: &[u8]| drop(stream.write_all(bytes));
    match cut {
        Cut::Whole | Cut::Records(_) => write(&sent),
        Cut::Bytes => {
            for byte in sent.chunks(1) {
                write(byte);
                // So that they do not arrive as one after all.
                thread::sleep(Duration::from_micros(50));
            }
        }
        Cut::Pause(at, pause) => {
            write(&sent[..at]);
            thread::sleep(pause);
            write(&sent[at..]);
        }
    }
    sent
}

/// The same handshake message in records of another size.
pub(crate) fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    message(hello)
        .chunks(size)
        .flat_map(|fragment| {
            let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
            [&[0x16, 3, 1], length.as_slice(), fragment].concat()
        })
        .collect()
}

/// A handshake message without its record headers.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let [0x16, 3, _, high, low, rest @ ..] = records {
        let (fragment, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        all.extend_from_slice(fragment);
        records = after;
    }
    all
}

/// The hello of a client of rustls, whole.
pub(crate) fn hello(peer: &RawPeer) -> Vec<u8> {
    let mut tls =
        ClientConnection::new(Arc::new(peer.client()), ServerName::try_from("anything.test").unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

/// The hello of a client whose best version is TLS 1.1. rustls does not make one; openssl does if it is asked urgently.
pub(crate) fn tls11_hello(alpn: &[String]) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
    let names = alpn.join(",");
    if !alpn.is_empty() {
        arguments.extend(["-alpn", &names]);
    }
    let mut openssl = Command::new(openssl_path().expect("openssl is needed for a hello of TLS 1.1"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hello = vec![0; 5];
    stream.read_exact(&mut hello).unwrap();
    hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
    stream.read_exact(&mut hello[5..]).unwrap();
    drop(stream);
    openssl.wait().unwrap();
    // legacy_version, the only place where a version of before 1.3 is named.
    assert_eq!(hello[9..11], [3, 2], "a hello of TLS 1.1");
    hello
}
