//! The two verifiers that rustls calls, one fresh instance for each connection.
//!
//! An instance has a slot for its verdict. So the identity that a connection gets is the one that was verified in its own
//! handshake, from the same bytes, and a refusal keeps its true reason, of which rustls' own error could carry only a part.

use std::sync::{Arc, OnceLock};

use portcullis_identity::leaf::Role;
use portcullis_identity::{ExpectedIds, SpiffeId, SvidError};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, OtherError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::credentials::Credentials;
use crate::verify::{Verified, VerifyError};

/// Why a peer's certificate was not accepted.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// It makes no peer at all.
    Verify(VerifyError),
    /// It makes a peer, but not one that was expected.
    Identity { presented: SpiffeId, expected: ExpectedIds },
}

/// Whom the other side must be.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// Any workload of a trusted domain: what a server expects; authorisation comes later.
    AnyWorkload,
    /// One of these: what a client expects.
    OneOf(ExpectedIds),
}

/// Judges the peer of one connection.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    credentials: Arc<Credentials>,
    expect: Expect,
    verdict: OnceLock<Result<Verified, Refusal>>,
}

impl PeerVerifier {
    pub(crate) const fn new(credentials: Arc<Credentials>, expect: Expect) -> Self {
        Self { credentials, expect, verdict: OnceLock::new() }
    }

    /// What was decided, if the handshake came as far as that.
    pub(crate) fn verdict(&self) -> Option<&Result<Verified, Refusal>> {
        self.verdict.get()
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let role = match self.expect {
            Expect::AnyWorkload => Role::Client,
            Expect::OneOf(_) => Role::Server,
        };
        let verdict = self
            .credentials
            .verify_peer(end_entity, intermediates, role, now)
            .map_err(Refusal::Verify)
            .and_then(|verified| self.check_identity(verified));
        let result = match &verdict {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Error::InvalidCertificate(refusal.as_alert())),
        };
        // One handshake asks once. Were it to ask again, the identity that was frozen would not be the one verified.
        self.verdict.set(verdict).map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        result
    }

    fn check_identity(&self, verified: Verified) -> Result<Verified, Refusal> {
        match &self.expect {
            Expect::OneOf(expected) if !expected.contains(&verified.leaf.id) => {
                Err(Refusal::Identity { presented: verified.leaf.id, expected: expected.clone() })
            }
            Expect::OneOf(_) | Expect::AnyWorkload => Ok(verified),
        }
    }
}

impl Refusal {
    /// The error that makes rustls send the alert which tells the peer most without telling it too much.
    fn as_alert(&self) -> CertificateError {
        let error = match self {
            // access_denied
            Self::Identity { .. } => return CertificateError::ApplicationVerificationFailure,
            Self::Verify(error) => error,
        };
        match error {
            // certificate_expired
            VerifyError::Expired { .. } => CertificateError::Expired,
            VerifyError::NotYetValid { .. } => CertificateError::NotValidYet,
            // unknown_ca
            VerifyError::Domain(_) | VerifyError::ForeignSigner { .. } | VerifyError::UnknownIssuer(_) => {
                CertificateError::UnknownIssuer
            }
            // bad_certificate
            VerifyError::Svid(SvidError::Der(_)) => CertificateError::BadEncoding,
            VerifyError::Svid(SvidError::CriticalExtension(_)) => CertificateError::UnhandledCriticalExtension,
            // unsupported_certificate
            VerifyError::Svid(SvidError::Usage(_)) => CertificateError::InvalidPurpose,
            // certificate_unknown
            other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
        }
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// Nothing: the names of our CAs are nobody's business, and the mesh's clients have one certificate only.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    crate::signatures::judged_alike!();
}

impl ServerCertVerifier for PeerVerifier {
    /// The name is ignored on purpose: whom we expect is said by identities, not by what was dialled.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    crate::signatures::judged_alike!();
}
