//! Words that describe every connection.

use serde::{Deserialize, Serialize};

/// Which side of a connection the sidecar is on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A peer connected to the workload.
    Inbound,
    /// The workload connected to a peer.
    Outbound,
}

/// How the bytes of a connection were carried.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Transport {
    /// Mutual TLS, with a verified identity of the peer.
    #[serde(rename = "mtls")]
    Mtls,
    /// TLS of the client that is not the mesh's, or TLS to a server outside of the mesh.
    #[serde(rename = "tls")]
    Tls,
    /// No TLS.
    #[serde(rename = "plaintext")]
    Plaintext,
    /// The connection ended before that was known.
    #[default]
    #[serde(other, rename = "-")]
    Unknown,
}

impl Direction {
    /// `inbound` or `outbound`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl Transport {
    /// The word in logs: `mtls`, `tls`, `plaintext` or `-`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Tls => "tls",
            Self::Plaintext => "plaintext",
            Self::Unknown => "-",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_newer_sidecar_are_unknown_and_no_error() {
        let word = |word: &str| serde_json::from_str::<Transport>(&format!("\"{word}\"")).unwrap();
        assert_eq!(
            ["mtls", "tls", "plaintext", "-", "hbone"].map(word),
            [Transport::Mtls, Transport::Tls, Transport::Plaintext, Transport::Unknown, Transport::Unknown]
        );
    }

    #[test]
    fn the_words_of_json_are_those_of_the_logs() {
        for transport in [Transport::Mtls, Transport::Tls, Transport::Plaintext, Transport::Unknown] {
            assert_eq!(serde_json::to_value(transport).unwrap(), transport.as_str());
        }
        for direction in [Direction::Inbound, Direction::Outbound] {
            assert_eq!(serde_json::to_value(direction).unwrap(), direction.as_str());
        }
    }
}
