//! The first bytes of a connection, from any client.
//!
//! - However the bytes are cut, the answer is the same, and once there is one it stays.
//! - What does not begin like TLS is plaintext; what rustls takes for a ClientHello is never called plaintext, and both
//!   see the same ALPN names, as far as "is there a mesh name" goes.
//! - What is kept for logs is short and printable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_wire::{HANDSHAKE_RECORD, HelloInfo, HelloParser, Opening, Progress, classify, is_mesh_alpn};
use rustls::server::Acceptor;

// The first two bytes say how the rest is cut.
fuzz_target!(|input: &[u8]| {
    let [first, step, bytes @ ..] = input else { return };
    let mut whole = HelloParser::new();
    let progress = whole.push(bytes);
    let opening = whole.at_end();
    assert_eq!(classify(bytes), opening);

    let mut cut = HelloParser::new();
    let mut answer = Progress::NeedMore;
    let mut rest = bytes;
    let mut size = usize::from(*first) + 1;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        let next = cut.push(piece);
        assert!(answer == Progress::NeedMore || answer == next, "the answer changed from {answer:?} to {next:?}");
        answer = next;
        rest = after;
        size = (size + usize::from(*step)) % 1500 + 1;
    }
    assert_eq!((answer, cut.at_end()), (progress.clone(), opening));

    match bytes.first() {
        None => assert_eq!(opening, Opening::Silent),
        Some(&byte) if byte != HANDSHAKE_RECORD => assert_eq!(opening, Opening::Plain),
        Some(_) => {}
    }
    if let Progress::Hello(info) = &progress {
        small_and_printable(info);
    }
    if let Some(mesh) = rustls_sees_a_mesh_name(bytes) {
        match progress {
            Progress::Hello(info) => assert_eq!(info.has_mesh_alpn, mesh),
            // Stricter than rustls is fine: nothing of it is forwarded.
            Progress::Malformed => {}
            Progress::NeedMore | Progress::NotTls => panic!("{progress:?} for a hello that rustls takes"),
        }
    }
});

fn small_and_printable(info: &HelloInfo) {
    let short =
        |text: &String, most: usize| text.len() <= most && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    // Every byte of a name may have become an escape of four.
    assert!(info.alpn.len() <= 8 && info.alpn.iter().all(|name| short(name, 4 * 32)), "{info:?}");
    assert!(info.sni.iter().all(|name| short(name, 253)), "{info:?}");
}

/// `None` if rustls does not take the bytes for a whole ClientHello.
fn rustls_sees_a_mesh_name(mut bytes: &[u8]) -> Option<bool> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(hello.alpn().is_some_and(|mut names| names.any(is_mesh_alpn)));
            }
            Err(_) => return None,
        }
    }
    None
}
