//! Binds and serves the admin addresses.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use portcullis_admin::{Serves, State};
use portcullis_config::Settings;

/// A bound admin address, and what it serves.
pub(super) struct AdminListener {
    listener: TcpListener,
    serves: Serves,
}

pub(super) fn bind(settings: &Settings) -> anyhow::Result<Vec<AdminListener>> {
    let wanted = [
        ("admin", settings.admin, Serves::All),
        ("health", settings.health, Serves::Health),
        ("metrics", settings.metrics, Serves::Metrics),
    ];
    let mut listeners = Vec::new();
    for (field, address, serves) in wanted {
        if let Some(address) = address {
            let listener = listen(address).with_context(|| format!("{field}.listen"))?;
            listeners.push(AdminListener { listener, serves });
        }
    }
    Ok(listeners)
}

/// Serves them in a thread and a runtime of their own, so that load on the data plane does not delay `/healthz/ready`.
pub(super) fn serve(listeners: Vec<AdminListener>, state: Arc<dyn State>) -> anyhow::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async move {
            let mut servers = tokio::task::JoinSet::new();
            for AdminListener { listener, serves } in listeners {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(servers.spawn(portcullis_admin::serve(listener, serves, Arc::clone(&state)))),
                    Err(error) => tracing::error!(%error, "cannot serve an admin address"),
                }
            }
            while servers.join_next().await.is_some() {}
        });
    };
    thread::Builder::new().name("admin".to_owned()).spawn(work)?;
    Ok(())
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
