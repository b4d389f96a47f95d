//! The parser of ClientHellos, on real ones: whole, as they nearly always arrive, and byte by byte, as an attacker may
//! send them. The latter must cost a constant for each byte more, not for each byte what has come before.
#![allow(clippy::unwrap_used, reason = "a bench that cannot set its scene has failed")]

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use portcullis_testkit::KeyKind;
use portcullis_tls::client;
use portcullis_wire::{HelloParser, Opening};
use support::Mesh;
use tokio::io::AsyncReadExt;

/// As openssl's client sent it; no mesh name in it.
const OPENSSL: &[u8] = include_bytes!("../../crates/wire/tests/data/openssl-hello.bin");

/// What our own client sends first: a mesh hello with a post-quantum key share.
fn ours() -> Vec<u8> {
    let mesh = Mesh::new(KeyKind::P256);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let mut hello = vec![0; 64 * 1024];
        let length = tokio::select! {
            _ = client::connect(near, &mesh.web, &mesh.expected, None) => 0,
            read = far.read(&mut hello) => read.unwrap(),
        };
        hello.truncate(length);
        hello
    })
}

fn opening<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> Opening {
    let mut parser = HelloParser::new();
    pieces.for_each(|piece| drop(parser.push(piece)));
    parser.at_end()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("client_hello");
    for (name, hello, expected) in
        [("ours", ours(), Opening::MeshTls), ("openssl", OPENSSL.to_vec(), Opening::ForeignTls)]
    {
        assert_eq!(opening(std::iter::once(&hello[..])), expected);
        assert_eq!(opening(hello.chunks(1)), expected);
        group.throughput(Throughput::Bytes(hello.len().try_into().unwrap()));
        group.bench_function(format!("{name}, whole"), |bencher| {
            bencher.iter(|| opening(std::iter::once(black_box(&hello[..]))));
        });
        group.bench_function(format!("{name}, byte by byte"), |bencher| {
            bencher.iter(|| opening(black_box(&hello).chunks(1)));
        });
    }
    group.finish();
    criterion.final_summary();
}
