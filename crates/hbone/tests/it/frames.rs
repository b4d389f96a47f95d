//! HTTP/2 frames written by hand: what a peer sends that does not keep to the rules.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The client's preface, and settings that are all default.
pub(crate) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// A literal field without indexing, whose name is in HPACK's static table.
pub(crate) fn field(name: u8, value: &[u8]) -> Vec<u8> {
    [vec![name, u8::try_from(value.len()).unwrap()], value.to_vec()].concat()
}

/// The header block of a CONNECT: `:method` is number 2 of the static table, `:authority` number 1.
pub(crate) fn connect_block(authority: &str) -> Vec<u8> {
    [field(2, b"CONNECT"), field(1, authority.as_bytes())].concat()
}

pub(crate) fn connect(stream: u32) -> Vec<u8> {
    connect_to(stream, "10.0.0.7:80")
}

pub(crate) fn connect_to(stream: u32, authority: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &connect_block(authority))
}

/// Whether there is such a frame among whole frames.
pub(crate) fn contains(mut bytes: &[u8], kind: u8, stream: u32) -> bool {
    while let [a, b, c, found, _flags, w, x, y, z, rest @ ..] = bytes {
        if *found == kind && u32::from_be_bytes([*w, *x, *y, *z]) == stream {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        bytes = rest.get(length..).unwrap_or_default();
    }
    false
}

/// A header that is not in any table, with a value of so many bytes.
pub(crate) fn literal(name: &str, length: usize) -> Vec<u8> {
    let mut block = vec![0, u8::try_from(name.len()).unwrap()];
    block.extend(name.as_bytes());
    // HPACK's integers: a prefix of seven bits, then seven bits each.
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend(std::iter::repeat_n(b'x', length));
    block
}
