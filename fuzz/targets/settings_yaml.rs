//! The proxy's own file: a mistake has to be found, never to crash or to widen what is let through.
//!
//! - Reading is deterministic, does not depend on the folder, and everything that is said about a file points into it.
//! - Accepted settings keep the invariants that the rest of the program relies on: durations and limits are above zero, no
//!   listener has the address of another one or of an app, mTLS names the expected identities, routes have a captured app.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portcullis_config::{RouteMode, Settings, UpstreamMode, read};

fuzz_target!(|text: &[u8]| {
    let here = Path::new("/etc/portcullis");
    match (read(text, here), read(text, here), read(text, Path::new("other"))) {
        (Ok(settings), Ok(again), Ok(_elsewhere)) => {
            assert_eq!(format!("{settings:?}"), format!("{again:?}"));
            relied_upon(&settings, here);
        }
        (Err(problems), Err(again), Err(elsewhere)) => {
            assert!(!problems.is_empty() && problems.len() == elsewhere.len());
            assert_eq!(format!("{problems:?}"), format!("{again:?}"));
            // A lone carriage return ends a line in YAML as well.
            let ends = text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
            for problem in problems {
                let line = usize::try_from(problem.position.line).unwrap_or(usize::MAX);
                assert!(line >= 1 && line <= ends + 2 && problem.position.column >= 1, "{problem:?}");
                assert!(!problem.reason.is_empty() && !problem.message.is_empty(), "{problem:?}");
            }
        }
        _ => panic!("read in two ways"),
    }
});

fn relied_upon(settings: &Settings, folder: &Path) {
    let timeouts = &settings.timeouts;
    let waits = [timeouts.handshake, timeouts.connect, timeouts.half_close, settings.rescan];
    assert!(waits.into_iter().chain(timeouts.idle).all(|wait| !wait.is_zero()), "{timeouts:?}");
    let limits = [settings.limits.connections, Some(settings.limits.handshakes), settings.workers];
    assert!(limits.into_iter().flatten().all(|limit| limit > 0));
    let listeners = settings.listeners();
    for (at, (_, one)) in listeners.iter().enumerate() {
        assert!(listeners.iter().skip(at + 1).all(|(_, other)| one != other || one.port() == 0), "{listeners:?}");
        let apps = settings.inbound.ports.iter().map(|port| port.app).chain(settings.inbound.apps.values().copied());
        assert!(apps.into_iter().all(|app| app != *one), "{listeners:?}");
    }
    let outbound = &settings.outbound;
    let modes = settings.upstream_targets().filter_map(|target| match &target.mode {
        UpstreamMode::Fixed(mode) => Some(mode),
        UpstreamMode::Auto { .. } => None,
    });
    for mode in modes.chain(outbound.routes.iter().map(|route| &route.mode)) {
        assert!(!matches!(mode, RouteMode::Mtls(expected) if expected.iter().next().is_none()));
    }
    assert!(outbound.routes.is_empty() || outbound.transparent.is_some());
    // What the configuration embeds is free of mistakes, or it would not have been accepted.
    assert!(settings.services.iter().all(|services| services.errors().is_empty()));
    let files = settings.identity_files().into_iter().chain(settings.policies.clone());
    for path in files {
        assert!(path.starts_with(folder) || path.is_absolute(), "{path:?}");
    }
}
