//! What one connection showed.

use rustls::AlertDescription;
use rustls_pki_types::CertificateDer;

/// What one connection showed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observation {
    /// The certificates that the server presented.
    pub presented: Vec<CertificateDer<'static>>,
    /// The handshake, if it was complete from the client's point of view.
    pub handshake: Option<Handshake>,
    /// The first bytes that came back: decrypted ones after a handshake, else as they came.
    pub bytes: Vec<u8>,
    /// How far the client was when it ended.
    pub stage: Stage,
    /// How it ended.
    pub end: End,
}

impl Observation {
    pub(crate) const fn ended(stage: Stage, end: End) -> Self {
        Self { presented: Vec::new(), handshake: None, bytes: Vec::new(), stage, end }
    }
}

/// A handshake as the client sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Handshake {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// A session was continued.
    pub resumed: bool,
    /// Early data was offered, and whether the server accepted it; `None`: nothing allowed to offer it.
    pub early_data: Option<bool>,
}

/// How far the client was.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Connected, and nothing sent; or in the handshake.
    Opening,
    /// One byte of plaintext was sent.
    FirstByte,
    /// The request was sent.
    Request,
    /// Our direction was ended.
    HalfClosed,
}

/// How a connection ended, for the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// It could not be made.
    NotConnected(String),
    /// The server sent an alert.
    Alert(AlertDescription),
    /// The server ended it with close_notify.
    CloseNotify,
    /// The server ended it (FIN).
    Closed,
    /// The server reset it.
    Reset,
    /// It was open until the deadline.
    Silent,
    /// There was an answer, which was enough.
    Answered,
    /// The server answered a hello with a hello of this version.
    ServerHello(u16),
    /// The answer to a hello is no TLS.
    NotTls,
    /// The answer breaks the protocol.
    Broken(String),
}
