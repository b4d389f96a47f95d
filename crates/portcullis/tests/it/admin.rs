//! The admin address of a real sidecar: its pages, its changes, and access to them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::raw::{Mesh, alive, dial, tls_client};
use crate::support::{App, CART, PATIENCE, Sidecar, WEB, eventually, free_port, passed, portcullis};
use portcullis_testkit::apps::echo;
use serde_json::Value;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// `headers` are whole lines; a `Host` must be among them.
fn request(address: SocketAddr, line: &str, headers: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    stream.write_all(format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
}

fn get(sidecar: &Sidecar, path: &str) -> Answer {
    request(sidecar.admin, &format!("GET {path}"), &["Host: localhost"])
}

fn post(sidecar: &Sidecar, path: &str) -> Answer {
    request(sidecar.admin, &format!("POST {path}"), &["Host: localhost"])
}

fn json(sidecar: &Sidecar, path: &str) -> Value {
    let Answer { status, head, body } = get(sidecar, path);
    assert_eq!(status, 200, "{path}: {body}");
    assert!(head.contains("content-type: application/json"), "{path}: {head}");
    assert!(body.starts_with("{\n  \"") && body.ends_with("}\n"), "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn pages_show_what_is_in_force_and_nothing_secret() {
    let mesh = Mesh::new("STRICT");
    let (cart, inbound) = mesh.cart_with(echo(), "limits: {handshakes: 77}\n", |_| ());
    let mut client = tls_client(dial(inbound), mesh.client().client());
    alive(&mut client);

    let dump = json(&cart, "/config_dump");
    let own = &dump["certificates"][0];
    assert_eq!((&own["identity"], &own["state"]), (&CART.into(), &"Available".into()), "{own}");
    for certificate in [&own["certChain"][0], &own["rootCerts"][0]] {
        let serial = certificate["serialNumber"].as_str().unwrap();
        assert!(serial.len() > 10 && serial.bytes().all(|digit| digit.is_ascii_digit()), "{serial}");
        let hex = certificate["serialNumberHex"].as_str().unwrap();
        assert_eq!(u128::from_str_radix(hex, 16).unwrap().to_string(), serial, "{certificate}");
        assert_eq!(certificate["issuer"], own["rootCerts"][0]["subject"], "{certificate}");
        let [from, until] = ["validFrom", "expirationTime"].map(|name| certificate[name].as_str().unwrap());
        assert!(from < until && from.len() == 20 && from.ends_with('Z'), "{from} {until}");
    }
    let port = &dump["modes"]["ports"][0];
    assert_eq!((&port["port"], &port["mode"]), (&8080.into(), &"STRICT".into()), "{port}");
    assert_eq!((&port["decidedBy"]["namespace"], &port["decidedBy"]["name"]), (&"shop".into(), &"default".into()));
    assert_eq!(dump["workload"]["spiffeId"], CART);
    assert_eq!(dump["inbound"]["ports"][0]["listen"], inbound.to_string());
    assert_eq!((&dump["limits"]["handshakes"], &dump["timeouts"]["handshake"]), (&77.into(), &"10s".into()));
    assert!(dump["limits"]["connections"].as_u64().unwrap() > 0, "{}", dump["limits"]);

    let certs = json(&cart, "/certs");
    assert_eq!(certs["certificates"], dump["certificates"]);
    assert_eq!(certs["trustBundles"][0]["trustDomain"], "cluster.local");
    let listeners = json(&cart, "/listeners");
    assert_eq!(listeners["listeners"][0]["name"], "inbound.ports[0].listen");
    assert_eq!(listeners["listeners"][0]["address"], inbound.to_string());
    let policies = json(&cart, "/policies");
    assert_eq!((&policies["generation"], &policies["problem"]), (&1.into(), &Value::Null), "{policies}");
    assert_eq!(
        (&policies["policies"][0]["name"], &policies["policies"][0]["mode"]),
        (&"default".into(), &"STRICT".into())
    );
    assert_eq!(dump["policies"], policies);
    let connections = json(&cart, "/connections");
    let open = &connections["connections"][0];
    assert_eq!(
        (&open["peer"], &open["transport"], &open["bytesReceived"]),
        (&WEB.into(), &"mtls".into(), &4.into()),
        "{open}"
    );
    let info = json(&cart, "/server_info");
    assert_eq!((&info["state"], &info["pid"]), (&"LIVE".into(), &cart.child.id().into()), "{info}");
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));

    let pages = ["/", "/help", "/config_dump", "/certs", "/listeners", "/policies", "/connections", "/server_info"];
    let said: String = pages.iter().map(|path| get(&cart, path).body).collect();
    let key = fs::read_to_string(mesh.path().join("cart/key.pem")).unwrap();
    let lines: Vec<_> = key.lines().filter(|line| line.len() > 20 && !line.starts_with("-----")).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| !said.contains(line)) && !said.contains("PRIVATE KEY"));
}

#[test]
fn an_outbound_sidecar_shows_whom_it_expects() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    let (web, outbound) = mesh.web(inbound, |_| ());
    let upstream = &json(&web, "/config_dump")["outbound"]["upstreams"][0];
    assert_eq!(
        (&upstream["listen"], &upstream["address"]),
        (&outbound.to_string().into(), &inbound.to_string().into())
    );
    assert_eq!((&upstream["mode"], &upstream["identities"][0]), (&"mtls".into(), &CART.into()), "{upstream}");
}

#[test]
fn policies_show_that_an_older_set_is_in_force() {
    let mesh = Mesh::new("STRICT");
    let (cart, _) = mesh.cart(echo(), |_| ());
    mesh.set_mode("STRIKT");
    let problem = eventually("a problem", || Some(json(&cart, "/policies")).filter(|page| !page["problem"].is_null()));
    assert_eq!((&problem["generation"], &problem["policies"][0]["mode"]), (&1.into(), &"STRICT".into()), "{problem}");
    let message = problem["problem"]["message"].as_str().unwrap();
    assert!(message.contains("shop.yaml:4") && message.contains("STRIKT"), "{message}");
    mesh.set_mode("PERMISSIVE");
    let good = eventually("the new set", || Some(json(&cart, "/policies")).filter(|page| page["generation"] == 2));
    assert_eq!((&good["problem"], &good["policies"][0]["mode"]), (&Value::Null, &"PERMISSIVE".into()), "{good}");
}

#[test]
fn explain_is_the_answer_of_the_command() {
    let mesh = Mesh::new("STRICT");
    let (cart, _) = mesh.cart(echo(), |_| ());
    let folder = mesh.path().join("policies");
    let arguments = ["--root-namespace", "istio-system", "--namespace", "shop", "--port", "8080", "-o", "json"];
    let command = portcullis(&[&["explain", "--policies", folder.to_str().unwrap()], &arguments[..]].concat());
    let page = get(&cart, "/explain?port=8080");
    assert_eq!(page.body, String::from_utf8(command.stdout).unwrap());
    let wrong = get(&cart, "/explain?port=http");
    assert!(wrong.status == 400 && wrong.body.contains("from 1 to 65535"), "{}", wrong.body);
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let mesh = Mesh::new("PERMISSIVE");
    let app = App::start();
    let (cart, inbound) = mesh.cart(app.address, |_| ());
    assert_eq!(get(&cart, "/logging").body, "info\n");
    let quiet = post(&cart, "/logging?level=access=off");
    assert_eq!((quiet.status, quiet.body.as_str()), (200, "info,access=off\n"));
    assert!(passed(inbound, b"unseen"));
    eventually("its end", || get(&cart, "/stats/prometheus").body.contains("connections_closed_total{").then_some(()));
    for wrong in ["/logging?level=loud", "/logging?level=", "/logging", "/logging?level=access%3D"] {
        let refused = post(&cart, wrong);
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.body);
    }
    let linked = get(&cart, "/logging?level=trace");
    assert!(linked.status == 405 && linked.head.contains("allow: post"), "{}", linked.head);
    assert_eq!(get(&cart, "/logging").body, "info,access=off\n");
    assert_eq!(post(&cart, "/logging?level=debug").body, "debug\n");
    assert!(passed(inbound, b"seen now"));
    cart.logged(&["\"target\":\"access\"", "\"bytes_recv\":8"]);
    assert!(!cart.read_log().contains("\"bytes_recv\":6"), "{}", cart.read_log());
    cart.logged(&["log level changed", "access=off"]);
}

#[test]
fn foreign_pages_see_and_change_nothing() {
    let mesh = Mesh::new("STRICT");
    let (cart, _) = mesh.cart(echo(), |_| ());
    let own = format!("Host: {}", cart.admin);
    for path in ["/drain_listeners", "/quitquitquit", "/logging?level=off"] {
        let post = format!("POST {path}");
        for headers in [
            &["Host: rebound.test:15000"] as &[&str],
            &["Host: localhost", "Origin: https://evil.test"],
            &["Host: localhost", "Origin: null"],
            &[&own, "Origin: http://localhost:3000"],
            &[&own, "Sec-Fetch-Site: cross-site"],
        ] {
            assert_eq!(request(cart.admin, &post, headers).status, 403, "{post} {headers:?}");
        }
        for method in ["GET", "PUT", "DELETE"] {
            let refused = request(cart.admin, &format!("{method} {path}"), &["Host: localhost"]);
            assert!(refused.status == 405 && refused.head.contains("post"), "{method} {path}: {}", refused.head);
        }
    }
    assert_eq!(request(cart.admin, "GET /config_dump", &["Host: rebound.test"]).status, 403);
    assert_eq!(request(cart.admin, "GET /healthz/ready", &["Host: probe.test"]).status, 200);
    assert_eq!(get(&cart, "/logging").body, "info\n");
    assert_eq!(json(&cart, "/server_info")["state"], "LIVE");
    let same = format!("Origin: http://{}", cart.admin);
    assert_eq!(request(cart.admin, "POST /logging?level=warn", &[&own, &same]).status, 200);
}

#[test]
fn drained_listeners_close_and_the_process_stays() {
    let mesh = Mesh::new("STRICT");
    let (mut cart, inbound) = mesh.cart(echo(), |_| ());
    let mut client = tls_client(dial(inbound), mesh.client().client());
    alive(&mut client);
    assert_eq!(post(&cart, "/drain_listeners").status, 200);
    assert_eq!(json(&cart, "/server_info")["state"], "DRAINING");
    let pending = get(&cart, "/healthz/ready");
    assert!(pending.status == 503 && pending.body.contains("draining"), "{}", pending.body);
    eventually("no listener", || TcpStream::connect(inbound).is_err().then_some(()));
    assert_eq!(json(&cart, "/listeners")["listeners"][0]["state"], "closed");
    alive(&mut client);
    assert_eq!(get(&cart, "/healthz/live").status, 200);
    assert!(cart.child.try_wait().unwrap().is_none());
    assert_eq!(post(&cart, "/drain_listeners").status, 200, "twice does no harm");
    drop(client);
    cart.signal("TERM");
    assert_eq!(ended(&mut cart), Some(0));
}

fn ended(sidecar: &mut Sidecar) -> Option<i32> {
    eventually("the end of the process", || sidecar.child.try_wait().unwrap()).code()
}

#[test]
fn quitquitquit_is_sigterm() {
    let mesh = Mesh::new("STRICT");
    let (mut cart, inbound) = mesh.cart(echo(), |_| ());
    let mut client = tls_client(dial(inbound), mesh.client().client());
    alive(&mut client);
    assert_eq!(post(&cart, "/quitquitquit").status, 200);
    eventually("no listener", || TcpStream::connect(inbound).is_err().then_some(()));
    alive(&mut client);
    client.conn.send_close_notify();
    client.flush().unwrap();
    drop(client);
    assert_eq!(ended(&mut cart), Some(0), "{}", cart.read_log());

    // A second one does not wait for what is open.
    let (mut cart, inbound) = mesh.cart(echo(), |_| ());
    let mut client = tls_client(dial(inbound), mesh.client().client());
    alive(&mut client);
    assert_eq!([post(&cart, "/quitquitquit").status, post(&cart, "/quitquitquit").status], [200, 200]);
    assert_eq!(ended(&mut cart), Some(3), "{}", cart.read_log());
}

/// A sidecar whose admin address is every address, with this in its `admin` section.
fn reachable(mesh: &Mesh, more: &str) -> Sidecar {
    let port = free_port();
    let config = mesh.path().join("reachable.yaml");
    let text = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         workers: 1\nadmin: {{listen: \"0.0.0.0:{port}\"{more}}}\n"
    );
    fs::write(&config, text).unwrap();
    let sidecar = Sidecar::launch(&config, SocketAddr::from(([127, 0, 0, 1], port)));
    sidecar.ready();
    sidecar
}

#[test]
fn elsewhere_a_change_takes_the_token_of_the_file() {
    let mesh = Mesh::new("STRICT");
    let file = mesh.path().join("token");
    let write = |token: &str, mode: u32| {
        fs::write(&file, token).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("first-token-of-the-test\n", 0o600);
    let cart = reachable(&mesh, ", tokenFile: token");
    let change = |token: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        request(cart.admin, "POST /logging?level=debug", &["Host: cart.shop.svc", &bearer]).status
    };
    assert_eq!(post(&cart, "/logging?level=debug").status, 401, "none");
    assert_eq!([change("first-token-of-the-tesu"), change("first-token-of-the-test")], [401, 200]);
    write("other-token-of-the-test\n", 0o640);
    assert_eq!([change("first-token-of-the-test"), change("other-token-of-the-test")], [401, 200]);
    // What is no secret does not count as one.
    write("other-token-of-the-test\n", 0o602);
    assert_eq!(change("other-token-of-the-test"), 403);
    write("short", 0o600);
    assert_eq!(change("short"), 403);
    fs::remove_file(&file).unwrap();
    assert_eq!(change("other-token-of-the-test"), 403);
    cart.logged(&["admin.tokenFile cannot be used", "anybody may write this token"]);
    cart.logged(&["admin.tokenFile cannot be used", "fewer than 16 characters"]);
    assert!(!cart.read_log().contains("token-of-the-test"), "{}", cart.read_log());
    assert!(!get(&cart, "/config_dump").body.contains("token-of-the-test"));
}

#[test]
fn elsewhere_nobody_changes_anything_without_a_token_file() {
    let mesh = Mesh::new("STRICT");
    let cart = reachable(&mesh, "");
    for path in ["/quitquitquit", "/drain_listeners", "/logging?level=off"] {
        for headers in [&["Host: localhost"] as &[&str], &["Host: localhost", "Authorization: Bearer "]] {
            let refused = request(cart.admin, &format!("POST {path}"), headers);
            assert!(refused.status == 403 && refused.body.contains("admin.tokenFile"), "{path}: {}", refused.body);
        }
    }
    assert_eq!(json(&cart, "/server_info")["state"], "LIVE");
}

/// Also when the test fails: a scope waits for its threads.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long the admin server waits for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// More slow clients than the limit, which go on sending and reconnect; a probe is answered all the same.
#[test]
fn admin_slowloris() {
    let mesh = Mesh::new("STRICT");
    let (cart, _) = mesh.cart(echo(), |_| ());
    let (stop, admin) = (AtomicBool::new(false), cart.admin);
    let slow = || {
        let stream = TcpStream::connect(admin).ok()?;
        (&stream).write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").ok()?;
        Some(stream)
    };
    thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let mut clients: Vec<_> = (0..300).map(|_| slow()).collect();
            let mut again = 0;
            while !stop.load(Ordering::Relaxed) {
                for client in &mut clients {
                    if client.as_ref().is_none_or(|mut stream| stream.write_all(b"x").is_err()) {
                        *client = slow();
                        again += 1;
                    }
                }
                thread::sleep(Duration::from_millis(50));
            }
            again
        });
        let stops = Stops(&stop);
        thread::sleep(Duration::from_millis(200));
        let mut slowest = Duration::ZERO;
        let begun = Instant::now();
        // Longer than the head timeout, so that slots would be released and taken again.
        while begun.elapsed() < HEAD_TIMEOUT + Duration::from_secs(2) {
            let asked = Instant::now();
            let answer = eventually("a probe", || cart.get("/healthz/ready").filter(|answer| !answer.is_empty()));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            slowest = slowest.max(asked.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        drop(stops);
        assert!(attack.join().unwrap() > 100, "the slow clients were not dropped, so this proves nothing");
        // A probe that is not let in would wait until the head timeout of a slow client releases a slot.
        assert!(slowest < HEAD_TIMEOUT, "{slowest:?}");
    });
    assert_eq!(json(&cart, "/server_info")["state"], "LIVE");
}
