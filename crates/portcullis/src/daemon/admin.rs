//! Binds and serves the admin addresses and the admin socket.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use portcullis_admin::{Serves, State};
use portcullis_config::Settings;

use super::admin_socket::{self, SocketFile};

/// What is bound.
pub(super) struct AdminListeners {
    addresses: Vec<AdminListener>,
    socket: Option<UnixListener>,
    /// Removes the socket when the process ends.
    socket_file: Option<SocketFile>,
}

/// A bound admin address, and what it serves.
struct AdminListener {
    listener: TcpListener,
    serves: Serves,
}

pub(super) fn bind(settings: &Settings) -> anyhow::Result<AdminListeners> {
    let wanted = [
        ("admin", settings.admin, Serves::All),
        ("health", settings.health, Serves::Health),
        ("metrics", settings.metrics, Serves::Metrics),
    ];
    let mut addresses = Vec::new();
    for (field, address, serves) in wanted {
        if let Some(address) = address {
            let listener = listen(address).with_context(|| format!("{field}.listen"))?;
            addresses.push(AdminListener { listener, serves });
        }
    }
    let socket = settings.admin_socket.as_ref().map(admin_socket::bind).transpose().context("admin.socket")?;
    let (socket, socket_file) = socket.unzip();
    Ok(AdminListeners { addresses, socket, socket_file })
}

/// Serves them in a thread and a runtime of their own, so that load on the data plane does not delay `/healthz/ready`.
pub(super) fn serve(listeners: AdminListeners, state: Arc<dyn State>) -> anyhow::Result<Option<SocketFile>> {
    let AdminListeners { addresses, socket, socket_file } = listeners;
    if addresses.is_empty() && socket.is_none() {
        return Ok(socket_file);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        runtime.block_on(async move {
            let mut servers = tokio::task::JoinSet::new();
            for AdminListener { listener, serves } in addresses {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(servers.spawn(portcullis_admin::serve(listener, serves, Arc::clone(&state)))),
                    Err(error) => tracing::error!(%error, "cannot serve an admin address"),
                }
            }
            match socket.map(tokio::net::UnixListener::from_std).transpose() {
                Ok(None) => {}
                Ok(Some(socket)) => drop(servers.spawn(portcullis_admin::serve_unix(socket, state))),
                Err(error) => tracing::error!(%error, "cannot serve the admin socket"),
            }
            while servers.join_next().await.is_some() {}
        });
    };
    thread::Builder::new().name("admin".to_owned()).spawn(work)?;
    Ok(socket_file)
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
