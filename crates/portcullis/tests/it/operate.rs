//! What an operator asks of a running mesh: logs, edges, why, describe, auth, proxy-config; and that the document's commands are there
//! with its names, flags and columns.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::proxies::{cells, command, hostile, on};
use crate::support::{BIN, CART, Ca, Ran, Scene, Sidecar, WEB, ask, eventually, passed};

/// Runs a command until its JSON fits.
fn json_on(proxies: &[&Sidecar], arguments: &[&str], fits: impl Fn(&Value) -> bool) -> Value {
    let arguments = [arguments, &["-o", "json"]].concat();
    eventually(&arguments.join(" "), || {
        let ran = on(proxies, &arguments);
        serde_json::from_str(&ran.out).ok().filter(|json| fits(json))
    })
}

fn items(json: &Value) -> &Vec<Value> {
    json["items"].as_array().unwrap()
}

/// A scene in which web reached cart over mTLS, and somebody without a sidecar tried plaintext and was refused.
fn refused() -> (Scene, Sidecar) {
    let scene = Scene::new("STRICT");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"over mtls"));
    assert!(!passed(scene.inbound, b"GET / HTTP/1.1\r\n\r\n"));
    (scene, web)
}

#[test]
fn logs_tell_of_both_sides_and_of_refusals_alone() {
    let (scene, web) = refused();
    let both = [&scene.cart, &web];
    let all = json_on(&both, &["logs"], |json| items(json).len() == 3);
    let denied = json_on(&both, &["logs", "--denied"], |json| items(json).len() == 1);
    let one = &items(&denied)[0];
    assert_eq!((&one["workload"], &one["reason"]), (&"cart".into(), &"plaintext_in_strict".into()), "{one}");
    assert!(one["hint"].as_str().unwrap().contains("no sidecar"), "{one}");
    assert_eq!(items(&all).iter().filter(|item| item["transport"] == "mtls").count(), 2);

    let text = on(&both, &["logs", "--denied"]).out;
    for part in [
        "   cart.shop   inbound   deny   src.addr=",
        "reason=plaintext_in_strict",
        "policy=shop/default",
        "hint=\"the client",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(on(&both, &["logs", "--mtls=no"]).out.lines().count(), 1);
    assert_eq!(on(&both, &["logs", "web.shop"]).out.lines().count(), 1);
    assert_eq!(on(&both, &["logs", "--tail", "2"]).out.lines().count(), 2);
}

#[test]
fn following_logs_shows_what_ends_from_now_on() {
    let (scene, web) = refused();
    let mut child = Command::new(BIN)
        .args(["logs", "-f", "--denied", "-o", "json", "--tail", "0", &format!("--admin={}", scene.cart.admin)])
        .arg(format!("--admin={}", web.admin))
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    // The first answers are in; what ends now is new, whenever that was.
    let mut line = String::new();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, inbound) = (std::sync::Arc::clone(&stop), scene.inbound);
    let clients = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let _refused = ask(inbound, b"plain");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    lines.read_line(&mut line).unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    clients.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let one: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((&one["workload"], &one["decision"]), (&"cart".into(), &"deny".into()), "{one}");
}

#[test]
fn an_edge_is_one_although_both_sides_see_it() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    for _ in 0..3 {
        assert!(passed(listen, b"x"));
    }
    assert!(passed(scene.inbound, b"plain"));
    let both = [&scene.cart, &web];
    let json = json_on(&both, &["edges"], |json| {
        items(json).len() == 2 && items(json).iter().all(|edge| edge["dst"] == "cart")
    });
    let edge = items(&json).iter().find(|edge| edge["src"] == "web").unwrap();
    assert_eq!((&edge["clientId"], &edge["serverId"]), (&WEB.into(), &CART.into()));
    assert_eq!((&edge["mutualTls"], &edge["other"]), (&3.into(), &0.into()), "{edge}");
    let ran: Ran = Command::new(BIN)
        .args(["edges", &format!("--admin={}", scene.cart.admin), &format!("--admin={}", web.admin)])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap()
        .into();
    let rows = cells(&ran.out);
    // The columns of linkerd.
    assert_eq!(rows[0], ["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED"]);
    let secured = |src: &str| {
        rows.iter().find(|row| row[0].starts_with(src)).unwrap_or_else(|| panic!("{}", ran.out)).last().copied()
    };
    assert_eq!((secured("web"), secured("127.")), (Some("√"), Some("× plaintext")), "{}", ran.out);
    assert_eq!(on(&both, &["edges", "web.shop", "--no-headers"]).out.lines().count(), 1);
}

#[test]
fn why_leads_from_the_last_refusal_to_the_line_of_its_policy() {
    let (scene, web) = refused();
    let json = json_on(&[&scene.cart, &web], &["why"], |json| json["reason"] == "plaintext_in_strict");
    let policy = &json["policy"];
    assert_eq!(
        (&policy["label"], &policy["line"], &policy["inForce"]),
        (&"shop/default".into(), &1.into(), &true.into())
    );
    assert!(policy["file"].as_str().unwrap().ends_with("policies/shop.yaml"), "{policy}");
    assert_eq!(json["otherSide"], Value::Null, "the client has no sidecar, and web is a stranger to it: {json}");
    let client = json["connection"]["source"].as_str().unwrap().to_owned();
    let number = json["connection"]["connId"].to_string();

    let by_address = on(&[&scene.cart, &web], &["why", &client]);
    assert_eq!(by_address.code, Some(0), "{}", by_address.err);
    for part in [
        format!("{client} -> cart.shop:8080 was refused"),
        "Reason:  plaintext_in_strict: Plaintext on a STRICT port.".to_owned(),
        "policies/shop.yaml:1), STRICT by its namespace scope".to_owned(),
        "Fix:     the client has no sidecar".to_owned(),
        "No proxy that was asked tells of the client's side.".to_owned(),
        "Policies of cart.shop for port 8080, from wide to narrow:\n=>   namespace   STRICT   shop/default ("
            .to_owned(),
    ] {
        assert!(by_address.out.contains(&part), "{part}\n{}", by_address.out);
    }
    let by_number = on(&[&scene.cart, &web], &["why", &number, "--workload", "cart.shop", "-o", "name"]);
    assert_eq!(by_number.out, format!("connection/cart.shop/{number}\n"), "{}", by_number.err);
    let unknown = on(&[&scene.cart], &["why", "10.99.0.1"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("remember no connection 10.99.0.1"), "{}", unknown.err);
    assert_eq!(on(&[&scene.cart], &["why", "yesterday"]).code, Some(64));
}

#[test]
fn why_joins_the_two_sides_of_a_failed_handshake() {
    let scene = Scene::new("STRICT");
    let other = Ca::init(&scene.path().join("other-ca"));
    other.issue(WEB, &scene.path().join("other"));
    let (stranger, listen) = scene.outbound("stranger", WEB, "other", CART);
    assert!(!passed(listen, b"x"));
    let both = [&scene.cart, &stranger];
    let json = json_on(&both, &["why"], |json| !json["otherSide"].is_null());
    let workloads =
        [&json["connection"]["workload"], &json["otherSide"]["workload"]].map(|name| name.as_str().unwrap());
    assert!(workloads.contains(&"cart") && workloads.contains(&"stranger"), "{json}");
    // The side that knows the reason is asked, whichever it is.
    assert_eq!(json["reason"], "unknown_ca", "{json}");
    let text = on(&both, &["why"]).out;
    assert!(
        text.starts_with("stranger.shop -> cart.shop") && text.contains("unknown_ca: The peer's chain leads to none"),
        "{text}"
    );
    assert!(text.contains("cart.shop   ") && text.contains("outbound"), "{text}");
}

#[test]
fn why_names_the_rule_that_an_authorization_policy_lacks() {
    let scene = Scene::new("PERMISSIVE");
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: shop}\n\
                  spec: {action: DENY, rules: [{to: [{operation: {ports: [\"8080\"]}}]}]}\n";
    fs::write(scene.path().join("policies/deny.yaml"), policy).unwrap();
    eventually("the policy is in force", || (!passed(scene.inbound, b"x")).then_some(()));
    // That connection may have been open when the policy came, and was cut then.
    assert!(!passed(scene.inbound, b"x"));
    let json = json_on(&[&scene.cart], &["why"], |json| json["reason"] == "authorization_denied");
    assert_eq!(
        (&json["policy"]["kind"], &json["policy"]["label"]),
        (&"AuthorizationPolicy".into(), &"shop/nobody".into())
    );
    assert_eq!((&json["policy"]["rule"], &json["policy"]["line"]), (&0.into(), &1.into()), "{json}");
}

#[test]
fn describe_shows_policies_and_traffic_in_one_screen() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"x") && passed(scene.inbound, b"plain"));
    let both = [&scene.cart, &web];
    let json = json_on(&both, &["describe", "service", "cart.shop"], |json| {
        items(json)[0]["ports"][0]["observed"]["connections"] == 2
    });
    let port = &items(&json)[0]["ports"][0];
    assert_eq!(
        (&port["port"], &port["mode"], &port["observed"]["mutualTls"]),
        (&8080.into(), &"PERMISSIVE".into(), &1.into())
    );
    // As the document types it, and as people do.
    let text = on(&both, &["x", "describe", "service", "cart.shop"]).out;
    assert_eq!(text, on(&both, &["describe", "svc", "cart", "-n", "shop"]).out);
    for part in [
        "Service: cart.shop\n   Port: 8080/TCP targets workload port 8080\n",
        "Effective PeerAuthentication:\n   Workload mTLS mode: PERMISSIVE    (from namespace policy shop/default)\n",
        "Applied PeerAuthentication:\n   default.shop\n",
        "   PORT   CONNECTIONS   MUTUAL_TLS   PLAINTEXT   REJECTED   WOULD BREAK IF STRICT\n",
        "   8080   2             50.0%        1           0          127.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let unknown = on(&both, &["describe", "workload", "pay.shop"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("these answer: cart.shop, web.shop"), "{}", unknown.err);
}

#[test]
fn auth_of_a_running_proxy_tells_whether_clients_fit() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"x"));
    let both = [&scene.cart, &web];
    let status = |wanted: &str, code: i32| {
        let wanted = format!("cart.shop.svc.cluster.local:8080   {wanted}");
        let ran =
            eventually(&wanted, || Some(on(&both, &["auth", "cart.shop"])).filter(|ran| ran.out.contains(&wanted)));
        assert_eq!(ran.code, Some(code), "{}", ran.out);
        ran.out
    };
    let text = status("OK       PERMISSIVE   ISTIO_MUTUAL   shop/default   namespace", 0);
    assert_eq!(cells(&text)[0], ["HOST:PORT", "STATUS", "SERVER", "CLIENT", "AUTHN POLICY", "SCOPE"]);
    assert!(passed(scene.inbound, b"plain"));
    status("PLAINTEXT-SEEN   PERMISSIVE   ISTIO_MUTUAL,DISABLE", 1);
    scene.set_mode("STRICT");
    eventually("refused", || (!passed(scene.inbound, b"plain")).then_some(()));
    status("CONFLICT   STRICT", 1);
    // As the document types it: istioctl x auth -n NAMESPACE POD.
    let typed = on(&both, &["x", "auth", "-n", "shop", "cart"]);
    assert!(
        typed.out.contains("CONFLICT") && typed.out.contains("no AuthorizationPolicy applies to cart.shop"),
        "{}",
        typed.out
    );
    for alias in [&["x", "authz", "check", "cart.shop"][..], &["authn", "tls-check", "cart.shop"]] {
        assert_eq!(on(&both, alias).out, typed.out);
    }
}

#[test]
fn proxy_config_prints_the_columns_of_istioctl() {
    let scene = Scene::new("PERMISSIVE");
    let (web, _) = scene.web();
    let both = [&scene.cart, &web];
    let secret = on(&both, &["proxy-config", "secret", "cart.shop"]);
    let rows = cells(&secret.out);
    let columns = ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];
    assert_eq!(rows[0], columns, "{}{}", secret.out, secret.err);
    assert_eq!(rows[1][..4], ["default", "Cert Chain", "ACTIVE", "true"], "{}{}", secret.out, secret.err);
    assert_eq!(rows[2][..4], ["ROOTCA", "CA", "ACTIVE", "true"]);
    assert!(rows[1][4].len() == 32 && rows[1][4].bytes().all(|digit| digit.is_ascii_hexdigit()), "{}", secret.out);
    assert!(rows[1][5].ends_with('Z') && rows[1][5].len() == 20, "{}", secret.out);
    assert_eq!(on(&both, &["pc", "s", "cart.shop"]).out, secret.out);
    let json = on(&both, &["pc", "secret", "cart.shop", "-o", "json"]).json();
    let keys = [
        "resource_name",
        "cert",
        "source",
        "destination",
        "state",
        "trust_domain",
        "cert_valid",
        "serial_number",
        "not_after",
        "not_before",
        "type",
    ];
    for key in keys {
        assert!(!items(&json)[0][key].is_null(), "{key}: {json}");
    }
    let wide = on(&both, &["pc", "s", "cart.shop", "-o", "wide"]).out;
    assert!(wide.contains("SPIFFE ID") && wide.contains(CART) && wide.contains("ecdsa-p256"), "{wide}");
    let two = on(&both, &["pc", "s"]).out;
    assert!(two.starts_with("cart.shop:\nRESOURCE NAME") && two.contains("\nweb.shop:\n"), "{two}");

    let listener = on(&both, &["proxy-config", "listener", "cart.shop"]).out;
    let rows = cells(&listener);
    assert_eq!(rows[0], ["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    let matches: Vec<_> = rows[1..].iter().map(|row| (row[2], row[3])).collect();
    let cluster = "Cluster: inbound|8080||";
    assert_eq!(
        matches,
        [("Trans: tls; App: TCP TLS", cluster), ("Trans: tls", cluster), ("Trans: raw_buffer", cluster)]
    );
    let short = on(&both, &["pc", "l", "cart.shop", "--verbose=false"]).out;
    assert_eq!(cells(&short)[0], ["ADDRESSES", "PORT", "TYPE"]);
    let port = scene.inbound.port().to_string();
    assert_eq!(cells(&short)[1][1..], [port.as_str(), "TCP"]);
    let wide = on(&both, &["pc", "l", "cart.shop", "--port", &port, "-o", "wide", "--no-headers"]).out;
    assert!(wide.lines().count() == 3 && wide.contains("PERMISSIVE   shop/default ("), "{wide}");
    assert_eq!(on(&both, &["pc", "l", "cart.shop", "--type", "http", "--no-headers"]).out, "");
    scene.set_mode("STRICT");
    eventually("one line", || {
        (on(&[&scene.cart], &["pc", "l", "--no-headers"]).out.lines().count() == 1).then_some(())
    });
}

#[test]
fn a_certificate_is_valid_only_with_its_chain() {
    // A proxy that shows a leaf of one CA and the root of another.
    let scene = Scene::new("STRICT");
    let certs = |sidecar: &Sidecar| -> Value {
        let page = sidecar.get("/certs").unwrap();
        serde_json::from_str(page.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let other = Ca::init(&scene.path().join("other-ca"));
    other.issue(CART, &scene.path().join("other"));
    let body = format!(
        "workload: {{name: twin, namespace: shop, spiffeId: \"{CART}\"}}\n\
         identity: {{files: {{certificate: other/cert.pem, privateKey: other/key.pem, trustBundle: other/ca.pem}}}}\n"
    );
    let twin = Sidecar::start(scene.path(), "twin", &body);
    let mut mixed = certs(&scene.cart);
    mixed["trustBundles"] = certs(&twin)["trustBundles"].clone();
    let info = scene.cart.get("/server_info").unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    let liar = hostile(move |path| match path {
        "/server_info" => info.clone(),
        "/certs" => mixed.to_string(),
        _ => "{}".to_owned(),
    });
    let ran = command(["pc", "secret", &format!("--admin={liar}")]);
    assert_eq!(cells(&ran.out)[1][..4], ["default", "Cert Chain", "ACTIVE", "false"], "{}", ran.out);
    assert!(ran.err.contains("does not lead to a root of the trust bundle"), "{}", ran.err);
}

/// Each command of the document's sections on verifying and debugging has the same words and flags here.
#[test]
fn the_commands_of_the_document_are_typed_as_they_stand_there() {
    let (scene, web) = refused();
    let both = [&scene.cart, &web];
    let typed = [
        ("istioctl x describe service cart.shop", Some(0), "Effective PeerAuthentication:"),
        ("istioctl proxy-config secret cart.shop", Some(0), "RESOURCE NAME"),
        ("istioctl x auth -n shop cart", Some(1), "AUTHN POLICY"),
        ("istioctl proxy-config listener cart.shop", Some(0), "ADDRESSES"),
        ("kubectl logs cart.shop", Some(0), "reason=plaintext_in_strict"),
    ];
    for (line, code, part) in typed {
        let arguments: Vec<&str> = line.split(' ').skip(1).collect();
        let ran = eventually(line, || Some(on(&both, &arguments)).filter(|ran| ran.out.contains(part)));
        assert_eq!(ran.code, code, "{line}: {} {}", ran.out, ran.err);
    }
}

#[test]
fn hostile_observations_and_connections_stay_text() {
    const EVIL: &str = "\\u001b[2J\\u009bx\\n\\u202eevil";
    let proxy = format!(
        "{{\"name\": \"{EVIL}\", \"namespace\": \"{EVIL}\", \"service\": \"{EVIL}\", \"identity\": \"{EVIL}\", \"now\": \"2026-01-01T00:00:10Z\"}}"
    );
    let port = format!(
        "{{\"port\": 80, \"mode\": \"STRICT\", \"decidedBy\": {{\"scope\": \"{EVIL}\", \"namespace\": \"{EVIL}\", \"name\": \"{EVIL}\"}}}}"
    );
    let observation = format!(
        "{{\"direction\": \"inbound\", \"port\": 80, \"transport\": \"plaintext\", \"allowed\": 18446744073709551615, \"peer\": \
         {{\"name\": \"{EVIL}\"}}, \"firstSeen\": \"2026-01-01T00:00:00Z\", \"lastSeen\": \"2026-01-01T00:00:00Z\"}}"
    );
    let connection = format!(
        "{{\"sequence\": 1, \"connId\": 1, \"endedAt\": \"2026-01-01T00:00:00Z\", \"durationMs\": 1, \"direction\": \"inbound\", \
         \"source\": \"{EVIL}\", \"mode\": \"{EVIL}\", \"decision\": \"deny\", \"reason\": \"{EVIL}\", \"hint\": \"{EVIL}\", \
         \"error\": \"{EVIL}\", \"policy\": \"{EVIL}\", \"port\": 80}}"
    );
    let evil = hostile(move |path| match path.split('?').next().unwrap() {
        "/server_info" => proxy.clone(),
        "/observations" => {
            format!("{{\"proxy\": {proxy}, \"ports\": [{port}], \"observations\": [{observation}, {observation}]}}")
        }
        "/recent" => format!("{{\"proxy\": {proxy}, \"newest\": 1, \"connections\": [{connection}]}}"),
        "/explain" => format!("{{\"port\": 80, \"ladder\": [{{\"mode\": \"{EVIL}\", \"name\": \"{EVIL}\"}}]}}"),
        _ => "{}".to_owned(),
    });
    let evil = format!("--admin={evil}");
    let lines: [&[&str]; 7] =
        [&["logs"], &["edges"], &["why"], &["auth"], &["pc", "s"], &["pc", "l"], &["proxy-status"]];
    for line in lines {
        for format in ["table", "wide", "json", "yaml", "name"] {
            let ran = command(line.iter().copied().chain([evil.as_str(), "-o", format]));
            assert!(ran.code == Some(0) || line == ["auth"], "{line:?} {format}: {:?} {}", ran.code, ran.err);
            for text in [&ran.out, &ran.err] {
                let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
                assert_eq!(bad, None, "{line:?} {format}: {text:?}");
            }
        }
    }
}

#[test]
fn a_sidecar_without_the_page_is_told_from_one_that_is_down() {
    let scene = Scene::new("STRICT");
    let old = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let _request = std::io::Read::read(&mut stream, &mut request);
                let body = "no such path; there are:\nGET, HEAD /\n";
                let _sent = write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        address
    };
    let _one = TcpStream::connect(scene.inbound).unwrap();
    let ran = on(&[&scene.cart], &["edges", &format!("--admin={old}")]);
    assert!(
        ran.code == Some(0) && ran.err.contains("older than this command: it does not have /observations"),
        "{}",
        ran.err
    );
}
