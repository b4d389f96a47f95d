//! The state in force: signing CA, registrations, bundles of other domains, resources. Each is swapped atomically.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use portcullis_ca::rotation::Rotation;
use portcullis_ca::{Registrations, ServerName, Signer, TokenKey, Validity};
use portcullis_identity::TrustDomain;
use portcullis_identity::leaf::Compat;
use portcullis_tls::{Clock, TrustBundle, TrustBundles, bundle_digest};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;

use crate::resources::{ExtraRoot, Resources};
use crate::tls::{self, SERVER_TTL};

/// A CA with what follows from it.
pub(crate) struct Ca {
    pub(crate) signer: Arc<Signer>,
    /// Signs the server certificate. Differs from `signer` during a rotation.
    server: Arc<Signer>,
    /// Verifies callers' certificates, against our own roots only.
    pub(crate) trust: TrustBundles,
    pub(crate) tls: Arc<ServerConfig>,
    /// When the server certificate is valid.
    server_validity: Validity,
}

/// Bundles of the domains that we federate with.
pub(crate) type Foreign = BTreeMap<TrustDomain, TrustBundle>;

pub(crate) struct CaState {
    ca: ArcSwap<Ca>,
    pub(crate) registrations: ArcSwap<Registrations>,
    pub(crate) foreign: ArcSwap<Foreign>,
    /// Signs and verifies tokens.
    pub(crate) tokens: ArcSwap<TokenKey>,
    pub(crate) resources: ArcSwap<Resources>,
    names: Vec<ServerName>,
    /// Where other hosts find this CA, if its first name says that.
    pub(crate) advertised: Option<String>,
    pub(crate) clock: Clock,
    /// Serialises the creation of a new [`Ca`].
    building: Mutex<()>,
    /// Read-locked while signing, until the certificate is recorded; write-locked to change the phase. Locked before `building`.
    rotation: RwLock<Option<Rotation>>,
}

impl Ca {
    pub(crate) fn new(
        signer: Arc<Signer>,
        server: Arc<Signer>,
        names: &[ServerName],
        clock: &Clock,
    ) -> Result<Self, String> {
        let (tls, server_validity) = tls::configuration(&server, names, clock)?;
        let roots = signer.roots().clone();
        let trust = TrustBundles::new(signer.trust_domain().clone(), [], roots, [], Compat::default());
        Ok(Self { trust: trust.map_err(|error| error.to_string())?, signer, server, tls, server_validity })
    }

    /// The SHA-256 of the root at which the server certificate ends.
    pub(crate) fn server_root(&self) -> &str {
        self.server.anchor()
    }
}

impl CaState {
    pub(crate) fn new(
        ca: Ca,
        registrations: Registrations,
        foreign: Foreign,
        tokens: TokenKey,
        names: Vec<ServerName>,
        rotation: Option<Rotation>,
        clock: Clock,
    ) -> Self {
        Self {
            ca: ArcSwap::from_pointee(ca),
            registrations: ArcSwap::from_pointee(registrations),
            foreign: ArcSwap::from_pointee(foreign),
            tokens: ArcSwap::from_pointee(tokens),
            resources: ArcSwap::default(),
            names,
            advertised: None,
            clock,
            building: Mutex::new(()),
            rotation: RwLock::new(rotation),
        }
    }

    pub(crate) fn ca(&self) -> Arc<Ca> {
        self.ca.load_full()
    }

    /// No phase begins or ends while this is held.
    pub(crate) fn signing(&self) -> RwLockReadGuard<'_, Option<Rotation>> {
        self.rotation.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything that was signed is known to the state, and holds up what comes.
    pub(crate) fn rotating(&self) -> RwLockWriteGuard<'_, Option<Rotation>> {
        self.rotation.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the CA of the four files in force, unless a rotation says what is. They are read here, since what was read
    /// before may be older than a rotation that has just ended.
    pub(crate) fn replace(&self, read: impl FnOnce() -> Result<Signer, String>) -> Result<bool, String> {
        let rotation = self.signing();
        if rotation.is_some() {
            return Ok(false);
        }
        let signer = Arc::new(read()?);
        self.install(Arc::clone(&signer), signer)?;
        Ok(true)
    }

    /// Puts another CA in force, with a server certificate from `server`.
    pub(crate) fn install(&self, signer: Arc<Signer>, server: Arc<Signer>) -> Result<(), String> {
        let _one = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.ca();
        if signer.trust_domain() != current.signer.trust_domain() {
            let (new, old) = (signer.trust_domain(), current.signer.trust_domain());
            return Err(format!(
                "the CA is of trust domain {new}, and this one serves {old}; another one takes a restart"
            ));
        }
        self.ca.store(Arc::new(Ca::new(signer, server, &self.names, &self.clock)?));
        Ok(())
    }

    /// Renews the server certificate if half of its life is over, or the clock was set back to before it.
    pub(crate) fn renew_server_certificate(&self, now_unix: i64) -> Result<bool, String> {
        let _one = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.ca();
        let half = i64::try_from(SERVER_TTL.as_secs() / 2).unwrap_or_default();
        let Validity { not_before_unix, not_after_unix } = current.server_validity;
        // The clock was set back since it was made, so callers would refuse it as not yet valid.
        let early = not_before_unix > now_unix;
        // One that ends with its CA cannot be made to last longer.
        if !early
            && (not_after_unix.saturating_sub(now_unix) > half || not_after_unix >= current.server.not_after_unix())
        {
            return Ok(false);
        }
        self.ca.store(Arc::new(Ca::new(
            Arc::clone(&current.signer),
            Arc::clone(&current.server),
            &self.names,
            &self.clock,
        )?));
        Ok(true)
    }

    /// The digest of what `GetTrustBundles` answers now.
    pub(crate) fn bundle_digest(&self) -> String {
        let all = self.bundles(&self.ca());
        bundle_digest(all.iter().map(|(domain, roots)| (domain, roots.iter())))
    }

    /// Every bundle that is handed out: our own with the roots that resources add, and those of other domains.
    pub(crate) fn bundles(&self, ca: &Ca) -> Vec<(TrustDomain, Vec<CertificateDer<'static>>)> {
        let (foreign, resources) = (self.foreign.load(), self.resources.load());
        let of = |bundle: &TrustBundle| bundle.roots().map(|root| root.der().clone()).collect::<Vec<_>>();
        let mut own = of(ca.signer.roots());
        own.extend(resources.roots_beyond(ca.signer.roots(), self.clock.now_unix()).map(|root| root.der().clone()));
        let own = std::iter::once((ca.signer.trust_domain().clone(), own));
        own.chain(foreign.iter().map(|(domain, bundle)| (domain.clone(), of(bundle)))).collect()
    }

    /// Our own bundle in PEM, the CA's roots first: the last text of an answer.
    pub(crate) fn roots_pem(&self, ca: &Ca) -> String {
        let resources = self.resources.load();
        let extra = resources.roots_beyond(ca.signer.roots(), self.clock.now_unix());
        std::iter::once(ca.signer.roots_pem()).chain(extra.map(ExtraRoot::pem)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use portcullis_ca::{Root, SignerFiles};

    fn state(ttl_days: u64) -> CaState {
        let clock = Clock::system();
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let ttl = Duration::from_secs(ttl_days * 24 * 3600);
        let root = Root::generate(&domain, ttl, &clock).unwrap();
        let intermediate = root.intermediate(ttl).unwrap();
        let key = intermediate.key_pem();
        let files = SignerFiles {
            ca_cert: intermediate.cert_pem().as_bytes(),
            ca_key: key.as_bytes(),
            root_cert: root.cert_pem().as_bytes(),
            cert_chain: None,
        };
        let signer = Arc::new(Signer::read(files, None, &clock).unwrap());
        let ca = Ca::new(Arc::clone(&signer), signer, &[], &clock).unwrap();
        let registrations = Registrations::read(b"identities: []", Path::new("/")).unwrap();
        let tokens = TokenKey::read(TokenKey::generate().unwrap().as_bytes(), &domain).unwrap();
        CaState::new(ca, registrations, Foreign::new(), tokens, Vec::new(), None, clock)
    }

    #[test]
    fn the_server_certificate_is_renewed_at_half_of_its_life() {
        let (state, now) = (state(30), Clock::system().now_unix());
        let first = state.ca();
        assert_eq!(state.renew_server_certificate(now + 11 * 3600), Ok(false));
        assert!(Arc::ptr_eq(&state.ca().tls, &first.tls));
        assert_eq!(state.renew_server_certificate(now + 13 * 3600), Ok(true));
        assert!(!Arc::ptr_eq(&state.ca().tls, &first.tls));
        assert!(Arc::ptr_eq(&state.ca().signer, &first.signer));
    }

    #[test]
    fn one_from_the_future_is_made_again_when_the_clock_was_set_back() {
        let (state, now) = (state(1), Clock::system().now_unix());
        let first = state.ca();
        assert_eq!(state.renew_server_certificate(now - 30), Ok(false), "within what it is backdated by");
        assert_eq!(state.renew_server_certificate(now - 7200), Ok(true));
        assert!(!Arc::ptr_eq(&state.ca().tls, &first.tls));
    }

    #[test]
    fn one_that_ends_with_its_ca_is_not_made_again_and_again() {
        let (state, now) = (state(1), Clock::system().now_unix());
        assert_eq!(state.renew_server_certificate(now + 20 * 3600), Ok(false));
    }

    #[test]
    fn a_ca_of_another_trust_domain_takes_a_restart() {
        let (state, other) = (state(1), TrustDomain::parse("other.local").unwrap());
        let day = Duration::from_secs(24 * 3600);
        let root = Root::generate(&other, day, &Clock::system()).unwrap();
        let key = root.key_pem();
        let files = SignerFiles {
            ca_cert: root.cert_pem().as_bytes(),
            ca_key: key.as_bytes(),
            root_cert: root.cert_pem().as_bytes(),
            cert_chain: None,
        };
        let why = state.replace(|| Ok(Signer::read(files, None, &Clock::system()).unwrap())).unwrap_err();
        assert!(why.contains("takes a restart"), "{why}");
        assert_eq!(state.ca().signer.trust_domain().as_str(), "cluster.local");
    }
}
