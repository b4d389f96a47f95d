//! What a server that knows CONNECT only must answer to a client that breaks HTTP/2, by section of RFC 9113.

use portcullis_hbone::ConnectRefusal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::timeout;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect, field, frame,
    preface,
};
use crate::serving::{PATIENCE, serve};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const PADDED: u8 = 8;

/// HPACK: `:method: GET`, `:path: /`, `:scheme: https` of the static table.
const GET: &[u8] = &[0x82, 0x84, 0x87];

/// How a server may object.
#[derive(Debug, Eq, PartialEq)]
enum Answer {
    /// GOAWAY with this code, or the end of the connection.
    Connection(u32),
    /// RST_STREAM with this code.
    Stream(u32),
    /// Status 400.
    BadRequest,
    /// PING answered, and nothing else: all is well.
    Nothing,
}

impl Answer {
    /// Whether it is as much as the rule asks for. Any objection may be one to the whole connection, and PROTOCOL_ERROR stands for any
    /// other code (5.4, 7).
    fn is_enough(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Connection(_), Connection(_) | Stream(_)) => true,
            (seen, expected) => seen == expected,
        }
    }
}

use Answer::{BadRequest, Connection, Nothing, Stream};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// A request with this header block.
fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

fn block(fields: &[(u8, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(*name, value.as_bytes())).collect()
}

/// A field whose name is no number.
fn named(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(name.len()).unwrap()];
    field.extend(name.as_bytes());
    field.push(u8::try_from(value.len()).unwrap());
    field.extend(value.as_bytes());
    field
}

/// The answer of a server that accepts each CONNECT to an address, and then waits.
async fn answer(bytes: &[u8]) -> Answer {
    let (ours, theirs) = duplex(1024 * 1024);
    let _serving = serve(ours, |request| async move {
        if request.target.is_err() {
            request.refuse(ConnectRefusal::BadRequest);
        } else if let Ok(_stream) = request.accept() {
            std::future::pending::<()>().await;
        }
    });
    let (mut reading, mut writing) = tokio::io::split(theirs);
    let probe = frame(PING, 0, 0, b"a probe!");
    let _closed = writing.write_all(&[preface(), bytes.to_vec(), probe.clone()].concat()).await;
    // Answers of streams come from other tasks, which have had their turn when some round trips are over.
    let mut probes = 10;
    let read = async {
        let mut found = Nothing;
        loop {
            let mut head = [0; 9];
            if reading.read_exact(&mut head).await.is_err() {
                return Connection(0);
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            reading.read_exact(&mut payload).await.unwrap();
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match head[3] {
                GOAWAY => return Connection(code(4)),
                // NO_ERROR behind an answer says only that the rest of the request is not wanted (8.1).
                RST_STREAM if found != BadRequest || code(0) != 0 => found = Stream(code(0)),
                // 400 is number 12 of the static table.
                HEADERS if payload.first() == Some(&0x8c) => found = BadRequest,
                PING if payload == b"a probe!" => {
                    probes -= 1;
                    if probes == 0 {
                        return found;
                    }
                    let _closed = writing.write_all(&probe).await;
                }
                _ => {}
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer, or the end")
}

#[tokio::test]
async fn rules_of_frames() {
    let cases: &[(&str, Vec<u8>, Answer)] = &[
        ("4.1 a frame of a type that nobody knows is ignored", frame(0xbe, 0xff, 1, b"what"), Nothing),
        (
            "4.2 a frame beyond the size that was said",
            frame(DATA, 0, 0, &vec![0; 70_000]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "4.3 a header block that cannot be decompressed",
            request(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Connection(COMPRESSION_ERROR),
        ),
        ("5.1 DATA on an idle stream", frame(DATA, 0, 1, b"x"), Connection(PROTOCOL_ERROR)),
        ("5.1 RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("5.1 WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Connection(PROTOCOL_ERROR)),
        (
            "5.1 DATA behind END_STREAM",
            [connect(1), frame(DATA, END_STREAM, 1, b"x"), frame(DATA, 0, 1, b"x")].concat(),
            Stream(STREAM_CLOSED),
        ),
        ("5.1.1 an even stream of a client", connect(2), Connection(PROTOCOL_ERROR)),
        ("5.1.1 streams that go backwards", [connect(5), connect(3)].concat(), Connection(PROTOCOL_ERROR)),
        ("6.1 DATA on stream 0", frame(DATA, 0, 0, b"x"), Connection(PROTOCOL_ERROR)),
        (
            "6.1 more padding than payload",
            [connect(1), frame(DATA, PADDED, 1, &[9, 0])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.2 HEADERS on stream 0", connect(0), Connection(PROTOCOL_ERROR)),
        ("6.3 PRIORITY of another length", frame(PRIORITY, 0, 1, &[0; 4]), Stream(FRAME_SIZE_ERROR)),
        (
            "6.4 RST_STREAM of another length",
            [connect(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Connection(PROTOCOL_ERROR)),
        ("6.5 SETTINGS of another length", frame(SETTINGS, 0, 0, &[0; 5]), Connection(FRAME_SIZE_ERROR)),
        ("6.5 an acknowledgement with content", frame(SETTINGS, ACK, 0, &[0; 6]), Connection(FRAME_SIZE_ERROR)),
        ("6.5.2 ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), Connection(PROTOCOL_ERROR)),
        ("6.5.2 a window beyond 2^31-1", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Connection(FLOW_CONTROL_ERROR)),
        ("6.5.2 a frame size below 2^14", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), Connection(PROTOCOL_ERROR)),
        ("6.5.2 a setting that nobody knows is ignored", frame(SETTINGS, 0, 0, &[0xbe, 0xef, 0, 0, 0, 0]), Nothing),
        (
            "6.6 PUSH_PROMISE of a client",
            [connect(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.7 PING of another length", frame(PING, 0, 0, &[0; 7]), Connection(FRAME_SIZE_ERROR)),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.9 an increment of 0 for the connection", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("6.9 WINDOW_UPDATE of another length", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Connection(FRAME_SIZE_ERROR)),
        (
            "6.9.1 a window beyond 2^31-1",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Connection(FLOW_CONTROL_ERROR),
        ),
        ("6.10 CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &[]), Connection(PROTOCOL_ERROR)),
        (
            "6.10 another frame inside of a header block",
            [frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
    ];
    check(cases).await;
}

#[tokio::test]
async fn rules_of_requests() {
    let connect_with =
        |more: &[u8]| request(1, &[block(&[(2, "CONNECT"), (1, "10.0.0.7:80")]), more.to_vec()].concat());
    let cases: &[(&str, Vec<u8>, Answer)] = &[
        ("8.5 CONNECT with :authority alone", connect(1), Nothing),
        ("8.5 CONNECT with :scheme and :path", connect_with(&GET[1..]), Stream(PROTOCOL_ERROR)),
        ("8.5 CONNECT without :authority", request(1, &block(&[(2, "CONNECT")])), BadRequest),
        (
            "8.5 trailers are no bytes of the tunnel",
            [connect(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &named("x", "y"))].concat(),
            Nothing,
        ),
        (
            "8.5 a second header block without an end",
            [connect(1), frame(HEADERS, END_HEADERS, 1, &named("x", "y"))].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "8.1.1 a content-length that is wrong",
            [connect_with(&named("content-length", "5")), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("8.2 a name with a capital letter", connect_with(&named("X-Y", "z")), Stream(PROTOCOL_ERROR)),
        ("8.2.2 Connection of HTTP/1", connect_with(&named("connection", "close")), Stream(PROTOCOL_ERROR)),
        ("8.2.2 TE that is not trailers", connect_with(&named("te", "gzip")), Stream(PROTOCOL_ERROR)),
        ("8.3 a pseudo-header that nobody knows", connect_with(&named(":what", "x")), Stream(PROTOCOL_ERROR)),
        ("8.3 a pseudo-header of an answer", connect_with(&[0x88]), Stream(PROTOCOL_ERROR)),
        (
            "8.3 a pseudo-header behind a field",
            connect_with(&[named("x", "y"), field(1, b"10.0.0.8:80")].concat()),
            Stream(PROTOCOL_ERROR),
        ),
        ("8.3 a pseudo-header twice", connect_with(&field(1, b"10.0.0.8:80")), Stream(PROTOCOL_ERROR)),
        ("8.3.1 GET without :path", request(1, &[GET[0], GET[2]]), BadRequest),
        ("8.3.1 GET", request(1, &[GET, &field(1, b"10.0.0.7:80")].concat()), BadRequest),
    ];
    check(cases).await;
}

/// All that differ, in one list.
async fn check(cases: &[(&str, Vec<u8>, Answer)]) {
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let seen = answer(bytes).await;
        if !seen.is_enough(expected) {
            wrong.push(format!("{name}: {seen:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
