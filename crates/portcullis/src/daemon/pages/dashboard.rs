//! `/`: the page, of this sidecar alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_api::{ProxyInfo, Timestamp};
use portcullis_dashboard::{Certificate, Sidecar, View, view};
use portcullis_report::Names;
use portcullis_tls::CredentialReader;

/// How old a view may be. A full ledger takes tens of milliseconds, on the thread that also answers probes.
const FRESH: Duration = Duration::from_secs(1);

/// The last view, for all pages that are open.
#[derive(Default)]
pub(in crate::daemon) struct LastView(Mutex<Option<(Instant, Arc<View>)>>);

impl LastView {
    /// The last one, or a new one if that is too old.
    pub(in crate::daemon) fn get_or_make(&self, make: impl FnOnce() -> View) -> Arc<View> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, view)) = last.as_ref().filter(|(made, _)| made.elapsed() < FRESH) {
            return Arc::clone(view);
        }
        let view = Arc::new(make());
        *last = Some((Instant::now(), Arc::clone(&view)));
        view
    }
}

/// The view of one sidecar.
pub(in crate::daemon) fn view_of(proxy: &ProxyInfo, sidecar: Sidecar) -> View {
    let title = format!("{}.{}", proxy.name, proxy.namespace);
    view(title.clone(), &[(title, Ok(sidecar))], &Names::default(), proxy.now)
}

/// The certificate of the workload, if there is one yet.
pub(in crate::daemon) fn certificate(proxy: &ProxyInfo, reader: &CredentialReader) -> Option<Certificate> {
    let latest = reader.latest()?;
    Some(Certificate {
        workload: format!("{}.{}", proxy.name, proxy.namespace),
        identity: latest.id().to_string(),
        not_before: Timestamp::from_unix(latest.svid().leaf.not_before_unix),
        not_after: Timestamp::from_unix(latest.not_after_unix()),
        problem: reader.current().err().map(|why| why.to_string()),
    })
}
