//! A panic ends the connection in whose task it happens, and nothing else.
//!
//! There is no way to make the product panic, so it gets limits that no file can hold: a deadline beyond what a clock can
//! say overflows where it is computed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::Settings;
use portcullis_dns::{Names, Resolver};
use portcullis_policy::{EffectivePolicy, PolicySet};
use portcullis_proxy::changes::change_channel;
use portcullis_proxy::drain::{DrainTrigger, Phase, drain};
use portcullis_proxy::engine::{self, Engine};
use portcullis_proxy::{ProxyParts, ProxyState, limits};
use portcullis_telemetry::{LocalWorkload, Metrics, Service};
use portcullis_testkit::apps::echo;
use portcullis_testkit::wait::{PATIENCE, eventually_within};
use portcullis_tls::CredentialStore;

/// More connections are poisoned than may be open at once, so that one that keeps its place is noticed.
const PLACES: usize = 4;

fn free() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    TcpListener::bind((Ipv4Addr::new(127, 64 + high % 64, middle, low), 0)).unwrap().local_addr().unwrap()
}

/// A data plane with one worker.
struct Rig {
    inbound: SocketAddr,
    outbound: SocketAddr,
    metrics: Metrics,
    trigger: DrainTrigger,
    engine: Option<Engine>,
}

impl Rig {
    fn new(poison: impl FnOnce(&mut Settings)) -> Self {
        let (inbound, outbound, app) = (free(), free(), echo());
        let text = format!(
            "workload: {{name: cart, namespace: shop}}\n\
             inbound: {{ports: [{{listen: \"{inbound}\", port: 8080, app: \"{app}\"}}]}}\n\
             outbound: {{upstreams: [{{listen: \"{outbound}\", address: \"{app}\", mode: plaintext}}]}}\n\
             limits: {{connections: {PLACES}}}\n"
        );
        let mut settings = portcullis_config::read(text.as_bytes(), Path::new(".")).unwrap();
        poison(&mut settings);
        let own = LocalWorkload {
            id: settings.own_id.clone(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            labels: settings.workload.labels.clone(),
            service: Service::new("cart", "shop"),
        };
        let metrics = Metrics::new("0.0.0", own).unwrap();
        let (mesh, labels) = (settings.mesh.policy.clone(), settings.workload.labels.clone());
        let policy = EffectivePolicy::resolve(&PolicySet::default(), &mesh, "shop", &labels);
        let (notifier, changes) = change_channel();
        let (trigger, token) = drain(notifier.clone());
        let bound = engine::bind(&settings, NonZeroUsize::MIN).unwrap();
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let buffers = limits::buffers(&settings);
        let state = Arc::new(ProxyState::new(ProxyParts {
            settings,
            policy,
            services: Arc::default(),
            names: Names::new(Resolver::with_servers(&[], &[])),
            credentials: CredentialStore::new().1,
            gateway_servers: Arc::default(),
            notifier,
            changes,
            metrics: metrics.clone(),
            drain: token,
            buffers,
            own_networks: Vec::new(),
        }));
        let engine = Some(bound.start(&state).unwrap());
        Self { inbound, outbound, metrics, trigger, engine }
    }

    fn has(&self, line: &str) -> bool {
        self.metrics.encode().unwrap().lines().any(|found| found == line)
    }

    fn eventually(&self, line: &str) {
        let found = eventually_within(PATIENCE, || self.has(line).then_some(()));
        assert!(found.is_some(), "{line} not in {}", self.metrics.encode().unwrap());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.trigger.advance(Phase::Forced);
        self.engine.take().unwrap().join();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer)).is_ok_and(|()| answer == *b"hello")
}

#[test]
fn a_panicking_connection_does_not_stop_the_listener() {
    let rig = Rig::new(|settings| settings.timeouts.handshake = Duration::MAX);
    let mut before = connect(rig.outbound);
    assert!(echoes(&mut before));
    for n in 1..=3 * PLACES {
        assert!(!echoes(&mut connect(rig.inbound)));
        rig.eventually(&format!("portcullis_connection_panics_total{{reporter=\"destination\"}} {n}"));
    }
    assert!(echoes(&mut before), "a connection of the same worker lives on");
    let mut after = connect(rig.outbound);
    assert!(echoes(&mut after), "the worker takes new ones");
    // Nothing of the poisoned ones is left, and none was refused for want of a place.
    rig.eventually("istio_tcp_sockets_open{reporter=\"destination\"} 0");
    assert_eq!(rig.trigger.live(), 2);
    assert!(!rig.metrics.encode().unwrap().contains("too_many_connections"));
    let reason = portcullis_proxy::outcome::Reason::Panic.label();
    rig.eventually(&format!("portcullis_no_mtls_reason_total{{reason=\"{reason}\"}} {}", 3 * PLACES));
}
