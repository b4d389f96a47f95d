//! The policy in force and the candidates beside it: one value for connections, put together again whenever a part changes.
//!
//! All sidecars read the same files, but not at the same instant. A port whose mode changes to or from DISABLE is PERMISSIVE for
//! [`TRANSITION`] before the new mode holds: callers change from mTLS to plaintext, or back, in the middle of that time
//! (`services::DELAY`). So no connection of a caller that is early or late is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_policy::{EffectivePolicy, Shadow};
use portcullis_proxy::changes::ChangeNotifier;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a port admits both after a change to or from DISABLE. Twice the delay of the callers, which have half of it for each
/// side.
pub(super) const TRANSITION: Duration = Duration::from_millis(500);

/// Publishes the policy with its candidates.
pub(super) struct InForce {
    published: Arc<ArcSwap<EffectivePolicy>>,
    parts: Mutex<Parts>,
    /// A transition has begun.
    begun: Notify,
}

struct Parts {
    policy: EffectivePolicy,
    /// By position in `policies.candidates`; `None` until one was read.
    candidates: Vec<Option<Shadow>>,
    /// The ports that admit both, and how long. `None` stands for every port without a mode of its own.
    transitions: BTreeMap<Option<u16>, Instant>,
}

impl InForce {
    pub(super) fn new(policy: EffectivePolicy, candidates: usize) -> Self {
        let published = Arc::new(ArcSwap::from_pointee(policy.clone()));
        let parts = Parts { policy, candidates: vec![None; candidates], transitions: BTreeMap::new() };
        Self { published, parts: Mutex::new(parts), begun: Notify::new() }
    }

    /// What connections read.
    pub(super) fn published(&self) -> Arc<ArcSwap<EffectivePolicy>> {
        Arc::clone(&self.published)
    }

    /// The policy that was read at the start: there is nothing to change from.
    pub(super) fn set_first_policy(&self, policy: EffectivePolicy) {
        let mut parts = self.parts();
        parts.policy = policy;
        self.publish(&parts);
    }

    /// A policy in place of another.
    pub(super) fn set_policy(&self, policy: EffectivePolicy) {
        let mut parts = self.parts();
        let until = Instant::now() + TRANSITION;
        let ports = policy.ports_to_or_from_disable(&parts.policy);
        parts.transitions.extend(ports.into_iter().map(|port| (port, until)));
        parts.policy = policy;
        self.publish(&parts);
        self.begun.notify_one();
    }

    pub(super) fn set_candidate(&self, index: usize, shadow: Shadow) {
        let mut parts = self.parts();
        if let Some(candidate) = parts.candidates.get_mut(index) {
            *candidate = Some(shadow);
        }
        self.publish(&parts);
    }

    /// Ends transitions when their time is over. Never returns.
    pub(super) async fn end_transitions(&self, changed: &ChangeNotifier) {
        loop {
            let next = self.parts().transitions.values().min().copied();
            let Some(next) = next else {
                self.begun.notified().await;
                continue;
            };
            sleep_until(next).await;
            let mut parts = self.parts();
            parts.transitions.retain(|_, until| *until > next);
            self.publish(&parts);
            drop(parts);
            changed.notify();
        }
    }

    /// Held until what was changed is published, so that two changes at once both count.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, parts: &Parts) {
        let ports: BTreeSet<_> = parts.transitions.keys().copied().collect();
        let shadows = parts.candidates.iter().flatten().cloned();
        let policy = parts.policy.clone().permissive_on(&ports).with_shadows(shadows);
        self.published.store(Arc::new(policy));
    }
}

#[cfg(test)]
mod tests {
    use portcullis_policy::{MeshSettings, Mode, PolicySet};
    use portcullis_proxy::changes::change_channel;

    use super::*;

    fn policy(mode: Mode) -> EffectivePolicy {
        let mesh = MeshSettings { default_mode: mode, ..MeshSettings::default() };
        EffectivePolicy::resolve(&PolicySet::default(), &mesh, "shop", &BTreeMap::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_to_or_from_disable_admits_both_first_and_no_other_does() {
        for (from, to, between) in [
            (Mode::Strict, Mode::Disable, Mode::Permissive),
            (Mode::Disable, Mode::Strict, Mode::Permissive),
            (Mode::Disable, Mode::Permissive, Mode::Permissive),
            (Mode::Permissive, Mode::Strict, Mode::Strict),
            (Mode::Strict, Mode::Permissive, Mode::Permissive),
        ] {
            let in_force = Arc::new(InForce::new(policy(Mode::Permissive), 0));
            in_force.set_first_policy(policy(from));
            let published = in_force.published();
            let mode = || published.load().mode(8080).mode;
            assert_eq!(mode(), from, "the first one holds at once");
            let (notifier, _changes) = change_channel();
            let task = tokio::spawn({
                let in_force = Arc::clone(&in_force);
                async move { in_force.end_transitions(&notifier).await }
            });
            in_force.set_policy(policy(to));
            assert_eq!(mode(), between, "{from} to {to}");
            tokio::time::sleep(TRANSITION - Duration::from_millis(10)).await;
            assert_eq!(mode(), between, "{from} to {to}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(mode(), to, "{from} to {to}");
            task.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_transition_does_not_delay_another_change() {
        let in_force = Arc::new(InForce::new(policy(Mode::Disable), 0));
        let (notifier, _changes) = change_channel();
        let task = tokio::spawn({
            let in_force = Arc::clone(&in_force);
            async move { in_force.end_transitions(&notifier).await }
        });
        in_force.set_policy(policy(Mode::Permissive));
        tokio::time::sleep(TRANSITION / 2).await;
        in_force.set_policy(policy(Mode::Strict));
        let published = in_force.published();
        tokio::time::sleep(TRANSITION / 2 + Duration::from_millis(10)).await;
        assert_eq!(published.load().mode(1).mode, Mode::Strict, "the second change does not start the time again");
        task.abort();
    }
}
