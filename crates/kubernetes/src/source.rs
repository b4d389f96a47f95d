//! The source: one thread with a runtime of its own, away from the data plane.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use http::header::{HeaderValue, InvalidHeaderValue};
use portcullis_config::{HostPort, Kubernetes, KubernetesStartup, defaults};
use portcullis_manifest::ResourceKind;
use portcullis_policy::ParsedSource;
use portcullis_tls::Clock;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::collector::{Collector, CopySettings};
use crate::connection::{Server, Transport};
use crate::objects::WatchId;
use crate::status::Monitor;
use crate::watch::Watch;

/// What watches have seen and the collector has not: a list is not read faster than it is taken in.
const EVENTS: usize = 256;

/// What a source needs.
#[derive(Clone, Debug)]
pub struct SourceParts<'a> {
    /// `kubernetes` of the configuration.
    pub settings: &'a Kubernetes,
    /// The API server.
    pub address: HostPort,
    /// The namespaces that are watched: the own one and the root namespace, which may be the same.
    pub namespaces: [&'a str; 2],
    /// For the user agent.
    pub version: &'a str,
    /// The time by which the server's certificate is checked.
    pub clock: Clock,
}

/// Why a source does not start.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system has no thread left.
    #[error("cannot start a thread to watch the API server: {0}")]
    Thread(#[from] io::Error),
    /// The version cannot be sent.
    #[error("the user agent cannot be sent: {0}")]
    UserAgent(#[from] InvalidHeaderValue),
}

/// Watches an API server until it is dropped.
#[derive(Debug)]
pub struct Source {
    monitor: Monitor,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Starts to watch. `loader` gets every set that differs, whole, and in the source's thread; it swaps, and returns a short summary, or
    /// refuses and changes nothing.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start<L>(parts: &SourceParts<'_>, loader: L) -> Result<Self, SourceError>
    where
        L: FnMut(Vec<Arc<ParsedSource>>) -> Result<String, String> + Send + 'static,
    {
        let user_agent = HeaderValue::from_str(&format!("portcullis/{}", parts.version))?;
        let server = Server {
            address: parts.address.clone(),
            folder: parts.settings.service_account_folder.clone(),
            user_agent,
            clock: parts.clock.clone(),
        };
        let ids = watches(&parts.namespaces);
        let (relist, relisted) = watch::channel(0);
        let monitor = Monitor::new(relist.clone());
        let take = parts.settings.startup == KubernetesStartup::LastGood;
        let folder = parts.settings.copy_folder.clone();
        let (clock, of_thread, loader) = (parts.clock.clone(), monitor.clone(), Box::new(loader));
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let work = async move {
            let take_at = take.then(|| Instant::now() + defaults::KUBERNETES_STARTUP);
            let copy = folder.map(|folder| CopySettings { folder, take_at });
            let client = kube::Client::new(Transport::new(server, relist), "default");
            let (sender, events) = mpsc::channel(EVENTS);
            for id in &ids {
                let (id, client, events, relist) = (id.clone(), client.clone(), sender.clone(), relisted.clone());
                tokio::spawn(Watch { id, client, events, relist }.run());
            }
            drop(sender);
            Collector::new(&ids, of_thread, loader, copy, clock).run(events).await;
        };
        let thread = thread::Builder::new().name("kubernetes".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = work => {}
                    // Dropped is as good as told.
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { monitor, stop: Some(stop), thread: Some(thread) })
    }

    /// A handle that reads the status and requests lists.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }
}

impl Drop for Source {
    /// Returns when the loader can no longer be called.
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the loader has been logged by the hook; there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// Each kind in each namespace, once.
fn watches(namespaces: &[&str]) -> Vec<WatchId> {
    let namespaces: BTreeSet<_> = namespaces.iter().collect();
    let of = |namespace: &&str| ResourceKind::ALL.map(|kind| WatchId { kind, namespace: (*namespace).to_owned() });
    namespaces.into_iter().flat_map(of).collect()
}
