//! `/server_info` and `/listeners`: the process itself.

use std::time::{Instant, SystemTime};

use portcullis_config::Settings;
use portcullis_proxy::drain::Phase;
use serde_json::{Value, json};

use super::{duration, system_time};
use crate::commands::version::COMMIT;
use crate::daemon::own_file::{Now, OwnFile};

/// When it all began, by both clocks.
#[derive(Clone, Copy)]
pub(in crate::daemon) struct Birth {
    at: SystemTime,
    instant: Instant,
}

impl Birth {
    pub(in crate::daemon) fn now() -> Self {
        Self { at: SystemTime::now(), instant: Instant::now() }
    }
}

/// Envoy's words for how far a process is.
pub(in crate::daemon) const fn state(started: bool, phase: Phase) -> &'static str {
    match (phase, started) {
        (Phase::Running, false) => "INITIALIZING",
        (Phase::Running, true) => "LIVE",
        (Phase::Unready | Phase::InboundClosed | Phase::Forced, _) => "DRAINING",
    }
}

/// The page `/server_info`.
pub(in crate::daemon) fn server_info(birth: Birth, state: &str, own_file: &OwnFile) -> Value {
    let restart_needed = match own_file.now() {
        Now::Same => Value::Bool(false),
        Now::Changed => Value::Bool(true),
        Now::Unreadable(_) => Value::Null,
    };
    json!({
        "configFile": own_file.place().to_string(),
        "restartNeeded": restart_needed,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
        "state": state,
        "startedAt": system_time(birth.at),
        "uptime": duration(birth.instant.elapsed()),
        "pid": std::process::id(),
    })
}

/// The page `/listeners`.
pub(in crate::daemon) fn listeners(settings: &Settings, phase: Phase) -> Value {
    let listener = |(name, address): (String, std::net::SocketAddr)| {
        let closed = name.starts_with("inbound.") && phase >= Phase::InboundClosed || phase == Phase::Forced;
        json!({ "name": name, "address": address.to_string(), "state": if closed { "closed" } else { "listening" } })
    };
    json!({ "listeners": settings.listeners().into_iter().map(listener).collect::<Vec<_>>() })
}
