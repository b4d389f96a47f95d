//! The service directory in force, made from the same files as the policies.
//!
//! It comes into force [`DELAY`] after the policies: a port that changes to or from DISABLE admits mTLS and plaintext by then
//! (`in_force::TRANSITION`), also in a sidecar that reads its files a little later than this one.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::{Settings, UpstreamMode, UpstreamTarget};
use portcullis_dns::Names;
use portcullis_policy::PolicySet;
use portcullis_policy::directory::{Client, Directory, Locality};
use portcullis_proxy::ServiceTable;
use portcullis_proxy::changes::ChangeNotifier;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::originators::OriginatorFiles;

/// From reading a directory to putting it in force.
pub(super) const DELAY: Duration = Duration::from_millis(250);
/// From a change of a name's addresses to asking open connections.
const SETTLE_NAMES: Duration = Duration::from_secs(2);
/// How often the files that DestinationRules name are read again.
const READ_FILES: Duration = Duration::from_secs(10);

/// Makes directories, and publishes each when its time has come.
pub(super) struct Services {
    published: Arc<ArcSwap<ServiceTable>>,
    names: Arc<Names>,
    /// Hosts that the configuration names.
    configured_hosts: BTreeSet<Arc<str>>,
    settings: Settings,
    state: Mutex<State>,
    begun: Notify,
}

struct State {
    /// The directory that was read last.
    latest: Arc<Directory>,
    /// What is to be published, and when.
    waiting: VecDeque<(Instant, Arc<Directory>)>,
    files: OriginatorFiles,
}

impl Services {
    pub(super) fn new(settings: &Settings, names: Arc<Names>) -> Self {
        let state = State {
            latest: Arc::default(),
            waiting: VecDeque::new(),
            files: OriginatorFiles::new(settings.outbound.tls_folder.clone()),
        };
        let services = Self {
            published: Arc::default(),
            names,
            configured_hosts: configured_hosts(settings),
            settings: settings.clone(),
            state: Mutex::new(state),
            begun: Notify::new(),
        };
        services.watch_names(&services.state());
        services
    }

    /// What connections read.
    pub(super) fn published(&self) -> Arc<ArcSwap<ServiceTable>> {
        Arc::clone(&self.published)
    }

    /// The set that was read at the start: it is in force at once.
    pub(super) fn set_first(&self, set: &PolicySet) {
        let mut state = self.state();
        state.latest = Arc::new(self.resolve(set));
        self.watch_names(&state);
        let latest = Arc::clone(&state.latest);
        self.publish(&mut state, latest);
    }

    /// A set in place of another.
    pub(super) fn set(&self, set: &PolicySet) {
        let directory = Arc::new(self.resolve(set));
        let mut state = self.state();
        if directory == state.latest {
            return;
        }
        state.latest = Arc::clone(&directory);
        state.waiting.push_back((Instant::now() + DELAY, directory));
        self.watch_names(&state);
        self.begun.notify_one();
    }

    /// Makes open connections ask again where they go when names have new addresses. Never returns.
    pub(super) async fn follow_names(&self, notifier: &ChangeNotifier) {
        let mut changed = self.names.changed();
        while changed.changed().await.is_ok() {
            // Names change one by one, and every connection asks.
            sleep(SETTLE_NAMES).await;
            changed.mark_unchanged();
            notifier.notify();
        }
    }

    /// Publishes what waits when its time has come, and reads changed files of DestinationRules. Never returns.
    pub(super) async fn run(&self, changed: &ChangeNotifier) {
        let mut read_files = Instant::now() + READ_FILES;
        loop {
            let next = self.state().waiting.front().map(|(at, _)| *at);
            tokio::select! {
                () = self.begun.notified() => continue,
                () = sleep_until(next.unwrap_or(read_files).min(read_files)) => {}
            }
            let mut state = self.state();
            let now = Instant::now();
            let mut due = None;
            while state.waiting.front().is_some_and(|(at, _)| *at <= now) {
                due = state.waiting.pop_front().map(|(_, directory)| directory);
            }
            if now >= read_files {
                read_files = now + READ_FILES;
                if due.is_none() && state.files.have_changed() {
                    due = Some(self.published.load().shared_directory());
                }
            }
            if let Some(directory) = due {
                self.publish(&mut state, directory);
                // The names of what it replaced are not needed any more.
                self.watch_names(&state);
                drop(state);
                changed.notify();
            }
        }
    }

    fn publish(&self, state: &mut State, directory: Arc<Directory>) {
        let originators = state.files.originators(&directory);
        self.published.store(Arc::new(ServiceTable::new(directory, originators)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve(&self, set: &PolicySet) -> Directory {
        let Settings { workload, locality, mesh, .. } = &self.settings;
        let locality = locality.as_deref().and_then(Locality::parse);
        let client = Client { namespace: &workload.namespace, labels: &workload.labels, locality: locality.as_ref() };
        Directory::resolve(set, &mesh.policy, &client)
    }

    /// Names are resolved before a connection needs them: those of every directory that waits, too.
    fn watch_names(&self, state: &State) {
        let published = self.published.load();
        let waiting = state.waiting.iter().map(|(_, directory)| directory);
        let waiting = waiting.map(|directory| &**directory);
        let directories = waiting.chain([published.directory(), &*state.latest]);
        let names = directories.flat_map(|directory| directory.names().iter().cloned());
        self.names.watch(names.chain(self.configured_hosts.iter().cloned()).collect::<BTreeSet<_>>());
    }
}

/// The hosts of routes, and of listeners that the directory decides.
fn configured_hosts(settings: &Settings) -> BTreeSet<Arc<str>> {
    let outbound = &settings.outbound;
    let routes = outbound.routes.iter().flat_map(|route| &route.hosts);
    let is_auto = |target: &&UpstreamTarget| matches!(target.mode, UpstreamMode::Auto { .. });
    let upstreams = settings.upstream_targets().filter(is_auto).map(|target| &target.address.host);
    let names = routes.chain(upstreams).filter(|host| host.parse::<IpAddr>().is_err());
    names.map(|host| Arc::from(host.as_str())).collect()
}
