//! Puts a set of policies in force: after each change of the files, and when a break-glass document ends.
//!
//! One timer waits for the next end. The system's clock may be set forward, or the machine may sleep, so the timer is renewed every
//! [`LOOK`] while there is such a document; otherwise it waits for a change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::Settings;
use portcullis_policy::{BreakGlass, EffectivePolicy, PolicySet};
use portcullis_proxy::changes::ChangeNotifier;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::change_log::ChangeLog;
use super::effective::{add_changes, log_authorization, log_modes, resolve};
use super::forward_clock::ForwardClock;
use super::in_force::InForce;

/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(10);

/// What is published, and how.
pub(super) struct Publisher {
    settings: Settings,
    effective: Arc<ArcSwap<EffectivePolicy>>,
    set: Arc<ArcSwap<PolicySet>>,
    in_force: Arc<InForce>,
    change_log: ChangeLog,
    clock: Arc<ForwardClock>,
    /// Held while a set is published, so that an end and a change do not overtake each other.
    publishing: Mutex<()>,
    changed: Notify,
}

impl Publisher {
    pub(super) fn new(
        settings: &Settings,
        in_force: &Arc<InForce>,
        change_log: &ChangeLog,
        clock: &Arc<ForwardClock>,
    ) -> Self {
        Self {
            settings: settings.clone(),
            effective: in_force.published(),
            set: Arc::default(),
            in_force: Arc::clone(in_force),
            change_log: change_log.clone(),
            clock: Arc::clone(clock),
            publishing: Mutex::new(()),
            changed: Notify::new(),
        }
    }

    /// The set in force; no connection reads it.
    pub(super) fn set(&self) -> Arc<ArcSwap<PolicySet>> {
        Arc::clone(&self.set)
    }

    /// The set that was read at the start.
    pub(super) fn put_first(&self, set: Arc<PolicySet>) {
        let _held = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        self.log_break_glass(&PolicySet::default(), &set);
        self.in_force.set_first_policy(resolve(&self.settings, &set));
        self.set.store(set);
        self.changed.notify_one();
    }

    /// A set in place of another.
    pub(super) fn put(&self, set: Arc<PolicySet>) {
        let _held = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(set);
        self.changed.notify_one();
    }

    fn replace(&self, set: Arc<PolicySet>) {
        let policy = resolve(&self.settings, &set);
        let before = self.effective.load();
        self.log_break_glass(&self.set.load(), &set);
        log_modes(&self.settings, &policy, Some(&before));
        log_authorization(&policy, Some(&before));
        add_changes(&self.change_log, &self.settings, &policy, &before);
        self.in_force.set_policy(policy);
        self.set.store(set);
    }

    /// Ends break-glass documents when their time is over. Never returns.
    pub(super) async fn end_break_glass(&self, notifier: &ChangeNotifier) {
        loop {
            let end = self.of_workload(&self.set.load()).map(|it| it.until).min();
            let Some(end) = end else {
                self.changed.notified().await;
                continue;
            };
            let left = u64::try_from(end.saturating_sub(self.clock.now())).unwrap_or(0);
            if left > 0 {
                tokio::select! {
                    () = sleep(Duration::from_secs(left).min(LOOK)) => {}
                    () = self.changed.notified() => {}
                }
                continue;
            }
            let held = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
            // Not the one from above: a change may have come in between.
            let set = PolicySet::clone(&self.set.load()).at(self.clock.now());
            self.replace(Arc::new(set));
            drop(held);
            notifier.notify();
        }
    }

    /// Seconds to the end of the document that opens this workload for longest; 0 without one.
    pub(super) fn break_glass_seconds(&self) -> i64 {
        let now = self.clock.now();
        let set = self.set.load();
        self.of_workload(&set).map(|it| it.until.saturating_sub(now).max(0)).max().unwrap_or(0)
    }

    fn of_workload<'s>(&'s self, set: &'s PolicySet) -> impl Iterator<Item = &'s Arc<BreakGlass>> {
        let workload = &self.settings.workload;
        set.active_break_glass().filter(|it| it.covers(&workload.namespace, &workload.labels))
    }

    /// A line for each document of this workload that begins, and each that ends.
    fn log_break_glass(&self, before: &PolicySet, after: &PolicySet) {
        let of = |set| self.of_workload(set).map(Arc::clone).collect::<Vec<_>>();
        let (was, is) = (of(before), of(after));
        let name = |it: &BreakGlass| format!("{}/{}", it.policy.namespace, it.policy.name);
        for it in is.iter().filter(|it| !was.contains(it)) {
            let (policy, until, owner) =
                (name(it), it.until_text(), it.policy.documentation.owner.as_deref().unwrap_or("-"));
            tracing::warn!(policy, until, reason = it.reason, owner, "break-glass: plaintext is let in until then");
            self.change_log.add(format!("break-glass {policy} until {until}: {}", it.reason));
        }
        for it in was.iter().filter(|it| !is.contains(it)) {
            let policy = name(it);
            tracing::warn!(policy, reason = it.reason, "break-glass ended");
            self.change_log.add(format!("break-glass {policy} ended"));
        }
    }
}
