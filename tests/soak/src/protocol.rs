//! The header that a client sends first: it tells the app how the connection proceeds.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pattern::Fault;

const MAGIC: [u8; 4] = *b"SOAK";
const LENGTH: usize = 32;
/// Longest wait for anything on a connection that is not meant to stand still.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// `up` bytes, then digest and `down` bytes, then the client ends and the app after it.
    Exchange = 0,
    /// The same, and the app ends its direction first.
    AppEnds = 1,
    /// Whatever comes is answered by as many bytes, until the client ends; then the digest.
    Pulse = 2,
    /// `up` and `down` at the same time, then the digest.
    Duplex = 3,
    /// `down` bytes at once; the client does not read.
    Flood = 4,
    /// The app does not read until the command `resume`; then `up` bytes and the digest.
    Stall = 5,
    /// `down` bytes and the app's end at once; `up` bytes only after that.
    EarlyEnd = 6,
    /// `up` bytes, half of `down`, and the app resets.
    AppResets = 7,
    /// Half of `up`, and the client resets.
    ClientResets = 8,
}

const KINDS: [Kind; 9] = [
    Kind::Exchange,
    Kind::AppEnds,
    Kind::Pulse,
    Kind::Duplex,
    Kind::Flood,
    Kind::Stall,
    Kind::EarlyEnd,
    Kind::AppResets,
    Kind::ClientResets,
];

/// The first bytes of every connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// How the client thinks that it gets there: a letter, by which the app counts.
    pub(crate) tag: u8,
    pub(crate) seed: u64,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Header {
    fn encode(&self) -> [u8; LENGTH] {
        let numbers = [self.seed, self.up, self.down].map(u64::to_be_bytes).concat();
        [&MAGIC[..], &[self.kind as u8, self.tag, 0, 0], &numbers].concat().try_into().unwrap()
    }

    fn decode(bytes: &[u8; LENGTH]) -> Result<Self, Fault> {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == bytes[4]);
        match kind {
            Some(kind) if bytes[..4] == MAGIC => {
                Ok(Self { kind, tag: bytes[5], seed: number(8), up: number(16), down: number(24) })
            }
            _ => Err(Fault::Corrupt(format!("a header begins with {:?}", &bytes[..6]))),
        }
    }

    pub(crate) async fn write(&self, to: &mut TcpStream) -> Result<(), Fault> {
        Ok(to.write_all(&self.encode()).await?)
    }

    pub(crate) async fn read(from: &mut TcpStream) -> Result<Self, Fault> {
        let mut bytes = [0; LENGTH];
        from.read_exact(&mut bytes).await?;
        Self::decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_out_as_it_went_in() {
        for kind in KINDS {
            let header = Header { kind, tag: b'm', seed: 1, up: 2, down: u64::MAX };
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
        assert!(Header::decode(b"GET / HTTP/1.1\r\nHost: app.shop\r\n").is_err());
    }
}
