//! The result of a handshake: the peer, or the error.

use std::io;

use portcullis_identity::leaf::Relaxed;
use portcullis_identity::{ExpectedIds, SpiffeId};
use rustls::{AlertDescription, CommonState, Error, PeerIncompatible};

use crate::negotiated::Negotiated;
use crate::outside::OutsideRefusal;
use crate::verifier::{PeerRejection, PeerVerifier};
use crate::verify::{PathSummary, Verified, VerifyError};

/// The peer of an established connection, as it was verified in the handshake.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its identity.
    pub id: SpiffeId,
    /// The last second of its certificate's validity, in Unix time.
    pub not_after_unix: i64,
    /// What its chain depends on, for [`Credentials::still_trusts`](crate::Credentials::still_trusts).
    pub path: PathSummary,
    /// Which relaxations its certificate needed. The caller counts them.
    pub relaxed: Relaxed,
    /// `TLSv1.3` or `TLSv1.2`.
    pub tls_version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher: &'static str,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: &'static str,
    /// Whether the two sides agreed on the protocol name `istio` (only ever on the client's side).
    pub alpn_istio: bool,
}

impl PeerInfo {
    pub(crate) fn new(verified: Verified, state: &CommonState) -> Self {
        let Negotiated { tls_version, cipher, group } = Negotiated::of(state);
        Self {
            not_after_unix: verified.leaf.not_after_unix,
            relaxed: verified.leaf.relaxed,
            id: verified.leaf.id,
            path: verified.path,
            tls_version,
            cipher,
            group,
            alpn_istio: state.alpn_protocol() == Some(portcullis_wire::CLIENT_ALPN),
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate was not accepted.
    #[error("the peer's certificate was refused: {0}")]
    Peer(VerifyError),
    /// The peer is another workload than expected.
    #[error("the peer is {presented}, expected was {expected}")]
    IdMismatch {
        /// The identity of the peer.
        presented: SpiffeId,
        /// The expected identities.
        expected: ExpectedIds,
    },
    /// The certificate of a peer outside of the mesh was not accepted.
    #[error("the peer's certificate was refused: {0}")]
    Outside(OutsideRefusal),
    /// The client wants a server for which there is no certificate.
    #[error("{}", unknown_name(.0.as_deref()))]
    UnknownServerName(Option<String>),
    /// The peer presented a certificate without holding its key.
    #[error("the peer did not prove that it holds the key of its certificate: {0}")]
    Possession(Error),
    /// A protocol error: no common version or group, or no TLS at all.
    #[error("TLS handshake failed: {0}")]
    Protocol(Error),
    /// The peer ended the handshake with an alert.
    #[error("the peer refused the handshake with alert {}", alert_name(*.0))]
    PeerAlert(AlertDescription),
    /// The peer closed the connection in the middle of the handshake.
    #[error("the peer closed the connection during the handshake")]
    PeerClosed,
    /// The connection was reset in the middle of the handshake.
    #[error("the connection was reset during the handshake")]
    Reset,
    /// Reading or writing failed otherwise.
    #[error("reading or writing failed during the handshake: {0}")]
    Io(io::Error),
}

/// The kind of a failed handshake: the closed set for metrics and access logs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HandshakeFault {
    /// The peer presented no certificate.
    NoCertificate,
    /// Its chain leads to no root of ours.
    UnknownCa,
    /// Its chain, or our root for it, has expired.
    Expired,
    /// Its chain, or our root for it, is not valid yet.
    NotYetValid,
    /// Its certificate is no valid SVID, or it did not prove that it holds the key.
    BadCertificate,
    /// Its trust domain is not trusted, or its CA is that of another domain.
    TdMismatch,
    /// It is another workload than expected.
    IdMismatch,
    /// The server's certificate is for other names than the expected one.
    ServerNameMismatch,
    /// The client asks for a server that has no certificate here, or names none.
    UnknownServerName,
    /// No common version, group or suite, or no TLS.
    Protocol,
    /// It closed the connection.
    PeerClosed,
    /// It sent an alert.
    PeerAlert,
    /// The connection was reset.
    Reset,
    /// Another error of the socket.
    Io,
}

impl HandshakeFault {
    /// The stable label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadCertificate => "bad_certificate",
            Self::TdMismatch => "td_mismatch",
            Self::IdMismatch => "id_mismatch",
            Self::ServerNameMismatch => "server_name_mismatch",
            Self::UnknownServerName => "unknown_server_name",
            Self::Protocol => "protocol",
            Self::PeerClosed => "peer_closed",
            Self::PeerAlert => "peer_alert",
            Self::Reset => "reset",
            Self::Io => "io",
        }
    }
}

impl HandshakeError {
    /// The fault, for an exhaustive match.
    #[must_use]
    pub const fn fault(&self) -> HandshakeFault {
        match self {
            Self::Peer(error) => match error {
                VerifyError::NoCertificate => HandshakeFault::NoCertificate,
                VerifyError::UnknownIssuer(_) => HandshakeFault::UnknownCa,
                VerifyError::Expired { .. } => HandshakeFault::Expired,
                VerifyError::NotYetValid { .. } => HandshakeFault::NotYetValid,
                VerifyError::Domain(_) | VerifyError::ForeignSigner { .. } => HandshakeFault::TdMismatch,
                VerifyError::ChainLength { .. } | VerifyError::Svid(_) | VerifyError::Path(_) => {
                    HandshakeFault::BadCertificate
                }
            },
            Self::IdMismatch { .. } => HandshakeFault::IdMismatch,
            Self::Outside(refusal) => match refusal {
                OutsideRefusal::UnknownIssuer => HandshakeFault::UnknownCa,
                OutsideRefusal::Expired { .. } => HandshakeFault::Expired,
                OutsideRefusal::NotYetValid { .. } => HandshakeFault::NotYetValid,
                OutsideRefusal::Name { .. } => HandshakeFault::ServerNameMismatch,
                OutsideRefusal::Purpose | OutsideRefusal::Signature | OutsideRefusal::Malformed(_) => {
                    HandshakeFault::BadCertificate
                }
            },
            Self::UnknownServerName(_) => HandshakeFault::UnknownServerName,
            Self::Possession(_) => HandshakeFault::BadCertificate,
            Self::Protocol(_) => HandshakeFault::Protocol,
            Self::PeerAlert(_) => HandshakeFault::PeerAlert,
            Self::PeerClosed => HandshakeFault::PeerClosed,
            Self::Reset => HandshakeFault::Reset,
            Self::Io(_) => HandshakeFault::Io,
        }
    }

    /// The label of the fault.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.fault().label()
    }

    /// A finer classification, still a closed set: the class of the certificate error, the name of the alert, or the kind of
    /// protocol error.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Peer(error) => error.class(),
            Self::IdMismatch { .. } => "id-mismatch",
            Self::Outside(refusal) => refusal.class(),
            Self::UnknownServerName(Some(_)) => "unknown-server-name",
            Self::UnknownServerName(None) => "no-server-name",
            Self::Possession(_) => "possession",
            Self::Protocol(error) => protocol_class(error),
            Self::PeerAlert(alert) => alert_name(*alert),
            Self::PeerClosed => "peer-closed",
            Self::Reset => "reset",
            Self::Io(_) => "io",
        }
    }

    /// Whether the peer's first bytes are not TLS at all: the peer speaks plaintext.
    #[must_use]
    pub const fn is_not_tls(&self) -> bool {
        use rustls::InvalidMessage::{InvalidContentType, UnknownProtocolVersion};
        matches!(self, Self::Protocol(Error::InvalidMessage(InvalidContentType | UnknownProtocolVersion)))
    }

    /// Classifies an error of the socket.
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::PeerClosed,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
                Self::Reset
            }
            _ => Self::Io(error),
        }
    }

    /// As [`HandshakeError::new`], for a peer whose certificate webpki alone has verified, if it has one.
    pub(crate) fn outside(error: io::Error) -> Self {
        match tls_error(&error) {
            None => Self::from_io(error),
            Some(Error::NoCertificatesPresented) => Self::Peer(VerifyError::NoCertificate),
            Some(Error::AlertReceived(alert)) => Self::PeerAlert(*alert),
            Some(Error::InvalidCertificate(refused)) => Self::Outside(OutsideRefusal::of(refused)),
            Some(tls) => Self::Protocol(tls.clone()),
        }
    }

    /// Finds the cause in the IO error and in the result of the verifier, which knows more than the alert.
    pub(crate) fn new(error: io::Error, verifier: &PeerVerifier) -> Self {
        let Some(tls) = tls_error(&error) else {
            return Self::from_io(error);
        };
        match (tls, verifier.outcome()) {
            (Error::NoCertificatesPresented, _) => Self::Peer(VerifyError::NoCertificate),
            (Error::AlertReceived(alert), _) => Self::PeerAlert(*alert),
            (Error::InvalidCertificate(_), Some(Err(PeerRejection::Chain(error)))) => Self::Peer(error.clone()),
            (Error::InvalidCertificate(_), Some(Err(PeerRejection::Identity { presented, expected }))) => {
                Self::IdMismatch { presented: presented.clone(), expected: expected.clone() }
            }
            // The chain was accepted, so the signature over the handshake is wrong.
            (Error::InvalidCertificate(_), Some(Ok(_))) => Self::Possession(tls.clone()),
            _ => Self::Protocol(tls.clone()),
        }
    }
}

fn unknown_name(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("the client asks for {name}, for which there is no certificate"),
        None => "the client names no server, and there is no certificate for that case".to_owned(),
    }
}

/// The rustls error within an IO error.
pub(crate) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

const fn protocol_class(error: &Error) -> &'static str {
    match error {
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "version",
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => "cipher",
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => "group",
        Error::PeerIncompatible(
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
        ) => "signature-scheme",
        Error::PeerIncompatible(_) => "incompatible",
        Error::NoApplicationProtocol => "alpn",
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "malformed"
        }
        Error::PeerMisbehaved(_) | Error::DecryptError | Error::PeerSentOversizedRecord => "misbehaved",
        _ => "other",
    }
}

/// The alert's name as RFC 8446 writes it.
pub(crate) const fn alert_name(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CloseNotify => "close_notify",
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::RecordOverflow => "record_overflow",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::InappropriateFallback => "inappropriate_fallback",
        AlertDescription::UserCanceled => "user_canceled",
        AlertDescription::NoRenegotiation => "no_renegotiation",
        AlertDescription::MissingExtension => "missing_extension",
        AlertDescription::UnsupportedExtension => "unsupported_extension",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        _ => "other",
    }
}
