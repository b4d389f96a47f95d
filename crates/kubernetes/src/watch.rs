//! One list and watch, for ever: find the served version, list, watch, and begin again after any failure.
//!
//! After a failure everything is listed again, not only watched from where it broke off: an API server that was restored from a snapshot
//! has gone back in time, and would never send what lies before.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, watcher};
use portcullis_manifest::ResourceKind;
use portcullis_policy::resource_versions;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{Backoff, Failure, Verdict, of_request, of_watch};
use crate::object::{Name, document};
use crate::objects::WatchId;

/// A whole list, page by page: each page gets this long.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Even a watch without a failure is replaced by a list after this, and up to half as much again: what was lost without a
/// trace comes back.
const RELIST: Duration = Duration::from_secs(1800);
/// A watch that lived this long after its list was a good one.
const GOOD_WATCH: Duration = Duration::from_millis(500);
/// A kind that is missing is looked for this often at the least.
const LOOK_FOR_KIND: Duration = Duration::from_secs(10);
/// A server that starts does not know its kinds yet. What is missing is asked for again over this time before it counts as missing.
const CONFIRM_MISSING: Duration = Duration::from_secs(2);
const CONFIRM_PAUSE: Duration = Duration::from_millis(400);

/// What a watch has seen.
#[derive(Debug)]
pub(crate) enum Event {
    /// The served version that is used.
    Version(&'static str),
    Begin,
    Listed(Name, String),
    End,
    Apply(Name, String),
    Delete(Name),
    /// The server does not have the kind.
    NotInstalled,
    Failed(Failure),
}

/// One watch.
pub(crate) struct Watch {
    pub(crate) id: WatchId,
    pub(crate) client: kube::Client,
    pub(crate) events: mpsc::Sender<(WatchId, Event)>,
    /// A change asks for a new list: a request to reload, or a new connection.
    pub(crate) relist: watch::Receiver<u64>,
}

/// Why a list and watch ended.
enum Ended {
    /// Another list is wanted, and nothing is wrong.
    Relist,
    NotFound,
    Failed(Failure),
    /// Nobody listens any more.
    Closed,
}

/// How far an attempt came, which tells how soon there may be another.
#[derive(Clone, Copy, PartialEq)]
enum Came {
    Nowhere,
    /// The server has answered.
    ToAnAnswer,
    /// It was watched for a while.
    Through,
}

impl Watch {
    /// Returns when nobody listens any more.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let (ended, came) = self.once().await;
            match (&ended, came) {
                (_, Came::Through) => backoff.reset(),
                (Ended::Failed(failure), Came::ToAnAnswer) if failure.is_cut => backoff.was_cut(),
                _ => {}
            }
            let (event, delay) = match ended {
                Ended::Closed => return,
                Ended::Relist if came == Came::Through => continue,
                // A server that answers "expired" to everything is not asked without a pause.
                Ended::Relist => {
                    sleep(backoff.next()).await;
                    continue;
                }
                Ended::NotFound => (Event::NotInstalled, backoff.next().min(LOOK_FOR_KIND)),
                Ended::Failed(failure) => {
                    let delay = backoff.next().max(failure.pause.unwrap_or_default());
                    (Event::Failed(failure), delay)
                }
            };
            if self.events.send((self.id.clone(), event)).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(delay) => {}
                changed = self.relist.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One list and the watch after it.
    async fn once(&mut self) -> (Ended, Came) {
        let resource = match self.find().await {
            Ok(resource) => resource,
            Err(ended) => return (ended, Came::Nowhere),
        };
        // The connection of this list is new enough.
        self.relist.mark_unchanged();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.id.namespace, &resource);
        let mut stream = pin!(watcher(api, watcher::Config::default()));
        let mut listed_at: Option<Instant> = None;
        let relist = Instant::now() + RELIST.mul_f64(1.0 + fastrand::f64() / 2.0);
        let came = |listed_at: Option<Instant>| match listed_at {
            Some(at) if at.elapsed() >= GOOD_WATCH => Came::Through,
            _ => Came::ToAnAnswer,
        };
        loop {
            // What breaks off without a word is found by the connection's PING; a list has a deadline of its own.
            let until = if listed_at.is_some() { relist } else { Instant::now() + PAGE_TIMEOUT };
            let next = tokio::select! {
                next = timeout(until.saturating_duration_since(Instant::now()), stream.next()) => next,
                changed = self.relist.changed() => {
                    return (if changed.is_ok() { Ended::Relist } else { Ended::Closed }, Came::Through);
                }
            };
            let event = match next {
                Err(_) if listed_at.is_some() => return (Ended::Relist, Came::Through),
                Err(_) => {
                    let seconds = PAGE_TIMEOUT.as_secs();
                    let failure = Failure::unreachable(format!("the list does not come: nothing for {seconds} s"));
                    return (Ended::Failed(failure), Came::ToAnAnswer);
                }
                Ok(None) => return (Ended::Relist, came(listed_at)),
                Ok(Some(Err(error))) => {
                    let ended = match of_watch(&error) {
                        Verdict::NotFound => Ended::NotFound,
                        Verdict::Expired => Ended::Relist,
                        Verdict::Failed(failure) => Ended::Failed(failure),
                    };
                    return (ended, came(listed_at));
                }
                Ok(Some(Ok(event))) => event,
            };
            if matches!(event, watcher::Event::InitDone) {
                listed_at = Some(Instant::now());
            } else if matches!(event, watcher::Event::Init) {
                listed_at = None;
            }
            if self.events.send((self.id.clone(), translate(event, &resource))).await.is_err() {
                return (Ended::Closed, Came::Nowhere);
            }
        }
    }

    /// The first version that is understood and served. A kind counts as missing when it was missing for a while.
    async fn find(&self) -> Result<ApiResource, Ended> {
        let confirmed = Instant::now() + CONFIRM_MISSING;
        loop {
            for version in resource_versions(self.id.kind.name()) {
                let is_served = timeout(PAGE_TIMEOUT, serves(&self.client, self.id.kind, version)).await;
                let late = |_| Verdict::Failed(Failure::unreachable("the list of kinds does not come"));
                match is_served.map_err(late).and_then(|served| served) {
                    Ok(true) => {
                        if self.events.send((self.id.clone(), Event::Version(version))).await.is_err() {
                            return Err(Ended::Closed);
                        }
                        return Ok(resource(self.id.kind, version));
                    }
                    Ok(false) | Err(Verdict::NotFound | Verdict::Expired) => {}
                    Err(Verdict::Failed(failure)) => return Err(Ended::Failed(failure)),
                }
            }
            if Instant::now() >= confirmed {
                return Err(Ended::NotFound);
            }
            sleep(CONFIRM_PAUSE).await;
        }
    }
}

async fn serves(client: &kube::Client, kind: ResourceKind, version: &str) -> Result<bool, Verdict> {
    let group = format!("{}/{version}", kind.group());
    let list = client.list_api_group_resources(&group).await.map_err(|error| of_request(&error))?;
    Ok(list.resources.iter().any(|resource| resource.name == kind.plural()))
}

fn resource(kind: ResourceKind, version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group(), version, kind.name()), &kind.plural())
}

fn translate(event: watcher::Event<DynamicObject>, resource: &ApiResource) -> Event {
    match event {
        watcher::Event::Init => Event::Begin,
        watcher::Event::InitDone => Event::End,
        watcher::Event::InitApply(object) => {
            let (name, text) = document(object, resource);
            Event::Listed(name, text)
        }
        watcher::Event::Apply(object) => {
            let (name, text) = document(object, resource);
            Event::Apply(name, text)
        }
        watcher::Event::Delete(object) => Event::Delete(document(object, resource).0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One without a version would never be found, and so count as not installed.
    #[test]
    fn each_kind_has_a_version_to_watch() {
        assert!(ResourceKind::ALL.iter().all(|kind| !resource_versions(kind.name()).is_empty()));
    }
}
