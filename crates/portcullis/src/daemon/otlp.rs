//! Starts the export of the access log to an OpenTelemetry collector, if there is an endpoint.

use std::fs;
use std::sync::Arc;

use anyhow::Context as _;
use portcullis_config::{Otlp, Settings};
use portcullis_otlp::{Exporter, ExporterParts, ResourceParts, queue};
use portcullis_telemetry::AccessSink;
use portcullis_tls::Clock;

use super::originators::system_roots;
use crate::build_info::VERSION;
use crate::exit::{Exit, Failure};

/// The exporter, and where connections leave their lines; neither without an endpoint.
type Started = (Option<Exporter>, Option<Arc<dyn AccessSink>>);

pub(super) fn start(settings: &Settings) -> Result<Started, Failure> {
    let Some(export) = &settings.telemetry.export else { return Ok((None, None)) };
    let roots = roots(export)?;
    let (sink, lines) = queue();
    let resource = ResourceParts {
        service: settings.service.clone(),
        namespace: settings.workload.namespace.clone(),
        version: VERSION.to_owned(),
    };
    let (own_id, clock) = (settings.own_id.to_string(), Clock::system());
    let parts = ExporterParts { settings: export, roots: &roots, resource, own_id, clock };
    let exporter = Exporter::start(parts, lines)
        .map_err(|error| Failure::message(Exit::BadConfig, format!("telemetry.otlp: {}: {error}", export.endpoint)))?;
    tracing::info!(endpoint = %export.endpoint, protocol = export.protocol.as_str(), "access log lines are sent to a collector");
    Ok((Some(exporter), Some(Arc::new(sink))))
}

/// The certificates that an https endpoint is verified with. Read once: a new file needs a restart.
fn roots(export: &Otlp) -> Result<Vec<u8>, Failure> {
    if !export.endpoint.tls {
        return Ok(Vec::new());
    }
    if let Some(path) = &export.certificate {
        let read = fs::read(path).with_context(|| format!("telemetry.otlp.certificate: {}", path.display()));
        return read.map_err(|error| Failure::new(Exit::BadConfig, error));
    }
    let missing = "telemetry.otlp: this system has no file with the CAs that it trusts; name one as certificate";
    system_roots().find_map(|path| fs::read(path).ok()).ok_or_else(|| Failure::message(Exit::BadConfig, missing))
}
