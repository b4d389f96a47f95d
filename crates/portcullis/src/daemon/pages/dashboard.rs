//! `/`: the page, of this sidecar alone.

use portcullis_api::{ProxyInfo, Timestamp};
use portcullis_dashboard::{Certificate, Sidecar, View, view};
use portcullis_report::Names;
use portcullis_tls::CredentialReader;

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
