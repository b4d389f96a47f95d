//! The agent against a Workload API on a real socket.

use std::sync::Arc;

use crate::common::{CART, Running, rules};
use portcullis_ca_client::CredentialSink;
use portcullis_ca_client::workload_api::WorkloadApiAgent;
use portcullis_testkit::certs::{Authority, Profile, now};
use portcullis_testkit::workload_api::WorkloadApi;
use portcullis_tls::{Clock, CredentialStore};
use tokio::sync::watch;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

struct Scene {
    root: Authority,
    api: WorkloadApi,
    agent: Running,
    _folder: Folder,
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("api.sock");
        let api = WorkloadApi::start(&socket);
        let (store, reader) = CredentialStore::new();
        // No foreign bundles are configured: the sender is dropped.
        let foreign = watch::channel(Vec::new()).1;
        let (agent, monitor) = WorkloadApiAgent::new(
            socket,
            rules(),
            Clock::system(),
            foreign,
            CredentialSink { store, reader: reader.clone() },
            || (),
        );
        let agent = Running::start(monitor, reader, agent.run());
        Self { root: Authority::root("cluster.local"), api, agent, _folder: Folder(folder) }
    }

    fn hand_out(&self) {
        let (web, cart) = (self.root.workload(WEB), self.root.workload(CART));
        let partner = Authority::root("partner.test");
        self.api.hand_out(&self.root, &[(WEB, &web), (CART, &cart)], &[("partner.test", &partner)]);
    }

    fn reaches(&self, generation: u64) {
        self.agent.eventually(&format!("generation {generation}"), |agent| agent.generation() >= generation);
    }
}

#[test]
fn the_own_svid_of_several_is_taken_with_all_bundles_and_follows_rotations() {
    let scene = Scene::new("rotation");
    scene.agent.fails("permission-denied");
    scene.hand_out();
    scene.reaches(1);
    let first = scene.agent.reader.current().unwrap();
    assert_eq!((first.id().as_str(), first.trust().iter().count()), (CART, 2));
    scene.hand_out();
    scene.reaches(2);
    let second = scene.agent.reader.current().unwrap();
    assert_ne!(first.svid().leaf.serial, second.svid().leaf.serial);
    assert_eq!(scene.agent.monitor.status().consecutive_failures, 0);
}

#[test]
fn it_reconnects_after_the_server_has_died() {
    let mut scene = Scene::new("restart");
    scene.hand_out();
    scene.reaches(1);
    scene.api.go_down();
    scene.agent.eventually("the end is noticed", |agent| agent.monitor.status().consecutive_failures > 1);
    assert!(scene.agent.reader.current().is_ok(), "the SVID is as good as before");
    scene.api.come_back();
    scene.reaches(2);
}

#[test]
fn what_a_peer_would_refuse_is_refused_and_the_stream_goes_on() {
    let scene = Scene::new("lies");
    scene.hand_out();
    scene.reaches(1);
    let before = scene.agent.reader.current().unwrap();
    let opened = scene.api.opened();
    let root = &scene.root;
    let cart = root.workload(CART);
    let other_key = portcullis_testkit::certs::Issued { key: root.workload(CART).key, ..cart.clone() };
    let expired = root.issue(&Profile::leaf(CART).valid(now() - 7200, now() - 60));
    let garbage = portcullis_testkit::certs::Issued { chain: vec![vec![1, 2, 3].into()], ..cart.clone() };
    let stranger = Authority::root("cluster.local");
    let refused = |reason: &str| {
        scene.agent.eventually(reason, |agent| agent.monitor.status().failures.contains_key(reason));
        assert!(Arc::ptr_eq(&before, &scene.agent.reader.current().unwrap()), "{reason}");
    };
    scene.api.hand_out(root, &[(WEB, &root.workload(WEB))], &[]);
    refused("own-id");
    scene.api.hand_out(root, &[(CART, &other_key)], &[]);
    refused("own-key");
    scene.api.hand_out(root, &[(CART, &expired)], &[]);
    refused("expired");
    scene.api.hand_out(root, &[(CART, &garbage)], &[]);
    refused("bundles");
    scene.api.hand_out(&stranger, &[(CART, &cart)], &[]);
    refused("bad-signature");
    assert_eq!(scene.api.opened(), opened, "it is the same stream");
    scene.hand_out();
    scene.reaches(2);
}
