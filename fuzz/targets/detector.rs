//! The first bytes of a connection on their way through the detector, which the proxy decides by.
//!
//! - However they arrive, and however often waiting for them is broken off, the opening is the one that the whole bytes
//!   have, and no byte is lost or taken twice: what was seen and what was not yet read are the input.
//! - Where all TLS is terminated, what begins like TLS is never called plaintext.
#![no_main]

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use portcullis_net::{Detector, Sniff};
use portcullis_wire::{HANDSHAKE_RECORD, Opening, classify};
use tokio::io::{AsyncRead, ReadBuf};

/// Gives pieces of growing size, and nothing at all before each `pauses`th of them.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
    step: usize,
    pauses: usize,
    reads: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reads += 1;
        if self.reads % (self.pauses + 2) == 0 {
            return Poll::Pending;
        }
        let (piece, rest) = self.rest.split_at(self.size.min(self.rest.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.rest = rest;
        self.size = (self.size + self.step) % 3000 + 1;
        Poll::Ready(Ok(()))
    }
}

// The first three bytes say how the rest arrives.
fuzz_target!(|input: &[u8]| {
    let [size, step, pauses, bytes @ ..] = input else { return };
    for sniff in [Sniff::Hello, Sniff::FirstByte] {
        let (size, step) = (usize::from(*size) + 1, usize::from(*step));
        let mut io = Pieces { rest: bytes, size, step, pauses: usize::from(*pauses % 8), reads: 0 };
        let mut detector = Detector::new(sniff);
        // Each round is a future of its own: one that is not ready is dropped.
        while pin!(detector.run(&mut io)).poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
        let found = detector.finish();
        assert_eq!([&found.seen, io.rest].concat(), bytes);
        assert!(!found.eof || io.rest.is_empty());
        match sniff {
            Sniff::Hello => assert_eq!(found.opening, classify(bytes)),
            Sniff::FirstByte => match bytes.first() {
                None => assert_eq!(found.opening, Opening::Silent),
                Some(first) => assert_eq!(found.opening == Opening::Plain, *first != HANDSHAKE_RECORD),
            },
        }
    }
});
