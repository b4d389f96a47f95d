//! A byte pattern derived from connection, direction and position. A byte that is lost, repeated, moved, swapped between
//! connections or altered is detected at the first wrong byte.

use std::fmt;
use std::io;

use aws_lc_rs::digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Length of the digest that an app sends of all that it has received.
pub(crate) const DIGEST: usize = 32;
const CHUNK: usize = 16 * 1024;

/// Direction of the bytes, seen from the client.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What went wrong with a stream.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A byte that should not be there.
    Corrupt(String),
    /// An end before the end.
    Short(String),
    /// An end before anything.
    Empty,
    /// An error of the socket.
    Io(io::Error),
    /// Nothing happened for too long.
    Late,
}

impl Fault {
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(what) => write!(f, "corrupt: {what}"),
            Self::Short(what) => write!(f, "ended early: {what}"),
            Self::Empty => f.write_str("ended without a byte"),
            Self::Io(error) => write!(f, "{:?}", error.kind()),
            Self::Late => f.write_str("nothing came in time"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One direction of one connection, at a position, and the digest of all before it.
pub(crate) struct Bytes {
    key: u64,
    at: u64,
    digest: digest::Context,
}

impl Bytes {
    pub(crate) fn new(seed: u64, direction: Direction) -> Self {
        let salt = match direction {
            Direction::Up => 0x5eed_0001,
            Direction::Down => 0x5eed_0002,
        };
        Self { key: mix(seed ^ mix(salt)), at: 0, digest: digest::Context::new(&digest::SHA256) }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.at
    }

    pub(crate) fn digest(&self) -> [u8; DIGEST] {
        self.digest.clone().finish().as_ref().try_into().unwrap()
    }

    fn fill(&mut self, out: &mut [u8]) {
        let mut rest = &mut *out;
        while !rest.is_empty() {
            let word = mix(self.key.wrapping_add(self.at / 8)).to_le_bytes();
            let from = usize::try_from(self.at % 8).unwrap();
            let length = (8 - from).min(rest.len());
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&word[from..from + length]);
            self.at += u64::try_from(length).unwrap();
            rest = later;
        }
        self.digest.update(out);
    }

    fn check(&mut self, got: &[u8]) -> Result<(), Fault> {
        let began = self.at;
        let mut expected = vec![0; got.len()];
        self.fill(&mut expected);
        match expected.iter().zip(got).position(|(one, other)| one != other) {
            None => Ok(()),
            Some(index) => Err(Fault::Corrupt(format!(
                "byte {} of {} is {:#04x} instead of {:#04x}",
                began + u64::try_from(index).unwrap(),
                began + u64::try_from(got.len()).unwrap(),
                got[index],
                expected[index],
            ))),
        }
    }

    /// Sends the next `length` bytes.
    pub(crate) async fn send(&mut self, to: &mut (impl AsyncWrite + Unpin), length: u64) -> Result<(), Fault> {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(length).unwrap())];
        let mut left = usize::try_from(length).unwrap();
        while left > 0 {
            let part = left.min(CHUNK);
            self.fill(&mut chunk[..part]);
            to.write_all(&chunk[..part]).await?;
            left -= part;
        }
        Ok(())
    }

    /// Receives the next `length` bytes, each of which must be right.
    pub(crate) async fn receive(&mut self, from: &mut (impl AsyncRead + Unpin), length: u64) -> Result<(), Fault> {
        let mut left = usize::try_from(length).unwrap();
        let mut chunk = vec![0; CHUNK.min(left)];
        while left > 0 {
            let most = left.min(CHUNK);
            let read = self.receive_some(from, &mut chunk[..most]).await?;
            if read == 0 && self.at == 0 {
                return Err(Fault::Empty);
            }
            if read == 0 {
                return Err(Fault::Short(format!("at {}, {left} bytes are missing", self.at)));
            }
            left -= read;
        }
        Ok(())
    }

    /// Receives what there is; 0 at the end.
    pub(crate) async fn receive_some(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        chunk: &mut [u8],
    ) -> Result<usize, Fault> {
        let read = from.read(chunk).await?;
        self.check(&chunk[..read])?;
        Ok(read)
    }
}

/// The end of a direction, and nothing before it.
pub(crate) async fn expect_end(from: &mut (impl AsyncRead + Unpin)) -> Result<(), Fault> {
    match from.read(&mut [0; 1]).await? {
        0 => Ok(()),
        _ => Err(Fault::Corrupt("a byte behind the last one".to_owned())),
    }
}

/// The peer's digest of what we sent.
pub(crate) async fn expect_digest(from: &mut (impl AsyncRead + Unpin), sent: &Bytes) -> Result<(), Fault> {
    let mut said = [0; DIGEST];
    from.read_exact(&mut said).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Empty,
        _ => Fault::Io(error),
    })?;
    if said == sent.digest() {
        return Ok(());
    }
    Err(Fault::Corrupt("what arrived has another SHA-256 than what was sent".to_owned()))
}

/// splitmix64.
const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u64, direction: Direction, length: usize) -> Vec<u8> {
        let mut all = vec![0; length];
        Bytes::new(seed, direction).fill(&mut all);
        all
    }

    #[test]
    fn the_same_bytes_come_in_whatever_pieces() {
        let whole = bytes(7, Direction::Up, 1000);
        let mut receiver = Bytes::new(7, Direction::Up);
        for piece in whole.chunks(13) {
            receiver.check(piece).unwrap();
        }
        let mut sender = Bytes::new(7, Direction::Up);
        sender.fill(&mut [0; 1000]);
        assert_eq!(receiver.digest(), sender.digest());
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let whole = bytes(7, Direction::Up, 1000);
        let seen = |damaged: &[u8]| Bytes::new(7, Direction::Up).check(damaged).is_err();
        assert!(!seen(&whole));
        let mut flipped = whole.clone();
        flipped[999] ^= 1;
        assert!(seen(&flipped));
        assert!(seen(&whole[1..]), "lost");
        assert!(seen(&[&whole[..8], &whole[..992]].concat()), "repeated");
        assert!(seen(&bytes(8, Direction::Up, 1000)), "of another connection");
        assert!(seen(&bytes(7, Direction::Down, 1000)), "of the other direction");
    }
}
