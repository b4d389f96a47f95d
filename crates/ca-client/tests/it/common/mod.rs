//! What both sources are tested with.

use portcullis_ca_client::RenewalMonitor;
use portcullis_identity::leaf::Compat;
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_testkit::wait::{PATIENCE, eventually_within};
use portcullis_tls::{CredentialReader, IdentityRules, MinVersion};

pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

pub(crate) fn rules() -> IdentityRules {
    IdentityRules {
        trust_domain: TrustDomain::parse("cluster.local").unwrap(),
        aliases: Vec::new(),
        expected_own_id: SpiffeId::parse(CART).unwrap(),
        compat: Compat::default(),
        min_version: MinVersion::default(),
    }
}

/// A source in a thread of its own, as in the proxy.
pub(crate) struct Running {
    pub(crate) monitor: RenewalMonitor,
    pub(crate) reader: CredentialReader,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    pub(crate) fn start(
        monitor: RenewalMonitor,
        reader: CredentialReader,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(work);
        Self { monitor, reader, _runtime: runtime }
    }

    pub(crate) fn eventually(&self, what: &str, mut probe: impl FnMut(&Self) -> bool) {
        let found = eventually_within(PATIENCE, || probe(self).then_some(()));
        assert!(found.is_some(), "not within {PATIENCE:?}: {what}; {:?}", self.monitor.status());
    }

    pub(crate) fn generation(&self) -> u64 {
        self.reader.generation()
    }

    /// Waits for a failure with this reason after those that there were.
    pub(crate) fn fails(&self, reason: &str) {
        let count = |running: &Self| running.monitor.status().failures.get(reason).copied().unwrap_or(0);
        let before = count(self);
        self.monitor.renew_now();
        self.eventually(&format!("a failure: {reason}"), |running| count(running) > before);
    }
}
