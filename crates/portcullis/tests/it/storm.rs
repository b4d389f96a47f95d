//! Three sidecars while policies and the service directory change all the time.
//!
//! `web` calls `cart`, which is never DISABLE, and `pay`, which sometimes is. Whatever comes into force in the meantime: answers come
//! from the app that was asked, who may not get in never does, and `cart` never gets a byte in plaintext.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_testkit::RawPeer;

use crate::support::raw::{Mesh, dial, identity_files, read_all, tls_client};
use crate::support::{App, ask, eventually, free_address, passed};

const PAY: &str = "spiffe://cluster.local/ns/shop/sa/pay";
const EVE: &str = "spiffe://cluster.local/ns/shop/sa/eve";
/// How long it lasts.
const STORM: Duration = Duration::from_secs(8);

/// Passes connections on, and keeps the first bytes of each client.
struct Tap {
    address: SocketAddr,
    first_bytes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, first_bytes) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let seen = Arc::clone(&first_bytes);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || pass_on(client, server, &seen));
            }
        });
        Self { address, first_bytes }
    }
}

fn pass_on(mut client: TcpStream, server: SocketAddr, seen: &Mutex<Vec<Vec<u8>>>) {
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let mut first = vec![0; 1024];
    let read = client.read(&mut first).unwrap_or(0);
    first.truncate(read);
    let _refused = server.write_all(&first);
    if read > 0 {
        seen.lock().unwrap().push(first);
    }
    let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let answering = thread::spawn(move || {
        let _ended = std::io::copy(&mut answers, &mut back);
        let _gone = back.shutdown(Shutdown::Write);
    });
    let _ended = std::io::copy(&mut client, &mut server);
    let _gone = server.shutdown(Shutdown::Write);
    answering.join().unwrap();
}

fn put(mesh: &Mesh, name: &str, text: &str) {
    let folder = mesh.path().join("policies");
    fs::write(folder.join(".draft"), text).unwrap();
    fs::rename(folder.join(".draft"), folder.join(name)).unwrap();
}

fn mode(mesh: &Mesh, workload: &str, mode: &str) {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {workload}, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: {workload}}}}}, mtls: {{mode: {mode}}}}}\n"
    );
    put(mesh, &format!("{workload}.yaml"), &text);
}

/// `eve` is never allowed, in one of two ways of saying it.
fn authorization(mesh: &Mesh, number: u64) {
    let spec = if number.is_multiple_of(2) {
        "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/eve]}}]}]}"
    } else {
        "{action: DENY, rules: [{from: [{source: {serviceAccounts: [eve]}}]}]}"
    };
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: not-eve, namespace: shop}}\nspec: {spec}\n"
    );
    put(mesh, "not-eve.yaml", &text);
}

/// Both services; an endpoint that does not answer comes and goes, and so do rules that say what holds anyway.
fn services(mesh: &Mesh, cart: SocketAddr, pay: SocketAddr, number: u64) {
    let dead = free_address();
    let mut text = String::new();
    for (name, address) in [("cart", cart), ("pay", pay)] {
        let endpoint = |address: SocketAddr| {
            format!(
                "{{address: {}, ports: {{tcp: {}}}, labels: {{app: {name}}}, serviceAccount: {name}}}",
                address.ip(),
                address.port()
            )
        };
        let endpoints =
            if number.is_multiple_of(3) { vec![endpoint(dead), endpoint(address)] } else { vec![endpoint(address)] };
        text += &format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  hosts: [{name}.shop.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: tcp, protocol: TCP}}]\n  endpoints: [{}]\n---\n",
            endpoints.join(", ")
        );
    }
    if number.is_multiple_of(2) {
        text += "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\n\
                 spec: {host: cart, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n";
    }
    put(mesh, "services.yaml", &text);
}

#[test]
fn a_storm_of_changes_admits_nobody_and_loses_no_secret() {
    let (mesh, cart_app, pay_app) = (Mesh::new("STRICT"), App::start(), App::start());
    fs::create_dir(mesh.path().join("pay")).unwrap();
    for (file, content) in identity_files(&mesh.authority, &mesh.authority.workload(PAY)) {
        fs::write(mesh.path().join("pay").join(file), content).unwrap();
    }
    authorization(&mesh, 0);
    let inbound = |name: &str, app: &App| {
        let listen = free_address();
        let body = format!(
            "workload: {{name: {name}, namespace: shop, serviceAccount: {name}, labels: {{app: {name}}}}}\npolicies: policies\n\
             identity: {{files: {{certificate: {name}/cert.pem, privateKey: {name}/key.pem, trustBundle: {name}/ca.pem}}}}\n\
             inbound: {{ports: [{{listen: \"{listen}\", port: 80, app: \"{}\"}}]}}\n",
            app.address
        );
        (mesh.start(name, &body, |_| ()), listen)
    };
    let ((cart, cart_inbound), (_pay, pay_inbound)) = (inbound("cart", &cart_app), inbound("pay", &pay_app));
    let tap = Tap::before(cart_inbound);
    services(&mesh, tap.address, pay_inbound, 1);
    let (to_cart, to_pay) = (free_address(), free_address());
    let body = format!(
        "workload: {{name: web, namespace: shop, serviceAccount: web, labels: {{app: web}}}}\npolicies: policies\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
         outbound: {{upstreams: [{{listen: \"{to_cart}\", address: \"cart:80\", mode: auto}}, {{listen: \"{to_pay}\", address: \
         \"pay:80\", mode: auto}}]}}\n"
    );
    let web = mesh.start("web", &body, |_| ());
    assert!(passed(to_cart, b"before") && passed(to_pay, b"before"), "{}", web.read_log());

    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lost = thread::scope(|threads| {
        let callers: Vec<_> = [("cart", to_cart), ("pay", to_pay), ("cart", to_cart)]
            .into_iter()
            .map(|(name, address)| {
                let (stop, answered) = (&stop, &answered);
                threads.spawn(move || {
                    let mut lost = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let payload = format!("secret of web for {name}");
                        match ask(address, payload.as_bytes()) {
                            Ok(answer) if answer == format!("got:{payload}").into_bytes() => {
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                            other => lost.push((name, other.map(|answer| answer.len()).map_err(|error| error.kind()))),
                        }
                    }
                    lost
                })
            })
            .collect();
        let eve = RawPeer::presenting(&mesh.authority.workload(EVE)).with_alpn(&[b"istio"]);
        let stop_flag = &stop;
        threads.spawn(move || {
            while !stop_flag.load(Ordering::Relaxed) {
                let mut stream = tls_client(dial(cart_inbound), eve.client());
                let _refused = stream.write_all(b"eve was here");
                let _end = read_all(&mut stream);
            }
        });
        let began = Instant::now();
        for number in 0.. {
            if began.elapsed() > STORM {
                break;
            }
            match number % 4 {
                0 => mode(&mesh, "cart", if number % 8 == 0 { "PERMISSIVE" } else { "STRICT" }),
                1 => services(&mesh, tap.address, pay_inbound, number),
                2 => authorization(&mesh, number),
                // Rarer than a transition is long, so that callers and server do not have several at a time.
                _ if number % 32 == 3 => mode(&mesh, "pay", "DISABLE"),
                _ if number % 32 == 19 => mode(&mesh, "pay", "STRICT"),
                _ => {}
            }
            // Longer than a watcher waits for more, or the sidecars would read some changes half a second apart.
            thread::sleep(Duration::from_millis(120));
        }
        stop.store(true, Ordering::Relaxed);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(
        lost.is_empty(),
        "{} lost, {} answered: {lost:?}\n{}",
        lost.len(),
        answered.load(Ordering::Relaxed),
        web.read_log()
    );
    assert!(answered.load(Ordering::Relaxed) > 100);

    for bytes in tap.first_bytes.lock().unwrap().iter() {
        assert_eq!(bytes.first(), Some(&0x16), "{}", bytes.escape_ascii());
    }
    let received = |app: &App| app.received.lock().unwrap().clone();
    for (app, name) in [(&cart_app, "cart"), (&pay_app, "pay")] {
        // A connection that is made anew because of a change has carried nothing, or a ClientHello if a busy machine let one sidecar
        // read a DISABLE of pay long before the other. Its request is made again then, and is not lost.
        let is_dropped = |bytes: &[u8]| bytes.is_empty() || name == "pay" && bytes.first() == Some(&0x16);
        for bytes in received(app).into_iter().filter(|bytes| !is_dropped(bytes)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text == "before" || text == format!("secret of web for {name}"), "{name} got {text:?}");
        }
    }
    let refused = cart.access().into_iter().filter(|line| line["reason"] == "authorization_denied").count();
    assert!(refused > 10, "eve was refused {refused} times");
    // And it settles.
    mode(&mesh, "cart", "STRICT");
    mode(&mesh, "pay", "STRICT");
    services(&mesh, tap.address, pay_inbound, 1);
    eventually("quiet", || (passed(to_cart, b"before") && passed(to_pay, b"before")).then_some(()));
}
