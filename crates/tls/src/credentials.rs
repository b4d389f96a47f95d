//! Our own credentials: read, verified as a peer would verify them, and made ready for handshakes.

use std::fmt;
use std::sync::Arc;

use portcullis_identity::leaf::{Compat, Leaf, Role};
use portcullis_identity::{SpiffeId, TrustDomain};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, NoKeyLog, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use zeroize::Zeroizing;

use crate::bundle::TrustBundle;
use crate::clock::Clock;
use crate::credential_error::{CredentialError, CredentialWarning, FileRole};
use crate::pem;
use crate::proven::Proven;
use crate::provider::provider;
use crate::trust::TrustBundles;
use crate::verifier::PeerVerifier;
use crate::verify::{Verified, VerifyError, recheck, unix, verify};
use portcullis_record::TrafficSecretLog;

/// The contents of the files, before anything is known of them. The key is wiped when this is dropped.
pub struct CredentialFiles {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    trust_bundle: Vec<u8>,
    federated: Vec<(TrustDomain, Vec<u8>)>,
}

impl CredentialFiles {
    /// Takes the three files of a workload; `federated` are the bundles of foreign trust domains.
    #[must_use]
    pub fn new(
        certificate: Vec<u8>,
        private_key: Vec<u8>,
        trust_bundle: Vec<u8>,
        federated: Vec<(TrustDomain, Vec<u8>)>,
    ) -> Self {
        Self { certificate, private_key: Zeroizing::new(private_key), trust_bundle, federated }
    }
}

/// The same without PEM around it, for what does not come from files.
pub struct CredentialParts {
    /// The certificates as they are sent, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub private_key: Zeroizing<PrivateKeyDer<'static>>,
    /// The roots of the mesh's trust domain.
    pub trust_bundle: Vec<CertificateDer<'static>>,
    /// The roots of foreign trust domains.
    pub federated: Vec<(TrustDomain, Vec<CertificateDer<'static>>)>,
}

impl CredentialFiles {
    fn parse(&self) -> Result<CredentialParts, CredentialError> {
        let certificates = |role: FileRole, file: &[u8]| {
            // As a bundle's error, so that each file has one form of them.
            pem::certificates(file).map_err(|error| CredentialError::Bundle { file: role, error: error.into() })
        };
        let trust_bundle = certificates(FileRole::TrustBundle, &self.trust_bundle)?;
        let mut federated = Vec::with_capacity(self.federated.len());
        for (domain, file) in &self.federated {
            federated.push((domain.clone(), certificates(FileRole::Federated(domain.clone()), file)?));
        }
        let chain = pem::certificates(&self.certificate)
            .map_err(|error| CredentialError::Pem { file: FileRole::Certificate, error })?;
        let private_key = pem::private_key(&self.private_key)
            .map_err(|error| CredentialError::Pem { file: FileRole::PrivateKey, error })?;
        Ok(CredentialParts { chain, private_key, trust_bundle, federated })
    }
}

impl fmt::Debug for CredentialParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialParts").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for CredentialFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialFiles").finish_non_exhaustive()
    }
}

/// What the configuration says about identities.
#[derive(Clone, Debug)]
pub struct IdentityRules {
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Other names of the mesh; they share its bundle.
    pub aliases: Vec<TrustDomain>,
    /// Whom our own certificate must name.
    pub expected_own_id: SpiffeId,
    /// What is let pass for foreign CAs.
    pub compat: Compat,
    /// The lowest TLS version that is spoken.
    pub min_version: MinVersion,
}

/// The lowest TLS version that is spoken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MinVersion {
    /// TLS 1.3 only.
    #[default]
    Tls13,
    /// TLS 1.2 too, for peers that have nothing better.
    Tls12,
}

impl MinVersion {
    const fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
        match self {
            Self::Tls13 => TLS13,
            Self::Tls12 => TLS12,
        }
    }
}

/// Our own SVID, without its key.
#[derive(Clone, Debug)]
pub struct Svid {
    /// The certificates as they are sent, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf as it was read.
    pub leaf: Leaf,
    /// The last second at which the whole path is valid, in Unix time.
    pub not_after_unix: i64,
    /// The last second of the root at its end, in Unix time.
    pub root_not_after_unix: i64,
}

/// A workload's identity, key and bundles, validated and ready to use. Immutable; a rotation makes new ones.
pub struct Credentials {
    svid: Svid,
    trust: TrustBundles,
    key: Arc<SingleCertAndKey>,
    client: ClientConfig,
    min_version: MinVersion,
    clock: Clock,
    warnings: Vec<CredentialWarning>,
    proven: Proven,
    generation: u64,
}

impl Credentials {
    /// Reads and verifies everything: the chain leads to our own bundle, the certificate is an SVID for the expected
    /// identity and valid now, the key is the certificate's.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(files: CredentialFiles, rules: &IdentityRules, clock: &Clock) -> Result<Self, CredentialError> {
        Self::validate_parts(files.parse()?, rules, clock)
    }

    /// The same for what does not come from files.
    ///
    /// # Errors
    /// The first thing that is wrong; what would be a file's fault is named as that file would be.
    pub fn validate_parts(
        parts: CredentialParts,
        rules: &IdentityRules,
        clock: &Clock,
    ) -> Result<Self, CredentialError> {
        let now = clock.now_unix();
        let bundle = |role: FileRole, roots| {
            TrustBundle::from_der(roots, now).map_err(|error| CredentialError::Bundle { file: role, error })
        };
        let mesh = bundle(FileRole::TrustBundle, parts.trust_bundle)?;
        let mut foreign = Vec::with_capacity(parts.federated.len());
        for (domain, roots) in parts.federated {
            foreign.push((domain.clone(), bundle(FileRole::Federated(domain), roots)?));
        }
        let own = rules.trust_domain.clone();
        let trust = TrustBundles::new(own, rules.aliases.iter().cloned(), mesh, foreign, rules.compat)?;

        let svid = own_svid(parts.chain, &trust, rules, clock)?;
        let key = own_key(&svid.chain, &parts.private_key)?;
        let key = Arc::new(SingleCertAndKey::from(key));
        let warnings = warnings(&svid, &trust, now);
        let min_version = rules.min_version;
        let clock = clock.clone();
        let client = client_template(&key, min_version, &clock)?;
        Ok(Self { svid, trust, key, client, min_version, clock, warnings, proven: Proven::default(), generation: 0 })
    }

    /// Our identity.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.svid.leaf.id
    }

    /// Our SVID.
    #[must_use]
    pub const fn svid(&self) -> &Svid {
        &self.svid
    }

    /// The bundles that peers are judged by.
    #[must_use]
    pub const fn trust(&self) -> &TrustBundles {
        &self.trust
    }

    /// The last second at which our whole chain is valid, in Unix time.
    #[must_use]
    pub const fn not_after_unix(&self) -> i64 {
        self.svid.not_after_unix
    }

    /// The last second of the root that the own certificate rests on, in Unix time.
    #[must_use]
    pub const fn root_not_after_unix(&self) -> i64 {
        self.svid.root_not_after_unix
    }

    /// The time by the clock that certificates are judged by, in Unix time.
    #[must_use]
    pub fn now_unix(&self) -> i64 {
        self.clock.now_unix()
    }

    /// Whether our chain has expired by now.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.clock.now_unix() > self.svid.not_after_unix
    }

    /// Which generation of the store these are; 0 if they were never published.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What is usable and yet worth a word.
    #[must_use]
    pub fn warnings(&self) -> &[CredentialWarning] {
        &self.warnings
    }

    /// Whether a peer that was verified with earlier credentials would still be accepted with these: its domain is trusted,
    /// its root is still in the bundle, and nothing of its path has expired.
    ///
    /// # Errors
    /// Why it would not be.
    pub fn still_trusts(&self, peer: &SpiffeId, path: &crate::PathSummary) -> Result<(), VerifyError> {
        recheck(&self.trust, peer.domain_str(), path, self.clock.now())
    }

    /// Judges a peer's chain by our bundles; one that was accepted before is known.
    pub(crate) fn verify_peer(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Verified, VerifyError> {
        self.proven.or_verify((end_entity, intermediates), role, unix(now), || {
            verify(&self.trust, end_entity, intermediates, role, now)
        })
    }

    pub(crate) const fn with_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The server's configuration for one connection. rustls lets nobody swap the verifier of a finished one, so it is made
    /// anew each time; key and provider, which cost something, are shared.
    pub(crate) fn server_config(
        &self,
        verifier: Arc<PeerVerifier>,
        secrets: Arc<TrafficSecretLog>,
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_protocol_versions(self.min_version.versions())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.key) as _);
        // Nothing is resumed, in any version: rustls does not ask the verifier again when it is (R20). The ticketer stays
        // the default one, which makes no tickets.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        config.key_log = secrets;
        config.enable_secret_extraction = true;
        // No list: a client is never refused for the protocol names that it offers.
        config.alpn_protocols = Vec::new();
        Ok(config)
    }

    /// The client's configuration toward a server that is verified by its name and not by an identity; see
    /// [`authority`](crate::authority).
    pub(crate) fn present(&self) -> Arc<SingleCertAndKey> {
        Arc::clone(&self.key)
    }

    /// The client's configuration for one connection.
    pub(crate) fn client_config(
        &self,
        verifier: Arc<PeerVerifier>,
        secrets: Arc<TrafficSecretLog>,
        send_sni: bool,
    ) -> ClientConfig {
        let mut config = self.client.clone();
        config.key_log = secrets;
        config.dangerous().set_certificate_verifier(verifier);
        config.enable_sni = send_sni;
        config
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("id", self.id())
            .field("not_after_unix", &self.not_after_unix())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The client's configuration but for the verifier: the one in here has no roots and accepts nobody.
fn client_template(
    key: &Arc<SingleCertAndKey>,
    min_version: MinVersion,
    clock: &Clock,
) -> Result<ClientConfig, CredentialError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(min_version.versions())
        .map_err(|error| CredentialError::Tls(error.to_string()))?
        .with_root_certificates(RootCertStore::empty())
        .with_client_cert_resolver(Arc::clone(key) as _);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.key_log = Arc::new(NoKeyLog {});
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![portcullis_wire::CLIENT_ALPN.to_vec()];
    Ok(config)
}

/// Judges our own chain as peers will: in both roles, with our own bundles, at this time.
fn own_svid(
    chain: Vec<CertificateDer<'static>>,
    trust: &TrustBundles,
    rules: &IdentityRules,
    clock: &Clock,
) -> Result<Svid, CredentialError> {
    let Some((end_entity, intermediates)) = chain.split_first() else {
        return Err(CredentialError::Chain(VerifyError::NoCertificate));
    };
    let judge = |role| verify(trust, end_entity, intermediates, role, clock.now());
    let verified = match (judge(Role::Server), judge(Role::Client)) {
        (Ok(verified), Ok(_)) => verified,
        // Without the relaxation both roles need both purposes; with it, one role is enough to be of use.
        (Ok(verified), Err(_)) | (Err(_), Ok(verified)) if rules.compat.eku => verified,
        (Err(error), _) | (_, Err(error)) => return Err(CredentialError::Chain(error)),
    };
    if verified.leaf.id != rules.expected_own_id {
        let expected = rules.expected_own_id.clone();
        return Err(CredentialError::OwnId { expected, found: verified.leaf.id });
    }
    Ok(Svid {
        not_after_unix: verified.path.not_after_unix().min(verified.leaf.not_after_unix),
        root_not_after_unix: verified.path.root_not_after_unix(),
        leaf: verified.leaf,
        chain,
    })
}

/// Loads the key and makes sure that it is the certificate's.
fn own_key(chain: &[CertificateDer<'static>], der: &PrivateKeyDer<'static>) -> Result<CertifiedKey, CredentialError> {
    // The provider wipes its copy, and ours is wiped when the parts are dropped.
    let key = provider()
        .key_provider
        .load_private_key(der.clone_key())
        .map_err(|error| CredentialError::Key(error.to_string()))?;
    let certified = CertifiedKey::new(chain.to_vec(), key);
    // Also refused when rustls cannot tell: a pair that may not match is not used.
    certified.keys_match().map_err(|_| CredentialError::KeyMismatch)?;
    Ok(certified)
}

fn warnings(svid: &Svid, trust: &TrustBundles, now: i64) -> Vec<CredentialWarning> {
    let mut warnings = Vec::new();
    for (domain, bundle) in trust.iter() {
        let file =
            if domain == trust.domains().own() { FileRole::TrustBundle } else { FileRole::Federated(domain.clone()) };
        for root in bundle.roots().filter(|root| root.not_before_unix() > now) {
            warnings.push(CredentialWarning::RootNotYetValid {
                file: file.clone(),
                not_before_unix: root.not_before_unix(),
            });
        }
    }
    if svid.not_after_unix < svid.leaf.not_after_unix {
        warnings.push(CredentialWarning::OutlivesPath { path_ends_unix: svid.not_after_unix });
    }
    warnings
}

#[cfg(test)]
mod tests;
