//! Detects a ClientHello in the first bytes of a connection, however they are split.
//!
//! The rule, in the order in which bytes arrive: each record header is `0x16, 3, any` and a length of 1 to 16,384; the
//! message inside, which may span any number of records, has type 1 and a length of up to 65,536. The first byte that
//! contradicts this is decisive: the connection is not TLS. So is a complete message. Until then, more is needed.
//! Each byte is processed once, so every way of splitting the same bytes gives the same result, and the total work is
//! linear in their number.

use crate::body::{self, HelloInfo};
use crate::opening::Opening;

/// Content type of a TLS record that carries handshake messages. The first byte of every TLS connection, and of no
/// plaintext protocol in use.
pub const HANDSHAKE_RECORD: u8 = 0x16;

/// Longest fragment of a plaintext TLS record (RFC 8446, 5.1).
const MAX_RECORD: u16 = 16_384;
/// Longest accepted ClientHello message.
const MAX_MESSAGE: usize = 65_536;
const MAJOR_VERSION: u8 = 3;
const CLIENT_HELLO: u8 = 1;
/// Type and 24-bit length in front of a handshake message.
const MESSAGE_HEADER: usize = 4;

/// The result of [`HelloParser::push`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// The bytes so far are a prefix of a ClientHello (possibly an empty one).
    NeedMore,
    /// Some byte contradicts a ClientHello: this is not TLS.
    NotTls,
    /// A whole ClientHello message, whose body does not parse.
    Malformed,
    /// A whole ClientHello.
    Hello(HelloInfo),
}

impl Progress {
    /// The classification, once it is final.
    #[must_use]
    pub const fn opening(&self) -> Option<Opening> {
        match self {
            Self::NeedMore => None,
            Self::NotTls => Some(Opening::Plain),
            Self::Malformed => Some(Opening::Malformed),
            Self::Hello(HelloInfo { has_mesh_alpn: true, .. }) => Some(Opening::MeshTls),
            Self::Hello(_) => Some(Opening::ForeignTls),
        }
    }
}

/// An incremental ClientHello parser. Feed it the bytes of a connection from the first one on, in pieces of any size.
#[derive(Debug, Default)]
pub struct HelloParser {
    record: Record,
    /// The handshake message so far, header included, without record headers. Grows with what arrives.
    message: Vec<u8>,
    started: bool,
    /// The final result, once there is one.
    settled: Option<Progress>,
}

/// Where in a record the next byte belongs.
#[derive(Debug, Default)]
enum Record {
    #[default]
    Type,
    Major,
    Minor,
    LengthHigh,
    LengthLow {
        high: u8,
    },
    Content {
        left: u16,
    },
}

impl HelloParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Processes the next bytes. Bytes after the final result are ignored.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        self.started |= !bytes.is_empty();
        if self.settled.is_none() {
            self.settled = self.advance(bytes);
            if self.settled.is_some() {
                self.message = Vec::new();
            }
        }
        self.settled.clone().unwrap_or(Progress::NeedMore)
    }

    /// The classification if no more bytes will arrive, because of a FIN or a deadline.
    #[must_use]
    pub fn at_end(&self) -> Opening {
        match self.settled.as_ref().and_then(Progress::opening) {
            Some(opening) => opening,
            None if self.started => Opening::Incomplete,
            None => Opening::Silent,
        }
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Option<Progress> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Record::Content { left } = self.record {
                let (fragment, after) = bytes.split_at_checked(left.into()).unwrap_or((bytes, &[]));
                let used = u16::try_from(fragment.len()).unwrap_or(left);
                self.record = match left.saturating_sub(used) {
                    0 => Record::Type,
                    left => Record::Content { left },
                };
                if let Some(settled) = self.content(fragment) {
                    return Some(settled);
                }
                bytes = after;
            } else {
                let Some(next) = self.record.header(byte) else {
                    return Some(Progress::NotTls);
                };
                self.record = next;
                bytes = rest;
            }
        }
        None
    }

    /// Takes handshake bytes, record headers already removed.
    fn content(&mut self, mut fragment: &[u8]) -> Option<Progress> {
        while self.message.len() < MESSAGE_HEADER {
            let (&byte, rest) = fragment.split_first()?;
            self.message.push(byte);
            if !plausible_header(&self.message) {
                return Some(Progress::NotTls);
            }
            fragment = rest;
        }
        let whole = MESSAGE_HEADER + self.body_length();
        let missing = whole.saturating_sub(self.message.len());
        // The TLS stack handles what follows the message in the record.
        self.message.extend_from_slice(fragment.get(..missing).unwrap_or(fragment));
        if self.message.len() < whole {
            return None;
        }
        let body = self.message.get(MESSAGE_HEADER..).unwrap_or_default();
        Some(body::parse(body).map_or(Progress::Malformed, Progress::Hello))
    }

    /// The message length that a whole header claims; at most [`MAX_MESSAGE`], as `plausible_header` has checked.
    fn body_length(&self) -> usize {
        self.message.iter().take(MESSAGE_HEADER).skip(1).fold(0, |length, &byte| length << 8 | usize::from(byte))
    }
}

impl Record {
    /// The state after one more header byte; `None` if no ClientHello's record has that byte there.
    fn header(&self, byte: u8) -> Option<Self> {
        match *self {
            Self::Type => (byte == HANDSHAKE_RECORD).then_some(Self::Major),
            Self::Major => (byte == MAJOR_VERSION).then_some(Self::Minor),
            Self::Minor => Some(Self::LengthHigh),
            Self::LengthHigh => (u16::from_be_bytes([byte, 0]) <= MAX_RECORD).then_some(Self::LengthLow { high: byte }),
            Self::LengthLow { high } => {
                let left = u16::from_be_bytes([high, byte]);
                (1..=MAX_RECORD).contains(&left).then_some(Self::Content { left })
            }
            Self::Content { left } => Some(Self::Content { left }),
        }
    }
}

/// Whether the one to four bytes can begin a ClientHello message: the least value that they can still stand for must be
/// within bounds.
fn plausible_header(header: &[u8]) -> bool {
    let mut bytes = header.iter();
    if bytes.next() != Some(&CLIENT_HELLO) {
        return false;
    }
    let least = [16, 8, 0].into_iter().zip(bytes).fold(0, |length, (shift, &byte)| length | usize::from(byte) << shift);
    least <= MAX_MESSAGE
}

/// Classifies a connection that consists of exactly these bytes.
#[must_use]
pub fn classify(bytes: &[u8]) -> Opening {
    let mut parser = HelloParser::new();
    parser.push(bytes);
    parser.at_end()
}

#[cfg(test)]
mod tests;
