//! The certificates of gateway listeners, from files: valid at the start, and replaced all at once by a change that is valid too.

use std::fmt::Write as _;
use std::sync::Arc;

use portcullis_config::{GatewayCertificate, GatewayTls, Settings};
use portcullis_proxy::GatewayServers;
use portcullis_reload::{FileContent, Monitor, Watcher};
use portcullis_telemetry::Metrics;
use portcullis_tls::{CertificateFor, Clock, MinVersion, OneWayParts, OneWayServer, utc};

use super::file_mode::SecretFileMode;
use super::identity_files::watch_files;
use super::source_status::refresh_reload_metrics;
use crate::exit::Failure;

/// What gateway listeners serve outsiders with, and what renews it.
pub(super) struct GatewayFiles {
    pub(super) servers: Arc<GatewayServers>,
    /// Watches until it is dropped; none where no listener has TLS.
    watcher: Option<Watcher>,
}

/// Reads the files, which must be there and good, and watches them from then on.
pub(super) fn watch(settings: &Settings) -> Result<GatewayFiles, Failure> {
    let servers = Arc::<GatewayServers>::default();
    let paths: Vec<_> = settings.gateway.files().cloned().collect();
    if paths.is_empty() {
        return Ok(GatewayFiles { servers, watcher: None });
    }
    let listeners: Vec<_> = settings.gateway.listeners.iter().map(|listener| listener.tls.clone()).collect();
    let private = settings.identity.as_ref().is_some_and(|identity| identity.require_private_mode);
    let keys = listeners.iter().flatten().map(|tls| tls.certificates.len()).sum();
    let mut modes: Vec<_> = (0..keys).map(|_| SecretFileMode::new("private key", private)).collect();
    let published = Arc::clone(&servers);
    let loader = move |files: &[FileContent]| {
        let servers = load(&listeners, files, &mut modes)?;
        let not_after = servers.iter().flatten().map(|server| server.not_after_unix()).min();
        published.publish(servers);
        Ok::<_, String>(format!("certificates valid until {}", not_after.map_or_else(String::new, utc)))
    };
    let watcher = watch_files("gateway", settings, paths, loader)?;
    Ok(GatewayFiles { servers, watcher: Some(watcher) })
}

impl GatewayFiles {
    pub(super) fn monitor(&self) -> Option<Monitor> {
        self.watcher.as_ref().map(Watcher::monitor)
    }
}

/// Sets the metrics that are computed when they are scraped. `now` is in Unix time.
pub(super) fn refresh(metrics: &Metrics, monitor: &Monitor, servers: &GatewayServers, now: f64) {
    refresh_reload_metrics(&metrics.gateway, monitor);
    if let Some(end) = servers.not_after_unix() {
        #[allow(clippy::cast_precision_loss, reason = "times of this century are far below 2^53")]
        metrics.set_gateway_expiry(end as f64 - now);
    }
}

/// One server for each listener with TLS. The files come in the order of `Gateway::files`.
fn load(
    listeners: &[Option<GatewayTls>],
    files: &[FileContent],
    modes: &mut [SecretFileMode],
) -> Result<Vec<Option<Arc<OneWayServer>>>, String> {
    let (mut files, mut modes) = (files.iter(), modes.iter_mut());
    let mut servers = Vec::with_capacity(listeners.len());
    for (index, tls) in listeners.iter().enumerate() {
        let Some(tls) = tls else {
            servers.push(None);
            continue;
        };
        let mut read = Vec::new();
        let server = one(tls, &mut files, &mut modes, &mut read);
        servers.push(Some(server.map_err(|error| {
            let mut message = format!("gateway.listeners[{index}].tls.{error}");
            for file in read {
                let _written = write!(message, "\n  {}", file.path.display());
            }
            message
        })?));
    }
    Ok(servers)
}

fn one<'f>(
    tls: &GatewayTls,
    files: &mut impl Iterator<Item = &'f FileContent>,
    modes: &mut std::slice::IterMut<'_, SecretFileMode>,
    read: &mut Vec<&'f FileContent>,
) -> Result<Arc<OneWayServer>, String> {
    let mut next = || {
        let file = files.next().ok_or_else(|| "a file is missing".to_owned())?;
        read.push(file);
        Ok::<_, String>(file)
    };
    let mut certificates = Vec::new();
    for (index, GatewayCertificate { hosts, .. }) in tls.certificates.iter().enumerate() {
        let (chain, key) = (next()?, next()?);
        let mode = modes.next().ok_or_else(|| "a file is missing".to_owned())?;
        mode.check(key).map_err(|error| format!("certificates[{index}].privateKey: {error}"))?;
        let key = key.content.to_vec().into();
        certificates.push(CertificateFor { hosts: hosts.clone(), chain: chain.content.to_vec(), key });
    }
    let client_ca = match tls.client_ca {
        Some(_) => Some(next()?.content.to_vec()),
        None => None,
    };
    let parts = OneWayParts {
        certificates,
        first_without_name: tls.first_without_name,
        client_ca,
        min_version: if tls.allow_tls12 { MinVersion::Tls12 } else { MinVersion::Tls13 },
    };
    OneWayServer::new(&parts, &Clock::system()).map(Arc::new).map_err(|error| error.to_string())
}
