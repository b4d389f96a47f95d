use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use portcullis_config::{Cidr, Otherwise, Route, RouteMode};
use portcullis_dns::{Answer, Lookup as DnsLookup, LookupError};
use portcullis_identity::{ExpectedIds, SpiffeId};
use portcullis_policy::directory::{Client, Directory};
use portcullis_policy::{MeshSettings, PolicySet, Source};

use super::*;

/// A DNS that the test answers for. A name that is not in it cannot be looked up.
#[derive(Default)]
struct Dns(Mutex<HashMap<&'static str, Vec<IpAddr>>>);

impl Dns {
    fn set(&self, name: &'static str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name, addresses);
    }
}

impl DnsLookup for Dns {
    fn lookup<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send + 'a>> {
        let answer = self.0.lock().unwrap().get(name).cloned();
        Box::pin(async move {
            let addresses = answer.ok_or(LookupError::NoServer)?;
            Ok(Answer { addresses, valid_for: Duration::from_secs(3600), incomplete: None })
        })
    }
}

struct Rig {
    dns: Arc<Dns>,
    destinations: Destinations,
}

impl Rig {
    fn new(routes: Vec<Route>, services: &str, otherwise: Otherwise) -> Self {
        let dns = Arc::<Dns>::default();
        let names = Names::with_lookup(Arc::clone(&dns) as Arc<dyn DnsLookup>);
        let loaded = PolicySet::load(&[Source { file: "services.yaml".to_owned(), text: services.into() }]);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let client = Client { namespace: "shop", labels: &BTreeMap::new(), locality: None };
        let directory = Directory::resolve(&loaded.set, &MeshSettings::default(), &client);
        let hosts = routes.iter().flat_map(|route| &route.hosts).map(|host| Arc::from(host.as_str()));
        names.watch(hosts.chain(directory.names().iter().cloned()).collect::<Vec<_>>());
        let services = ServiceTable::new(Arc::new(directory), Vec::new());
        let services = Arc::new(ArcSwap::from_pointee(services));
        Self { dns, destinations: Destinations { routes: Routes::new(routes, otherwise), services, names } }
    }

    async fn find(&self, address: &str) -> Result<&'static str, &'static str> {
        let found = self.destinations.find(&OutboundTarget::Captured(address.parse().unwrap())).await;
        found.map_err(|ending| ending.reason).map(|found| match found {
            Destination::Fixed(route) if route.mode == RouteMode::Plaintext => "plaintext route",
            Destination::Fixed(_) => "mtls route",
            Destination::Unknown(_) => "unknown",
            Destination::Service(_) => "service",
        })
    }
}

fn to_host(host: &str, ports: &[u16], mode: RouteMode) -> Route {
    Route { hosts: vec![host.into()], cidrs: Vec::new(), ports: ports.to_vec(), mode, service: None }
}

fn mtls() -> RouteMode {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    RouteMode::Mtls(ExpectedIds::new([id]).unwrap())
}

const CART: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: DNS
  ports: [{number: 80, name: tcp, protocol: TCP}]
  endpoints: [{address: cart, serviceAccount: cart}]
";

#[tokio::test(start_paused = true)]
async fn an_unknown_address_is_plaintext_only_where_no_name_fails() {
    for (routes, services) in [(vec![to_host("cart", &[80], mtls())], ""), (Vec::new(), CART)] {
        let rig = Rig::new(routes, services, Otherwise::Plaintext);
        assert_eq!(rig.find("192.0.2.1:80").await, Err("name_unresolved"), "no lookup has succeeded yet");
        assert_eq!(rig.find("192.0.2.1:81").await, Ok("unknown"), "another port");
        rig.dns.set("cart", &["192.0.2.9"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        // What is looked up now belongs to the name, and this address does not.
        assert_eq!(rig.find("192.0.2.1:80").await, Ok("unknown"));
        let known = if services.is_empty() { "mtls route" } else { "service" };
        assert_eq!(rig.find("192.0.2.9:80").await, Ok(known));
        // A peer that restarted with a new address is found before it is called unknown.
        rig.dns.set("cart", &["192.0.2.10"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(rig.find("192.0.2.10:80").await, Ok(known));
        assert_eq!(rig.find("192.0.2.9:80").await, Ok(known), "its address of a moment ago");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_refuses_what_it_does_not_have_without_asking_whose_it_is() {
    let rig = Rig::new(Vec::new(), CART, Otherwise::Refuse);
    assert_eq!(rig.find("192.0.2.1:80").await, Err("no_route"));
    assert_eq!(rig.find("192.0.2.1:443").await, Err("no_route"));
    rig.dns.set("cart", &["192.0.2.1"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.find("192.0.2.1:80").await, Ok("service"));
}

#[tokio::test(start_paused = true)]
async fn a_route_goes_before_the_directory() {
    let cidr = Route {
        hosts: Vec::new(),
        cidrs: vec![Cidr::parse("192.0.2.0/24").unwrap()],
        ports: Vec::new(),
        mode: RouteMode::Plaintext,
        service: None,
    };
    let rig = Rig::new(vec![cidr], CART, Otherwise::Refuse);
    rig.dns.set("cart", &["192.0.2.1"]);
    assert_eq!(rig.find("192.0.2.1:80").await, Ok("plaintext route"));
}

#[tokio::test(start_paused = true)]
async fn services_that_disagree_are_a_conflict() {
    let other = CART
        .replace("name: cart,", "name: other,")
        .replace("cart.shop", "other.shop")
        .replace("Account: cart", "Account: pay");
    let rig = Rig::new(Vec::new(), &format!("{CART}---\n{other}"), Otherwise::Plaintext);
    rig.dns.set("cart", &["192.0.2.1"]);
    assert_eq!(rig.find("192.0.2.1:80").await, Err("service_conflict"));
}

/// Two services swap their addresses. What the app means for one must not go to the other in plaintext, whatever was known a
/// moment ago.
#[tokio::test(start_paused = true)]
async fn plaintext_by_a_name_needs_the_address_to_be_its_own_now() {
    let plain = CART.replace("serviceAccount: cart", "labels: {security.istio.io/tlsMode: disabled}");
    let rig = Rig::new(Vec::new(), &plain, Otherwise::Plaintext);
    rig.dns.set("cart", &["192.0.2.1"]);
    assert_eq!(rig.find("192.0.2.1:80").await, Ok("service"));
    rig.dns.set("cart", &["192.0.2.2"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.find("192.0.2.1:80").await, Err("name_unresolved"), "its address a moment ago");
    assert_eq!(rig.find("192.0.2.2:80").await, Ok("service"));
    rig.dns.0.lock().unwrap().clear();
    assert_eq!(rig.find("192.0.2.2:80").await, Err("name_unresolved"), "nobody says whose it is");
}
