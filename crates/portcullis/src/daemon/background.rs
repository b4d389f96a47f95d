//! The tasks beside the data plane, all on the main thread.

use std::sync::Arc;
use std::time::Duration;

use portcullis_proxy::buffers::Buffers;
use portcullis_proxy::changes::ChangeNotifier;
use portcullis_proxy::drain::DrainTrigger;
use portcullis_telemetry::Metrics;
use portcullis_tls::CredentialReader;
use tokio::time::sleep;

use super::attachment::Attachment;
use super::change_log::{self, ChangeLog};
use super::client_names::ClientNames;
use super::in_force::InForce;
use super::publisher::Publisher;
use super::services::Services;
use super::{expiry_warning, free_memory};

/// What the tasks work on.
pub(super) struct Background {
    pub(super) notifier: ChangeNotifier,
    pub(super) in_force: Arc<InForce>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) services: Arc<Services>,
    pub(super) credentials: CredentialReader,
    pub(super) client_names: ClientNames,
    pub(super) change_log: ChangeLog,
    pub(super) metrics: Metrics,
    pub(super) drain: Arc<DrainTrigger>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) attachment: Attachment,
    /// What the app is called, for the log.
    pub(super) app: String,
}

impl Background {
    /// Starts them on the runtime that calls this. They end with it.
    pub(super) fn spawn(self) {
        let Self { notifier, in_force, publisher, services, credentials, .. } = self;
        let changed = notifier.clone();
        tokio::spawn(async move { in_force.end_transitions(&changed).await });
        let changed = notifier.clone();
        tokio::spawn(async move { publisher.end_break_glass(&changed).await });
        let (changed, followed) = (notifier.clone(), Arc::clone(&services));
        tokio::spawn(async move { followed.follow_names(&changed).await });
        tokio::spawn(async move { services.run(&notifier).await });
        tokio::spawn(expiry_warning::watch(credentials.clone()));
        tokio::spawn(self.client_names.run());
        tokio::spawn(change_log::watch_certificates(self.change_log, credentials));
        tokio::spawn(log_suppressed_lines(self.metrics));
        tokio::spawn(free_memory::watch(self.drain, self.buffers));
        tokio::spawn(self.attachment.watch(self.app));
    }
}

/// Logs each second how many lines about refused connections were suppressed.
async fn log_suppressed_lines(metrics: Metrics) {
    loop {
        sleep(Duration::from_secs(1)).await;
        metrics.log_suppressed();
    }
}
