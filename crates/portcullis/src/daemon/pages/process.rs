//! `/server_info` and `/listeners`: the process itself.

use portcullis_api::ProxyInfo;
use portcullis_config::Settings;
use portcullis_proxy::drain::Phase;
use serde_json::{Value, json};

use crate::build_info::{COMMIT, VERSION};
use crate::daemon::config_file::{ConfigChange, ConfigFile};
use crate::daemon::format::{StartTime, duration, system_time};

/// The state of the process, in Envoy's words.
pub(in crate::daemon) const fn state(started: bool, phase: Phase) -> &'static str {
    match (phase, started) {
        (Phase::Running, false) => "INITIALIZING",
        (Phase::Running, true) => "LIVE",
        (Phase::Unready | Phase::InboundClosed | Phase::Forced, _) => "DRAINING",
    }
}

/// The page `/server_info`.
pub(in crate::daemon) fn server_info(
    start_time: StartTime,
    state: &str,
    config_file: &ConfigFile,
    proxy: &ProxyInfo,
) -> Value {
    let restart_needed = match config_file.change() {
        ConfigChange::Unchanged => Value::Bool(false),
        ConfigChange::Changed => Value::Bool(true),
        ConfigChange::Unreadable(_) => Value::Null,
    };
    let mut page = json!({
        "configFile": config_file.source().to_string(),
        "restartNeeded": restart_needed,
        "version": VERSION,
        "commit": COMMIT,
        "state": state,
        "startedAt": system_time(start_time.wall()),
        "uptime": duration(start_time.uptime()),
        "pid": std::process::id(),
    });
    // Who answers, in the words of every other answer.
    if let (Value::Object(page), Ok(Value::Object(proxy))) = (&mut page, serde_json::to_value(proxy)) {
        for (name, value) in proxy {
            page.entry(name).or_insert(value);
        }
    }
    page
}

/// The page `/listeners`.
pub(in crate::daemon) fn listeners(settings: &Settings, phase: Phase) -> Value {
    let listener = |(name, address): (String, std::net::SocketAddr)| {
        let closed = name.starts_with("inbound.") && phase >= Phase::InboundClosed || phase == Phase::Forced;
        json!({ "name": name, "address": address.to_string(), "state": if closed { "closed" } else { "listening" } })
    };
    json!({ "listeners": settings.listeners().into_iter().map(listener).collect::<Vec<_>>() })
}
