//! Our own credentials: parsed, verified as a peer would verify them, and prepared for handshakes.

use std::fmt;
use std::sync::Arc;

use portcullis_identity::leaf::{Compat, Leaf, Role};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_record::TrafficSecretLog;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, NoKeyLog, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::bundle::TrustBundle;
use crate::chain_cache::VerifiedChainCache;
use crate::clock::Clock;
use crate::credential_error::{CredentialError, CredentialWarning, FileRole};
use crate::credential_files::{CredentialFiles, CredentialParts};
use crate::provider::provider;
use crate::trust::TrustBundles;
use crate::verify::{Verified, VerifyError, recheck, unix, verify};

/// The identity settings of the configuration.
#[derive(Clone, Debug)]
pub struct IdentityRules {
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Aliases of the mesh's trust domain; they share its bundle.
    pub aliases: Vec<TrustDomain>,
    /// The identity that our own certificate must have.
    pub expected_own_id: SpiffeId,
    /// The relaxations for foreign CAs.
    pub compat: Compat,
    /// The lowest supported TLS version.
    pub min_version: MinVersion,
}

/// The lowest supported TLS version.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MinVersion {
    /// TLS 1.3 only.
    #[default]
    Tls13,
    /// TLS 1.2 too, for peers without TLS 1.3.
    Tls12,
}

impl MinVersion {
    pub(crate) const fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
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
    /// The parsed leaf.
    pub leaf: Leaf,
    /// The last second at which the whole path is valid, in Unix time.
    pub not_after_unix: i64,
    /// The last second of the root at its end, in Unix time.
    pub root_not_after_unix: i64,
}

/// A workload's identity, key and bundles, validated and ready to use. Immutable; a rotation creates new ones.
pub struct Credentials {
    svid: Svid,
    trust: TrustBundles,
    key: Arc<SingleCertAndKey>,
    client: ClientConfig,
    min_version: MinVersion,
    clock: Clock,
    warnings: Vec<CredentialWarning>,
    verified_chains: VerifiedChainCache,
    generation: u64,
}

impl Credentials {
    /// Reads and verifies everything: the chain leads to our own bundle, the certificate is an SVID for the expected
    /// identity and valid now, the key is the certificate's.
    ///
    /// # Errors
    /// The first error.
    pub fn validate(files: CredentialFiles, rules: &IdentityRules, clock: &Clock) -> Result<Self, CredentialError> {
        Self::validate_parts(files.parse()?, rules, clock)
    }

    /// As [`Credentials::validate`], for credentials in DER.
    ///
    /// # Errors
    /// The first error; it names the file that the part would come from.
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
        Ok(Self {
            svid,
            trust,
            key,
            client,
            min_version,
            clock,
            warnings,
            verified_chains: VerifiedChainCache::default(),
            generation: 0,
        })
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

    /// The bundles that peers are verified with.
    #[must_use]
    pub const fn trust(&self) -> &TrustBundles {
        &self.trust
    }

    /// The last second at which our whole chain is valid, in Unix time.
    #[must_use]
    pub const fn not_after_unix(&self) -> i64 {
        self.svid.not_after_unix
    }

    /// The last second of the root that our certificate chains to, in Unix time.
    #[must_use]
    pub const fn root_not_after_unix(&self) -> i64 {
        self.svid.root_not_after_unix
    }

    /// The time of the clock for certificates, in Unix time.
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

    /// Problems that do not prevent their use.
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

    /// Verifies a peer's chain with our bundles, or returns the cached result.
    pub(crate) fn verify_peer(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Verified, VerifyError> {
        self.verified_chains.get_or_verify(end_entity, intermediates, role, unix(now), || {
            verify(&self.trust, end_entity, intermediates, role, now)
        })
    }

    pub(crate) const fn with_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// The server's configuration for one connection. The verifier of a configuration cannot be replaced, so each connection has
    /// its own; key and provider, which are expensive, are shared.
    pub(crate) fn server_config(
        &self,
        verifier: Arc<impl ClientCertVerifier + 'static>,
        secrets: Arc<TrafficSecretLog>,
        alpn: &[&[u8]],
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(self.clock.clone()))
            .with_protocol_versions(self.min_version.versions())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.key) as _);
        // No resumption, in any version: rustls does not call the verifier again for a resumed session. The default ticketer
        // issues no tickets.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        config.key_log = secrets;
        config.enable_secret_extraction = true;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    /// Presents our certificate to a server that is verified by its DNS name; see `ca_channel`.
    pub(crate) fn client_cert_resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::clone(&self.key)
    }

    /// The client's configuration for one connection.
    pub(crate) fn client_config(
        &self,
        verifier: Arc<impl ServerCertVerifier + 'static>,
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

/// The client's configuration without the verifier: the one in here has no roots and accepts no server.
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

/// Verifies our own chain as peers will: in both roles, with our own bundles, at this time.
fn own_svid(
    chain: Vec<CertificateDer<'static>>,
    trust: &TrustBundles,
    rules: &IdentityRules,
    clock: &Clock,
) -> Result<Svid, CredentialError> {
    let Some((end_entity, intermediates)) = chain.split_first() else {
        return Err(CredentialError::Chain(VerifyError::NoCertificate));
    };
    let verify_as = |role| verify(trust, end_entity, intermediates, role, clock.now());
    let verified = match (verify_as(Role::Server), verify_as(Role::Client)) {
        (Ok(verified), Ok(_)) => verified,
        // Without the relaxation both roles are required; with it, one is enough.
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

/// Loads the key and checks that it belongs to the certificate.
fn own_key(chain: &[CertificateDer<'static>], der: &PrivateKeyDer<'static>) -> Result<CertifiedKey, CredentialError> {
    // The provider zeroes its copy, and ours is zeroed when the parts are dropped.
    let key = provider()
        .key_provider
        .load_private_key(der.clone_key())
        .map_err(|error| CredentialError::Key(error.to_string()))?;
    let certified = CertifiedKey::new(chain.to_vec(), key);
    // Also refused when rustls cannot determine it.
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
