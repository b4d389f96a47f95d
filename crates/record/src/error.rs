//! What ends a connection.

use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved};

/// Alert levels (RFC 8446, section 6).
pub(crate) const LEVEL_WARNING: u8 = 1;
pub(crate) const LEVEL_FATAL: u8 = 2;

/// An error that ends the connection, and the alert that informs the peer. After an alert of the peer, none is sent.
pub(crate) struct FatalError {
    pub(crate) alert: Option<AlertDescription>,
    pub(crate) error: Error,
}

impl FatalError {
    pub(crate) const fn new(alert: AlertDescription, error: Error) -> Self {
        Self { alert: Some(alert), error }
    }

    pub(crate) const fn misbehaved(what: PeerMisbehaved) -> Self {
        Self::new(AlertDescription::UnexpectedMessage, Error::PeerMisbehaved(what))
    }

    pub(crate) const fn malformed(what: InvalidMessage) -> Self {
        Self::new(AlertDescription::DecodeError, Error::InvalidMessage(what))
    }

    pub(crate) fn inappropriate(got_type: ContentType) -> Self {
        if got_type == ContentType::ChangeCipherSpec {
            return Self::misbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec);
        }
        let expect_types = vec![ContentType::ApplicationData, ContentType::Alert, ContentType::Handshake];
        Self::new(AlertDescription::UnexpectedMessage, Error::InappropriateMessage { expect_types, got_type })
    }

    /// The reason is not disclosed to the peer (RFC 8446, section 5.2).
    pub(crate) const fn not_decrypted() -> Self {
        Self::new(AlertDescription::BadRecordMac, Error::DecryptError)
    }
}
