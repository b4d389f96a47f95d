//! Puts what the watches see together, and decides when it is offered to the loader.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::ParsedSource;
use portcullis_tls::Clock;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::copy::Copy;
use crate::failure::{Failure, FailureReason};
use crate::objects::{Objects, WatchId};
use crate::status::{Found, Monitor, WatchState, WatchStatus};
use crate::watch::Event;

/// Puts a set in force: a summary of it, or why it changes nothing.
pub(crate) type Loader = Box<dyn FnMut(Vec<Arc<ParsedSource>>) -> Result<String, String> + Send>;

/// From a change to offering it: what comes together is loaded together.
const SETTLE: Duration = Duration::from_millis(50);
/// At most a quarter of the time is spent on loading.
const REST_PER_LOAD: u32 = 3;
/// A failure that lasts this long is a problem. A watch that is cut and comes back is not.
const GRACE: Duration = Duration::from_secs(2);
/// Copies are written no more often than this.
const COPY_INTERVAL: Duration = Duration::from_secs(1);
/// One that could not be written is tried again: what is on disk is an older set until then.
const COPY_RETRY: Duration = Duration::from_secs(10);

/// What begins a sidecar while the server does not answer.
pub(crate) struct CopySettings {
    pub(crate) folder: PathBuf,
    /// When it is taken, if nothing was put in force until then; `None`: it is only written.
    pub(crate) take_at: Option<Instant>,
}

/// One watch, as far as it is known.
#[derive(Default)]
struct Watched {
    version: Option<&'static str>,
    state: WatchState,
    failing_since: Option<Instant>,
}

pub(crate) struct Collector {
    pub(crate) monitor: Monitor,
    pub(crate) loader: Loader,
    pub(crate) copy: Option<CopySettings>,
    pub(crate) clock: Clock,
    objects: Objects,
    watches: BTreeMap<WatchId, Watched>,
    /// The set was put in force at least once.
    is_loaded: bool,
    /// It differs from what the loader got last.
    is_dirty: bool,
    /// When it is offered.
    load_at: Option<Instant>,
    /// Not before.
    rest_until: Instant,
    copy_at: Option<Instant>,
    /// Not before.
    copy_rest_until: Instant,
    refused: Option<String>,
    copy_problem: Option<String>,
}

impl Collector {
    pub(crate) fn new(
        ids: &[WatchId],
        monitor: Monitor,
        loader: Loader,
        copy: Option<CopySettings>,
        clock: Clock,
    ) -> Self {
        let watches = ids.iter().map(|id| (id.clone(), Watched::default())).collect();
        let collector = Self {
            monitor,
            loader,
            copy,
            clock,
            objects: Objects::default(),
            watches,
            is_loaded: false,
            is_dirty: true,
            load_at: None,
            rest_until: Instant::now(),
            copy_at: None,
            copy_rest_until: Instant::now(),
            refused: None,
            copy_problem: None,
        };
        collector.show();
        collector
    }

    /// Returns when there is no watch any more.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<(WatchId, Event)>) {
        loop {
            let take_at = self.copy.as_ref().and_then(|copy| copy.take_at);
            let next = [self.load_at, self.copy_at, take_at].into_iter().flatten().min();
            let timer = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv() => match event {
                    Some((id, event)) => self.see(&id, event),
                    None => return,
                },
                () = timer => self.act(),
            }
        }
    }

    fn see(&mut self, id: &WatchId, event: Event) {
        let objects = &mut self.objects;
        let changed = match event {
            Event::Begin => {
                objects.begin_list(id);
                false
            }
            Event::Listed(name, text) => objects.listed(id, name, text),
            Event::Apply(name, text) => objects.apply(id, name, text),
            Event::Delete(name) => objects.delete(id, &name),
            Event::End => {
                let changed = objects.end_list(id);
                self.set_state(id, WatchState::Synced);
                changed
            }
            Event::Version(version) => {
                if let Some(watched) = self.watches.get_mut(id) {
                    watched.version = Some(version);
                }
                false
            }
            Event::NotInstalled => {
                self.set_state(id, WatchState::NotInstalled);
                false
            }
            Event::Failed(Failure { reason, message, .. }) => {
                self.set_state(id, WatchState::Failed { reason, message });
                false
            }
        };
        self.is_dirty |= changed;
        if changed && !self.may_load() {
            self.show();
        }
        if self.is_dirty && self.load_at.is_none() && self.may_load() {
            self.load_at = Some((Instant::now() + SETTLE).max(self.rest_until));
        }
    }

    fn set_state(&mut self, id: &WatchId, state: WatchState) {
        let Some(watched) = self.watches.get_mut(id) else { return };
        let is_failing = matches!(state, WatchState::Failed { .. });
        watched.failing_since = is_failing.then(|| watched.failing_since.unwrap_or_else(Instant::now));
        watched.state = state;
        if self.watches.values().all(is_complete) {
            self.monitor.set_copy(None);
        }
        self.show();
    }

    /// Nothing is put in force before every kind was listed: what is missing could be what forbids.
    fn may_load(&self) -> bool {
        self.is_loaded || (self.watches.values().all(is_complete) && !self.objects.has_unknown())
    }

    /// What is due.
    fn act(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if let Some(copy) = self.copy.as_mut().filter(|copy| is_due(copy.take_at)) {
            copy.take_at = None;
            if !self.is_loaded {
                self.take_copy();
            }
        }
        if is_due(self.load_at) {
            self.load_at = None;
            if self.may_load() {
                self.load();
            }
        }
        if is_due(self.copy_at) {
            self.copy_at = None;
            self.write_copy();
        }
        self.show();
    }

    fn load(&mut self) {
        let begun = Instant::now();
        if !self.is_loaded {
            self.keep_missing_kinds();
        }
        self.is_dirty = false;
        let result = match self.objects.too_large() {
            Some(problem) => Err(problem),
            None => (self.loader)(self.objects.sources()),
        };
        let now = Instant::now();
        self.rest_until = now + now.duration_since(begun) * REST_PER_LOAD;
        match result {
            Ok(summary) => {
                self.is_loaded = true;
                self.refused = None;
                self.monitor.in_force(summary, self.objects.count());
                if self.copy.is_some() {
                    self.copy_at = self.copy_at.or_else(|| Some((now + SETTLE).max(self.copy_rest_until)));
                }
            }
            Err(problem) => self.refused = Some(problem),
        }
    }

    /// At the start: a kind that the server does not have, and of which the copy has objects, was removed or is not there yet. Those
    /// objects may be what forbids, so they stay, as they would have in a sidecar that went on running.
    fn keep_missing_kinds(&mut self) {
        let Some(copy) = &self.copy else { return };
        let is_missing =
            |(id, it): &(&WatchId, &Watched)| it.state == WatchState::NotInstalled && !self.objects.has_any(id);
        let missing: Vec<_> = self.watches.iter().filter(is_missing).map(|(id, _)| id.clone()).collect();
        if missing.is_empty() {
            return;
        }
        let ids: Vec<_> = self.watches.keys().cloned().collect();
        let kept = Copy::read(&copy.folder).map_err(|error| error.to_string()).and_then(|read| {
            let kept = read.map(|Copy { objects, .. }| Objects::restore(&ids, objects)).transpose()?;
            Ok(kept.unwrap_or_default())
        });
        match kept {
            Ok(mut kept) => missing.iter().for_each(|id| self.objects.take_over(id, &mut kept)),
            // It is replaced by what the server has.
            Err(error) => tracing::error!(
                source = "kubernetes",
                problem = %error,
                "the server does not have every kind, and the copy cannot be read: objects of missing kinds are not in force"
            ),
        }
    }

    /// The server has not answered in time.
    fn take_copy(&mut self) {
        let Some(copy) = &self.copy else { return };
        let ids: Vec<_> = self.watches.keys().cloned().collect();
        let taken = Copy::read(&copy.folder).map_err(|error| error.to_string()).and_then(|read| {
            let Some(Copy { written_at, objects, .. }) = read else { return Ok(None) };
            Objects::restore(&ids, objects).map(|objects| Some((written_at, objects)))
        });
        match taken {
            Ok(None) => {
                tracing::warn!(folder = %copy.folder.display(), "the API server does not answer, and there is no copy")
            }
            Err(error) => self.copy_problem = Some(error),
            Ok(Some((written_at, objects))) => {
                let objects_count = objects.count();
                let age = self.clock.now_unix().saturating_sub(written_at);
                tracing::warn!(
                    age,
                    objects = objects_count,
                    "the API server does not answer: the copy of the last valid set is taken"
                );
                // Lists that are complete already are newer, and are listed again.
                self.objects = objects;
                self.monitor.set_copy(Some(written_at));
                self.load();
                self.copy_at = None;
                self.monitor.reload_now();
            }
        }
    }

    fn write_copy(&mut self) {
        let Some(copy) = &self.copy else { return };
        let written = Copy::new(self.clock.now_unix(), self.objects.keep()).write(&copy.folder);
        let now = Instant::now();
        self.copy_rest_until = now + COPY_INTERVAL;
        self.copy_at = written.is_err().then(|| now + COPY_RETRY);
        self.copy_problem = written.err().map(|error| error.to_string());
    }

    /// Publishes the state.
    fn show(&self) {
        let watches = self.watches.iter().map(|(id, watched)| WatchStatus {
            kind: id.kind,
            namespace: id.namespace.clone(),
            version: watched.version,
            state: watched.state.clone(),
        });
        self.monitor.set_watches(watches.collect());
        self.monitor.set_problem(self.problem());
    }

    fn problem(&self) -> Option<Found> {
        let mut found = self.failures();
        let gone =
            self.watches.iter().filter(|(id, it)| it.state == WatchState::NotInstalled && self.objects.has_any(id));
        found.extend(
            gone.map(|(id, _)| Cause::new("not-installed", format!("{id}: the server has no such kind any more"))),
        );
        found.extend(self.refused.iter().map(|problem| Cause::new("refused", problem.replace('\n', "; "))));
        found.extend(self.objects.problems().into_iter().map(|problem| Cause::new("invalid-object", problem)));
        found.extend(self.copy_problem.iter().map(|problem| Cause::new("copy", problem.clone())));
        let reason = found.first()?.reason;
        let message = found.iter().map(|cause| cause.message.as_str()).collect::<Vec<_>>().join("; ");
        Some(Found { reason, message, causes: found.into_iter().map(|cause| cause.key).collect() })
    }

    /// Watches that fail, as soon as one of them does so for a while.
    fn failures(&self) -> Vec<Cause> {
        if !self.watches.values().any(|it| it.failing_since.is_some_and(|at| at.elapsed() >= GRACE)) {
            return Vec::new();
        }
        // One cause for many watches is told once.
        let mut causes: BTreeMap<(FailureReason, &str), Vec<&WatchId>> = BTreeMap::new();
        for (id, watched) in &self.watches {
            if let WatchState::Failed { reason, message } = &watched.state {
                causes.entry((*reason, message)).or_default().push(id);
            }
        }
        let cause = |((reason, message), ids): ((FailureReason, &str), Vec<&WatchId>)| {
            let names = || ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let which = if ids.len() == self.watches.len() { "everything".to_owned() } else { names() };
            // A role is missing in one namespace; all else is the server's.
            let key = match (reason, ids.first()) {
                (FailureReason::Forbidden, Some(id)) => format!("{} in {}", reason.as_str(), id.namespace),
                _ => reason.as_str().to_owned(),
            };
            Cause { reason: reason.as_str(), message: format!("{which}: {message}"), key }
        };
        causes.into_iter().map(cause).collect()
    }
}

/// One of the things that are wrong.
struct Cause {
    reason: &'static str,
    message: String,
    /// Of [`Found::causes`].
    key: String,
}

impl Cause {
    /// One that is told apart by its words.
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, key: message.clone(), message }
    }
}

const fn is_complete(watched: &Watched) -> bool {
    matches!(watched.state, WatchState::Synced | WatchState::NotInstalled)
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
