//! The policy in force and the candidates beside it: one value for connections, put together again whenever a part changes.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use portcullis_policy::{EffectivePolicy, Shadow};

/// Publishes the policy with its candidates.
pub(super) struct InForce {
    published: Arc<ArcSwap<EffectivePolicy>>,
    parts: Mutex<Parts>,
}

struct Parts {
    policy: EffectivePolicy,
    /// By position in `policies.candidates`; `None` until one was read.
    candidates: Vec<Option<Shadow>>,
}

impl InForce {
    pub(super) fn new(policy: EffectivePolicy, candidates: usize) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(policy.clone()));
        Self { published, parts: Mutex::new(Parts { policy, candidates: vec![None; candidates] }) }
    }

    /// What connections read.
    pub(super) fn published(&self) -> Arc<ArcSwap<EffectivePolicy>> {
        Arc::clone(&self.published)
    }

    pub(super) fn set_policy(&self, policy: EffectivePolicy) {
        self.change(|parts| parts.policy = policy);
    }

    pub(super) fn set_candidate(&self, index: usize, shadow: Shadow) {
        self.change(|parts| {
            if let Some(candidate) = parts.candidates.get_mut(index) {
                *candidate = Some(shadow);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        // Held until it is published, so that two changes at once both count.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let shadows = parts.candidates.iter().flatten().cloned();
        self.published.store(Arc::new(parts.policy.clone().with_shadows(shadows)));
    }
}
