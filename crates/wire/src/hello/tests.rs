//! Hellos are built by hand here, byte by byte, so that the parser is not tested against a library's idea of one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::MESH_ALPN;

/// A ClientHello under construction; every part can be made wrong.
#[derive(Clone)]
struct Build {
    session_id: Vec<u8>,
    suites: Vec<u8>,
    compression: Vec<u8>,
    extensions: Option<Vec<(u16, Vec<u8>)>>,
    trailing: Vec<u8>,
}

fn hello() -> Build {
    Build {
        session_id: vec![7; 32],
        suites: vec![0x13, 0x01, 0x13, 0x02],
        compression: vec![0],
        // supported_versions: TLS 1.3
        extensions: Some(vec![(43, vec![2, 3, 4])]),
        trailing: Vec::new(),
    }
}

fn vec8(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

fn alpn_list(names: &[&[u8]]) -> Vec<u8> {
    vec16(&names.iter().flat_map(|name| vec8(name)).collect::<Vec<u8>>())
}

fn server_name_list(name: &[u8]) -> Vec<u8> {
    vec16(&[&[0][..], &vec16(name)].concat())
}

impl Build {
    fn extension(mut self, kind: u16, content: Vec<u8>) -> Self {
        self.extensions.get_or_insert_default().push((kind, content));
        self
    }

    fn alpn(self, names: &[&[u8]]) -> Self {
        self.extension(16, alpn_list(names))
    }

    fn sni(self, name: &[u8]) -> Self {
        self.extension(0, server_name_list(name))
    }

    /// Pads the whole message, header included, to `len` bytes with a padding extension.
    fn padded_to(self, len: usize) -> Self {
        let missing = len.checked_sub(self.message().len() + 4).unwrap();
        self.extension(21, vec![0; missing])
    }

    fn body(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([0xAB; 32]);
        body.extend(vec8(&self.session_id));
        body.extend(vec16(&self.suites));
        body.extend(vec8(&self.compression));
        if let Some(extensions) = &self.extensions {
            let block: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), vec16(content)].concat())
                .collect();
            body.extend(vec16(&block));
        }
        body.extend(&self.trailing);
        body
    }

    fn message(&self) -> Vec<u8> {
        message(1, &self.body())
    }

    /// The message in records of at most `size` bytes.
    fn records(&self, size: usize) -> Vec<u8> {
        records(&self.message(), size)
    }

    fn bytes(&self) -> Vec<u8> {
        self.records(16_384)
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

fn record(content: &[u8]) -> Vec<u8> {
    [&[0x16, 3, 1][..], &vec16(content)].concat()
}

fn parse(bytes: &[u8]) -> Progress {
    HelloParser::new().push(bytes)
}

fn info(bytes: &[u8]) -> HelloInfo {
    match parse(bytes) {
        Progress::Hello(info) => info,
        other => panic!("not a hello: {other:?}"),
    }
}

/// The answer after each byte has been pushed by itself.
fn dripped(bytes: &[u8]) -> Progress {
    let mut parser = HelloParser::new();
    let mut progress = Progress::NeedMore;
    for byte in bytes {
        progress = parser.push(std::slice::from_ref(byte));
    }
    progress
}

/// How many bytes are needed until the answer is settled.
fn settled_after(bytes: &[u8]) -> Option<usize> {
    let mut parser = HelloParser::new();
    bytes.iter().position(|byte| parser.push(std::slice::from_ref(byte)) != Progress::NeedMore).map(|at| at + 1)
}

#[test]
fn nothing_is_silent_and_a_prefix_is_incomplete() {
    assert_eq!(classify(b""), Opening::Silent);
    let whole = hello().alpn(&[b"istio"]).bytes();
    for end in 1..whole.len() {
        assert_eq!(parse(&whole[..end]), Progress::NeedMore, "after {end} bytes");
        assert_eq!(classify(&whole[..end]), Opening::Incomplete, "after {end} bytes");
    }
    assert_eq!(classify(&whole), Opening::MeshTls);
}

#[test]
fn any_first_byte_but_0x16_is_plaintext_at_once() {
    for first in (0..=255).filter(|&byte| byte != HANDSHAKE_RECORD) {
        assert_eq!(parse(&[first]), Progress::NotTls, "{first:#x}");
    }
    assert_eq!(parse(&[HANDSHAKE_RECORD]), Progress::NeedMore);
}

#[test]
fn the_first_contradicting_byte_settles_it() {
    let cases: [(&str, &[u8], usize); 12] = [
        ("text after 0x16", b"\x16hello", 2),
        ("major version 2", &[0x16, 2, 0], 2),
        ("major version 4", &[0x16, 4, 0], 2),
        ("record length 0xffff", &[0x16, 3, 1, 0xff, 0xff], 4),
        ("record length 0x4001", &[0x16, 3, 1, 0x40, 0x01], 5),
        ("record length 0x4140", &[0x16, 3, 1, 0x41, 0x40], 4),
        ("record length 0, then text", b"\x16\x03\x01\0\0GET /", 5),
        ("handshake type 2", &[0x16, 3, 1, 0, 9, 2], 6),
        ("message length 16 MiB", &[0x16, 3, 1, 0, 9, 1, 0xff, 0, 0], 7),
        ("message length 65,537", &[0x16, 3, 1, 0, 9, 1, 1, 0, 1], 9),
        ("message length 65,536 + 256", &[0x16, 3, 1, 0, 9, 1, 1, 1, 0], 8),
        ("second record is application data", &[0x16, 3, 1, 0, 1, 1, 0x17], 7),
    ];
    for (name, bytes, at) in cases {
        assert_eq!(parse(bytes), Progress::NotTls, "{name}");
        assert_eq!(settled_after(bytes), Some(at), "{name}");
    }
}

#[test]
fn every_later_record_header_is_checked() {
    let message = hello().message();
    let (head, tail) = message.split_at(20);
    for (name, header) in [
        ("alert", [0x15, 3, 1, 0, 2]),
        ("major version", [0x16, 2, 1, 0, 2]),
        ("empty", [0x16, 3, 3, 0, 0]),
        ("too long", [0x16, 3, 3, 0x40, 1]),
    ] {
        let bytes = [&record(head)[..], &header, tail].concat();
        assert_eq!(parse(&bytes), Progress::NotTls, "{name}");
    }
    // Any minor version will do, a different one too.
    let mut second = record(tail);
    second[2] = 9;
    assert_eq!(parse(&[record(head), second].concat()).opening(), Some(Opening::ForeignTls));
}

#[test]
fn message_lengths_up_to_64_kib_are_waited_for() {
    assert_eq!(parse(&[0x16, 3, 1, 0x40, 0, 1, 1, 0, 0]), Progress::NeedMore);
    let longest = hello().alpn(&[b"istio"]).padded_to(65_000);
    assert_eq!(longest.message().len(), 65_000);
    assert_eq!(classify(&longest.bytes()), Opening::MeshTls);
    // A body of 65,536 bytes cannot be well-formed beyond its extension block, but it is read to its end.
    let junk = records(&message(1, &[0; 65_536]), 16_384);
    assert_eq!(settled_after(&junk), Some(junk.len()));
    assert_eq!(parse(&junk), Progress::Malformed);
}

#[test]
fn records_of_every_small_size_and_one_byte_segments_change_nothing() {
    let hello = hello().sni(b"cart.shop").alpn(&[b"h2", b"istio"]).padded_to(1_800);
    let expected = parse(&hello.bytes());
    assert_eq!(expected.opening(), Some(Opening::MeshTls));
    for size in [1, 2, 3, 4, 5, 50, 64, 200, 1_799, 1_800] {
        assert_eq!(parse(&hello.records(size)), expected, "records of {size}");
        assert_eq!(dripped(&hello.records(size)), expected, "records of {size}, dripped");
    }
}

/// Six bytes on the wire for each byte of the message, each pushed alone: work that grows with the square of the length
/// would be about 10^11 steps here.
#[test]
fn dripping_the_longest_hello_in_one_byte_records_stays_linear() {
    let hello = hello().alpn(&[b"istio"]).padded_to(65_535);
    assert_eq!(dripped(&hello.records(1)).opening(), Some(Opening::MeshTls));
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut parser = HelloParser::new();
    assert_eq!(parser.push(&[0x16, 3, 1, 0x40, 0, 1, 1, 0, 0]), Progress::NeedMore);
    assert!(parser.message.capacity() <= 64, "{} bytes reserved", parser.message.capacity());
    parser.push(&[0; 1_000]);
    assert!(parser.message.capacity() <= 4_096, "{} bytes reserved", parser.message.capacity());
}

#[test]
fn a_settled_answer_stays_and_holds_no_bytes() {
    let mut parser = HelloParser::new();
    let settled = parser.push(&hello().alpn(&[b"istio"]).bytes());
    assert_eq!(parser.push(b"GET / HTTP/1.1\r\n"), settled);
    assert_eq!(parser.at_end(), Opening::MeshTls);
    assert_eq!(parser.message.capacity(), 0);
}

#[test]
fn what_follows_the_message_is_not_looked_at() {
    let mut bytes = records(&[hello().message(), vec![0xff; 100]].concat(), 16_384);
    assert_eq!(classify(&bytes), Opening::ForeignTls);
    bytes.extend(b"early data or anything else");
    assert_eq!(classify(&bytes), Opening::ForeignTls);
}

#[test]
fn each_mesh_name_counts_anywhere_in_the_list() {
    for name in MESH_ALPN {
        assert!(info(&hello().alpn(&[name]).bytes()).has_mesh_alpn);
        assert!(info(&hello().alpn(&[b"h2", b"http/1.1", name]).bytes()).has_mesh_alpn);
        assert!(info(&hello().alpn(&[name, b"x"]).bytes()).has_mesh_alpn);
    }
    // Beyond what is kept for logs.
    let mut many = vec![&b"h2"[..]; 50];
    many.push(b"istio-h2");
    let info = info(&hello().alpn(&many).bytes());
    assert!(info.has_mesh_alpn);
    assert_eq!(info.alpn, vec!["h2"; MAX_KEPT]);
}

/// How many ALPN names are kept for logs.
const MAX_KEPT: usize = 8;

/// What OpenSSL 3 sent for the names `istio-peer-exchange, istio`; made with its memory BIOs, nothing in it is secret.
#[test]
fn a_hello_of_openssl_reads_as_one() {
    let bytes = include_bytes!("../../tests/data/openssl-hello.bin");
    let info = info(bytes);
    assert!(info.has_mesh_alpn);
    assert_eq!(info.alpn, ["istio-peer-exchange", "istio"]);
    assert_eq!(info.sni.as_deref(), Some("cart.shop.svc.cluster.local"));
    assert_eq!(settled_after(bytes), Some(bytes.len()));
}

#[test]
fn lookalike_names_do_not_count() {
    for name in [
        &b"ISTIO"[..],
        b"Istio",
        b"istio ",
        b" istio",
        b"istio\0",
        b"istio-http/2",
        b"istio-h",
        b"istio-peer",
        b"isti",
        b"h2",
        b"http/1.1",
    ] {
        let bytes = hello().alpn(&[name]).bytes();
        assert_eq!(classify(&bytes), Opening::ForeignTls, "{}", name.escape_ascii());
    }
    assert_eq!(classify(&hello().bytes()), Opening::ForeignTls);
    // The name in another place than the ALPN extension says nothing.
    assert_eq!(classify(&hello().sni(b"istio").bytes()), Opening::ForeignTls);
    assert_eq!(classify(&hello().extension(13_172, alpn_list(&[b"istio"])).bytes()), Opening::ForeignTls);
}

#[test]
fn log_fields_are_bounded_and_printable() {
    let info = info(&hello().sni(b"cart.shop.svc").alpn(&[b"a\nb\xff", &[b'x'; 255]]).bytes());
    assert_eq!(info.sni.as_deref(), Some("cart.shop.svc"));
    assert_eq!(info.alpn, [r"a\nb\xff".to_owned(), "x".repeat(32)]);
    let longest = vec![b'a'; 253];
    assert!(self::info(&hello().sni(&longest).bytes()).sni.is_some());
    for name in [&[b'a'; 254][..], b"a b", b"a\nb", b"\xc3\xa4.example", b""] {
        assert_eq!(self::info(&hello().sni(name).bytes()).sni, None, "{}", name.escape_ascii());
    }
}

#[test]
fn hellos_of_old_and_odd_clients_are_hellos() {
    let mut old = hello();
    old.extensions = None;
    assert_eq!(classify(&old.bytes()), Opening::ForeignTls);
    old.extensions = Some(Vec::new());
    assert_eq!(classify(&old.bytes()), Opening::ForeignTls);
    old.session_id = Vec::new();
    old.compression = vec![0, 1];
    assert_eq!(classify(&old.bytes()), Opening::ForeignTls);
    let grease = hello().extension(0x0a0a, Vec::new()).extension(0x1a1a, vec![0]).alpn(&[b"\x0a\x0a", b"istio"]);
    assert_eq!(classify(&grease.bytes()), Opening::MeshTls);
}

#[test]
fn a_body_that_is_wrong_by_a_byte_is_malformed() {
    let wrong = |change: fn(&mut Build)| {
        let mut build = hello();
        change(&mut build);
        build
    };
    let cases = [
        ("session id of 33 bytes", wrong(|h| h.session_id = vec![0; 33])),
        ("no cipher suite", wrong(|h| h.suites = Vec::new())),
        ("half a cipher suite", wrong(|h| h.suites = vec![0x13, 1, 0x13])),
        ("no compression method", wrong(|h| h.compression = Vec::new())),
        ("a byte after the extensions", wrong(|h| h.trailing = vec![0])),
        ("two ALPN extensions", hello().alpn(&[b"h2"]).alpn(&[b"istio"])),
        ("two server_name extensions", hello().sni(b"a").sni(b"b")),
        ("empty ALPN extension", hello().extension(16, Vec::new())),
        ("empty ALPN list", hello().extension(16, vec![0, 0])),
        ("empty ALPN name", hello().alpn(&[b"istio", b""])),
        ("ALPN name beyond its list", hello().extension(16, vec![0, 3, 5, b'h', b'2'])),
        ("byte after the ALPN list", hello().extension(16, [alpn_list(&[b"istio"]), vec![0]].concat())),
        ("ALPN list beyond its extension", hello().extension(16, vec![0, 9, 2, b'h', b'2'])),
        ("empty server_name extension", hello().extension(0, Vec::new())),
        ("server name beyond its list", hello().extension(0, vec![0, 4, 0, 0, 9, b'a'])),
        ("byte after the server name list", hello().extension(0, [server_name_list(b"a"), vec![0]].concat())),
    ];
    for (name, build) in cases {
        assert_eq!(parse(&build.bytes()), Progress::Malformed, "{name}");
    }
    let body = hello().alpn(&[b"istio"]).body();
    // Ends inside each field; the two that are whole hellos are those without and with the extension block.
    let without_extensions = { Build { extensions: None, ..hello() }.body().len() };
    for end in (0..body.len()).filter(|&end| end != without_extensions) {
        assert_eq!(parse(&records(&message(1, &body[..end]), 16_384)), Progress::Malformed, "body cut at {end}");
    }
    assert_eq!(parse(&record(&message(1, b"junk that is no hello"))), Progress::Malformed);
}

/// A well-formed hello, or one with some of its bytes changed, cut off or extended.
fn near_hello() -> impl Strategy<Value = Vec<u8>> {
    let names = vec(prop_oneof![Just(b"istio".to_vec()), vec(any::<u8>(), 1..20)], 0..4);
    let mutations = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (names, vec(any::<u8>(), 0..40), 0_usize..600, mutations, any::<prop::sample::Index>(), 0_u8..4).prop_map(
        |(names, sni, pad, mutations, cut, keep)| {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            let mut build = hello().sni(&sni).extension(21, vec![0; pad]);
            if !names.is_empty() {
                build = build.alpn(&names);
            }
            let mut message = build.message();
            for (at, byte) in mutations {
                let at = at.index(message.len());
                message[at] = byte;
            }
            if keep == 0 {
                message.truncate(cut.index(message.len()));
            }
            message
        },
    )
}

/// Cuts `bytes` into pieces of the given sizes, over and over.
fn pieces<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

proptest! {
    /// TCP may cut anywhere: the answer, and the byte at which it is settled, are the same.
    #[test]
    fn the_answer_does_not_depend_on_segments(
        message in near_hello(),
        in_record in vec(1_usize..400, 1..5),
        flip in proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        in_segment in vec(1_usize..300, 1..6),
    ) {
        let mut bytes: Vec<u8> = pieces(&message, &in_record).into_iter().flat_map(record).collect();
        if let (Some((at, byte)), false) = (flip, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let expected = parse(&bytes);
        let mut parser = HelloParser::new();
        let mut progress = Progress::NeedMore;
        for piece in pieces(&bytes, &in_segment) {
            progress = parser.push(piece);
        }
        prop_assert_eq!(&progress, &expected);
        prop_assert_eq!(parser.at_end(), classify(&bytes));
        prop_assert_eq!(dripped(&bytes), expected);
    }

    /// TLS may cut the message into records anywhere: the answer is the same.
    #[test]
    fn the_answer_does_not_depend_on_records(message in near_hello(), in_record in vec(1_usize..400, 1..6)) {
        let one: Vec<u8> = records(&message, 16_384);
        let many: Vec<u8> = pieces(&message, &in_record).into_iter().flat_map(record).collect();
        prop_assert_eq!(parse(&many), parse(&one));
        prop_assert_eq!(classify(&many), classify(&one));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_change_a_settled_answer(bytes in vec(any::<u8>(), 0..600), split in any::<prop::sample::Index>()) {
        let (first, second) = bytes.split_at(split.index(bytes.len() + 1));
        let mut parser = HelloParser::new();
        let before = parser.push(first);
        let after = parser.push(second);
        if before != Progress::NeedMore {
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in vec(any::<u8>(), 0..300)) {
        let progress = parse(&record(&message(1, &body)));
        prop_assert!(matches!(progress, Progress::Malformed | Progress::Hello(_)));
    }
}
