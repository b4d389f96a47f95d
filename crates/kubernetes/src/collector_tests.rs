//! When a set is offered, what keeps the last good one, and which problems are reported.

use std::sync::Mutex;

use portcullis_manifest::ResourceKind;
use tokio::time::sleep;

use super::*;
use crate::object::Name;

const NAMESPACES: [&str; 2] = ["istio-system", "shop"];

fn id(kind: ResourceKind, namespace: &str) -> WatchId {
    WatchId { kind, namespace: namespace.to_owned() }
}

fn ids() -> Vec<WatchId> {
    NAMESPACES.iter().flat_map(|namespace| ResourceKind::ALL.map(|kind| id(kind, namespace))).collect()
}

fn policies() -> WatchId {
    id(ResourceKind::PeerAuthentication, "shop")
}

fn name(name: &str) -> Name {
    Name { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn document(name: &str, mode: &str) -> String {
    format!(
        r#"{{"apiVersion":"security.istio.io/v1","kind":"PeerAuthentication","metadata":{{"name":"{name}","namespace":"shop"}},"spec":{{"mtls":{{"mode":"{mode}"}}}}}}"#
    )
}

/// A collector that runs, and what its loader was given.
struct Rig {
    events: mpsc::Sender<(WatchId, Event)>,
    monitor: Monitor,
    /// The names of each set that was offered.
    offered: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Rig {
    fn start(copy: Option<CopySettings>) -> Self {
        let monitor = Monitor::new(tokio::sync::watch::Sender::new(0));
        let offered = Arc::<Mutex<Vec<Vec<String>>>>::default();
        let of_loader = Arc::clone(&offered);
        let loader: Loader = Box::new(move |objects| {
            let names: Vec<_> =
                objects.iter().flat_map(|object| object.names()).map(|(_, _, name)| name.to_owned()).collect();
            let refused = names.iter().any(|name| name == "refuse");
            of_loader.lock().unwrap().push(names);
            if refused { Err("refused".to_owned()) } else { Ok("loaded".to_owned()) }
        });
        let (events, received) = mpsc::channel(64);
        let collector = Collector::new(&ids(), monitor.clone(), loader, copy, Clock::system());
        tokio::spawn(collector.run(received));
        Self { events, monitor, offered }
    }

    async fn send(&self, id: WatchId, event: Event) {
        self.events.send((id, event)).await.unwrap();
    }

    async fn list(&self, id: WatchId, objects: &[(&str, &str)]) {
        self.send(id.clone(), Event::Begin).await;
        for (one, mode) in objects {
            self.send(id.clone(), Event::Listed(name(one), document(one, mode))).await;
        }
        self.send(id, Event::End).await;
    }

    /// Every kind but that of `policies` is listed, and empty.
    async fn list_others(&self) {
        for id in ids().into_iter().filter(|id| *id != policies()) {
            self.list(id, &[]).await;
        }
    }

    async fn settle(&self) {
        sleep(SETTLE * 4).await;
    }

    fn offered(&self) -> Vec<Vec<String>> {
        self.offered.lock().unwrap().clone()
    }

    fn reason(&self) -> Option<&'static str> {
        self.monitor.status().problem.map(|problem| problem.reason)
    }

    async fn fail(&self, reason: FailureReason) {
        self.send(policies(), Event::Failed(Failure { reason, message: "no".to_owned(), pause: None, is_cut: false }))
            .await;
        self.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_offered_before_every_kind_was_listed() {
    let rig = Rig::start(None);
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    assert!(rig.offered().is_empty() && rig.monitor.pending().is_some());
    rig.list_others().await;
    rig.settle().await;
    assert_eq!(rig.offered(), [["a"]]);
    assert_eq!(rig.monitor.pending(), None);
    rig.monitor.loaded().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_missing_is_as_good_as_empty_at_the_start_and_keeps_what_was_known_later() {
    let rig = Rig::start(None);
    rig.list_others().await;
    rig.send(policies(), Event::NotInstalled).await;
    rig.settle().await;
    assert_eq!(rig.offered(), [Vec::<String>::new()]);
    assert_eq!(rig.reason(), None);
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    rig.send(policies(), Event::NotInstalled).await;
    rig.settle().await;
    assert_eq!(rig.offered().last().unwrap(), &["a"], "a server that forgets its kinds opens nothing");
    assert_eq!(rig.reason(), Some("not-installed"));
    rig.list(policies(), &[]).await;
    rig.settle().await;
    assert_eq!(rig.offered().last().unwrap(), &Vec::<String>::new());
    assert_eq!(rig.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn a_first_object_that_cannot_be_read_holds_the_start_back() {
    let rig = Rig::start(None);
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRIC")]).await;
    rig.settle().await;
    assert!(rig.offered().is_empty());
    assert_eq!(rig.reason(), Some("invalid-object"));
    assert!(rig.monitor.pending().unwrap().contains("PeerAuthentication/shop/a"), "{:?}", rig.monitor.pending());
    rig.send(policies(), Event::Apply(name("a"), document("a", "STRICT"))).await;
    rig.settle().await;
    assert_eq!(rig.offered(), [["a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_a_problem_when_it_lasts_and_changes_nothing() {
    let rig = Rig::start(None);
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    for reason in [FailureReason::Unreachable, FailureReason::Forbidden] {
        rig.fail(reason).await;
        assert_eq!(rig.reason(), None, "it may be over in a moment");
        sleep(GRACE).await;
        rig.fail(reason).await;
        assert_eq!(rig.reason(), Some(reason.as_str()));
        let since = rig.monitor.status().problem.unwrap().since;
        rig.fail(reason).await;
        assert_eq!(rig.monitor.status().problem.unwrap().since, since, "its age does not begin again");
        rig.list(policies(), &[("a", "STRICT")]).await;
        rig.settle().await;
        assert_eq!(rig.reason(), None);
    }
    assert_eq!(rig.offered(), [["a"]], "what did not change is not loaded again");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_refused_is_reported_and_the_next_one_is_offered() {
    let rig = Rig::start(None);
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT"), ("refuse", "STRICT")]).await;
    rig.settle().await;
    assert_eq!(rig.reason(), Some("refused"));
    assert!(rig.monitor.pending().is_some(), "no set is in force");
    rig.send(policies(), Event::Delete(name("refuse"))).await;
    rig.settle().await;
    assert_eq!(rig.reason(), None);
    assert_eq!(rig.offered().last().unwrap(), &["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_changes_is_loaded_in_few_sets() {
    let rig = Rig::start(None);
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    for n in 0..100 {
        let mode = if n % 2 == 0 { "PERMISSIVE" } else { "STRICT" };
        rig.send(policies(), Event::Apply(name("a"), document("a", mode))).await;
        sleep(Duration::from_millis(10)).await;
    }
    rig.settle().await;
    let sets = rig.offered().len();
    assert!((10..=25).contains(&sets), "{sets} sets in a second");
}

#[tokio::test(start_paused = true)]
async fn the_copy_is_taken_when_the_server_is_silent_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |seconds| {
        let take_at = Some(Instant::now() + Duration::from_secs(seconds));
        Some(CopySettings { folder: folder.path().to_owned(), take_at })
    };
    // There is none.
    let rig = Rig::start(copy(5));
    sleep(Duration::from_secs(6)).await;
    assert!(rig.offered().is_empty() && rig.monitor.pending().is_some());
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    assert_eq!(rig.offered(), [["a"]]);
    sleep(COPY_INTERVAL).await;

    let rig = Rig::start(copy(5));
    sleep(Duration::from_secs(4)).await;
    assert!(rig.offered().is_empty(), "the server may answer yet");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.offered(), [["a"]]);
    assert!(rig.monitor.status().copy_written_at.is_some());
    // The server is back, and the policy is gone.
    rig.list_others().await;
    rig.list(policies(), &[]).await;
    rig.settle().await;
    assert_eq!(rig.offered().last().unwrap(), &Vec::<String>::new());
    assert_eq!(rig.monitor.status().copy_written_at, None);

    std::fs::write(folder.path().join("kubernetes.json"), "{").unwrap();
    let rig = Rig::start(copy(1));
    sleep(Duration::from_secs(2)).await;
    assert!(rig.offered().is_empty(), "half a copy is no copy");
    assert_eq!(rig.reason(), Some("copy"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_logged_once_however_many_watches_see_it_in_whatever_words() {
    let rig = Rig::start(None);
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    let problems = || rig.monitor.status().problems;
    for round in 0..5 {
        for (n, id) in ids().into_iter().enumerate() {
            let message = format!("connection reset {}", (n + round) % 3);
            let failure = Failure { reason: FailureReason::Unreachable, message, pause: None, is_cut: false };
            rig.send(id, Event::Failed(failure)).await;
            sleep(GRACE / 8).await;
        }
    }
    assert_eq!(problems(), 1);
    let text = rig.monitor.status().problem.unwrap().message;
    assert!(text.contains("reset 1") && text.contains("reset 2"), "the page has all of it: {text}");
    rig.list_others().await;
    rig.settle().await;
    assert_eq!((problems(), rig.reason()), (1, Some("unreachable")), "what comes back is no new problem");
    rig.list(policies(), &[("a", "STRIC")]).await;
    rig.settle().await;
    assert_eq!((problems(), rig.reason()), (2, Some("invalid-object")), "this is one");
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    assert_eq!((problems(), rig.reason()), (2, None));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_could_not_be_written_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    std::fs::write(&below, "a file where the folder should be").unwrap();
    let rig = Rig::start(Some(CopySettings { folder: below.clone(), take_at: None }));
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    assert_eq!(rig.reason(), Some("copy"));
    std::fs::remove_file(&below).unwrap();
    sleep(COPY_RETRY * 2).await;
    assert_eq!(rig.reason(), None);
    assert_eq!(Copy::read(&below).unwrap().unwrap().objects.len(), 1);
    // What changes meanwhile waits for its turn, and is not forgotten.
    for n in 0..10 {
        let mode = if n % 2 == 0 { "PERMISSIVE" } else { "STRICT" };
        rig.send(policies(), Event::Apply(name("a"), document("a", mode))).await;
        sleep(SETTLE * 4).await;
    }
    sleep(COPY_INTERVAL).await;
    assert!(Copy::read(&below).unwrap().unwrap().objects[0].document.contains("STRICT"));
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_kind_that_is_missing_at_the_start_are_those_of_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let copy = || Some(CopySettings { folder: folder.path().to_owned(), take_at: None });
    let rig = Rig::start(copy());
    rig.list_others().await;
    rig.list(policies(), &[("a", "STRICT")]).await;
    rig.settle().await;
    sleep(COPY_INTERVAL).await;

    let rig = Rig::start(copy());
    rig.list_others().await;
    rig.send(policies(), Event::NotInstalled).await;
    rig.settle().await;
    assert_eq!((rig.offered(), rig.reason()), (vec![vec!["a".to_owned()]], Some("not-installed")));
    // It is installed again, and what is listed counts.
    rig.list(policies(), &[]).await;
    rig.settle().await;
    assert_eq!((rig.offered().last().unwrap().len(), rig.reason()), (0, None));

    // A copy that cannot be read says nothing of missing kinds.
    sleep(COPY_INTERVAL).await;
    std::fs::write(folder.path().join("kubernetes.json"), "{").unwrap();
    let rig = Rig::start(copy());
    rig.list_others().await;
    rig.send(policies(), Event::NotInstalled).await;
    rig.settle().await;
    assert_eq!(rig.offered(), [Vec::<String>::new()]);
}
