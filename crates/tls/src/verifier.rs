//! The certificate verifiers for rustls, one instance per connection.
//!
//! An instance stores its result. So the identity of a connection is the one that was verified in its own handshake, from the same
//! bytes, and a rejection keeps its cause, of which rustls' error could carry only a part.

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
pub(crate) enum PeerRejection {
    /// The chain is not accepted.
    Chain(VerifyError),
    /// The chain is accepted, but for another identity than expected.
    Identity { presented: SpiffeId, expected: ExpectedIds },
}

/// Which identities are accepted.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// Any workload of a trusted domain. For servers; authorisation follows later.
    AnyWorkload,
    /// One of these. For clients.
    OneOf(ExpectedIds),
}

/// Verifies the peer of one connection.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    credentials: Arc<Credentials>,
    expect: Expect,
    outcome: OnceLock<Result<Verified, PeerRejection>>,
}

impl PeerVerifier {
    pub(crate) const fn new(credentials: Arc<Credentials>, expect: Expect) -> Self {
        Self { credentials, expect, outcome: OnceLock::new() }
    }

    /// The result, if the handshake got that far.
    pub(crate) fn outcome(&self) -> Option<&Result<Verified, PeerRejection>> {
        self.outcome.get()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let role = match self.expect {
            Expect::AnyWorkload => Role::Client,
            Expect::OneOf(_) => Role::Server,
        };
        let outcome = self
            .credentials
            .verify_peer(end_entity, intermediates, role, now)
            .map_err(PeerRejection::Chain)
            .and_then(|verified| self.check_identity(verified));
        let result = match &outcome {
            Ok(_) => Ok(()),
            Err(rejection) => Err(Error::InvalidCertificate(rejection.as_alert())),
        };
        // Called once per handshake. If it were called again, the stored identity would not be the verified one.
        self.outcome.set(outcome).map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        result
    }

    fn check_identity(&self, verified: Verified) -> Result<Verified, PeerRejection> {
        match &self.expect {
            Expect::OneOf(expected) if !expected.contains(&verified.leaf.id) => {
                Err(PeerRejection::Identity { presented: verified.leaf.id, expected: expected.clone() })
            }
            Expect::OneOf(_) | Expect::AnyWorkload => Ok(verified),
        }
    }
}

impl PeerRejection {
    /// The error whose alert informs the peer without disclosing details.
    fn as_alert(&self) -> CertificateError {
        let error = match self {
            // access_denied
            Self::Identity { .. } => return CertificateError::ApplicationVerificationFailure,
            Self::Chain(error) => error,
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
    /// Empty: the names of our CAs are not disclosed, and a client of the mesh has one certificate only.
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
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    crate::signatures::signature_verification!();
}

impl ServerCertVerifier for PeerVerifier {
    /// The name is ignored on purpose: the expected peer is defined by identities, not by the dialled name.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    crate::signatures::signature_verification!();
}
