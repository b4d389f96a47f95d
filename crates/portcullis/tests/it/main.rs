//! Integration tests of this crate, one binary for all of them: each module is one subject.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod admin;
mod analyze;
mod attachment;
mod audit;
mod authorization;
mod authorization_commands;
mod break_glass;
mod build_commit;
mod ca;
mod ca_hardening;
mod ca_rotation;
mod certs_show;
mod check;
mod cli;
mod compose;
mod dashboard;
mod demo_app;
mod directory;
mod document;
mod domains;
mod endings;
mod examples;
mod gateway;
mod grammar;
mod guard;
mod hardening;
mod hbone;
mod hbone_directory;
mod hbone_outbound;
mod hbone_peers;
mod http_hint;
mod identity;
mod intercept;
mod istio_settings;
mod join;
mod join_rotation;
mod ledger;
mod lifecycle;
mod live_change;
mod logs;
mod migrate;
mod no_secrets;
mod operate;
mod otlp;
mod processes;
mod proxies;
mod proxy_protocol;
mod readiness;
mod reload;
mod resources;
mod schema;
mod service_manager;
mod stalled_receivers;
mod storm;
mod support;
mod tls_faults;
mod two_sidecars;
mod verify;
mod wire;
mod wire_cases;
mod wrong_input;
