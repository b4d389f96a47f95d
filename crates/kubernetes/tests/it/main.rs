//! The source before a server over TLS and HTTP/2 that answers as an API server does, and misbehaves on demand. `tests/kubernetes` runs a real
//! one; what that cannot be made to do is shown here.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod server;

use std::time::Duration;

use portcullis_config::{HostPort, Kubernetes, KubernetesStartup};
use portcullis_kubernetes::{Source, SourceParts, WatchState};
use portcullis_tls::Clock;
use tokio::sync::watch;
use tokio::time::timeout;

use server::Server;

const DEADLINE: Duration = Duration::from_secs(20);

/// A source, and the names in each set that it offers.
struct Rig {
    server: Server,
    source: Source,
    sets: watch::Receiver<Vec<String>>,
    account: tempfile::TempDir,
}

impl Rig {
    async fn start(objects: &[&str]) -> Self {
        let server = Server::start().await;
        objects.iter().for_each(|name| server.put(name));
        let account = tempfile::tempdir().unwrap();
        std::fs::write(account.path().join("ca.crt"), server.roots()).unwrap();
        std::fs::write(account.path().join("token"), "first").unwrap();
        let settings = Kubernetes {
            address: None,
            service_account_folder: account.path().to_owned(),
            startup: KubernetesStartup::Wait,
            copy_folder: None,
        };
        let parts = SourceParts {
            settings: &settings,
            address: HostPort { host: "127.0.0.1".to_owned(), port: server.port() },
            namespaces: ["shop", "istio-system"],
            version: "test",
            clock: Clock::system(),
        };
        let (offered, sets) = watch::channel(vec!["nothing was offered".to_owned()]);
        let source = Source::start(&parts, move |objects| {
            let names = objects.iter().flat_map(|object| object.names()).map(|(_, _, name)| name.to_owned());
            offered.send_replace(names.collect());
            Ok("loaded".to_owned())
        });
        Self { server, source: source.unwrap(), sets, account }
    }

    async fn expect(&mut self, names: &[&str]) {
        let waited = timeout(DEADLINE, self.sets.wait_for(|set| set == names)).await;
        let waited = waited.map(|found| found.is_ok());
        assert_eq!(waited, Ok(true), "{:?}, not {names:?}: {:?}", *self.sets.borrow(), self.source.monitor().status());
    }

    async fn expect_reason(&self, reason: Option<&str>) {
        let monitor = self.source.monitor();
        let found = async {
            while monitor.status().problem.as_ref().map(|problem| problem.reason) != reason {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(DEADLINE, found).await.is_ok(), "not {reason:?}: {:?}", monitor.status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_listed_and_watched_over_one_connection() {
    let mut rig = Rig::start(&["a"]).await;
    rig.expect(&["a"]).await;
    rig.server.wait_for_watch().await;
    rig.server.add("b").await;
    rig.expect(&["a", "b"]).await;
    rig.server.delete("a").await;
    rig.expect(&["b"]).await;
    assert_eq!(rig.server.connections(), 1);
    let status = rig.source.monitor().status();
    assert_eq!(status.watches.len(), 10);
    for watch in &status.watches {
        assert_eq!(
            (watch.version, &watch.state),
            (Some("v1beta1"), &WatchState::Synced),
            "v1 is not served: {watch:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_the_connection_was_cut_is_seen() {
    let mut rig = Rig::start(&["a"]).await;
    rig.expect(&["a"]).await;
    rig.server.wait_for_watch().await;
    // Without events, as after a server that was restored from a snapshot.
    rig.server.remove("a");
    rig.server.put("old");
    rig.server.cut();
    rig.expect(&["old"]).await;
    rig.expect_reason(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_too_old_begins_with_a_list() {
    let mut rig = Rig::start(&["a"]).await;
    rig.expect(&["a"]).await;
    rig.server.wait_for_watch().await;
    rig.server.put("b");
    rig.server.expire().await;
    rig.expect(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_replaced_while_it_runs_and_nothing_is_lost_meanwhile() {
    let mut rig = Rig::start(&["a"]).await;
    rig.expect(&["a"]).await;
    rig.server.set_token("second");
    rig.server.cut();
    rig.expect_reason(Some("unauthorized")).await;
    assert_eq!(*rig.sets.borrow(), ["a"]);
    std::fs::write(rig.account.path().join("token"), "second").unwrap();
    rig.expect_reason(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_gets_no_token() {
    let mut rig = Rig::start(&["a"]).await;
    rig.expect(&["a"]).await;
    let other = Server::start().await;
    std::fs::write(rig.account.path().join("ca.crt"), other.roots()).unwrap();
    let asked = rig.server.requests();
    rig.server.cut();
    rig.expect_reason(Some("unreachable")).await;
    assert_eq!(rig.server.requests(), asked);
    let problem = rig.source.monitor().status().problem.unwrap();
    assert!(problem.message.contains("TLS"), "{}", problem.message);
}
