//! What a running sidecar says about who it saw, and keeps of that.

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_api::{Direction, Mode, Observation, Observations, Recent, Transport};
use serde::de::DeserializeOwned;

use crate::support::{App, BIN, CART, Ca, Scene, Sidecar, WEB, eventually, free_address, passed};

fn page<T: DeserializeOwned>(sidecar: &Sidecar, path: &str) -> T {
    let answer = sidecar.get(path).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}\n{body}"))
}

fn observations(sidecar: &Sidecar) -> Observations {
    page(sidecar, "/observations")
}

fn find(sidecar: &Sidecar, what: impl Fn(&Observation) -> bool) -> Observation {
    eventually("an observation", || observations(sidecar).observations.into_iter().find(|seen| what(seen)))
}

#[test]
fn both_sides_say_who_talked_to_whom_and_why_one_was_refused() {
    let scene = Scene::new("PERMISSIVE");
    let (web, listen) = scene.web();
    assert!(passed(listen, b"over mtls") && passed(scene.inbound, b"plain"));
    // A probe that connects and leaves says nothing about anybody.
    TcpStream::connect(scene.inbound).unwrap().shutdown(Shutdown::Both).unwrap();

    let plain = find(&scene.cart, |seen| seen.transport == Transport::Plaintext && seen.bytes_sent > 0);
    assert_eq!((plain.direction, plain.port, plain.allowed, plain.refused), (Direction::Inbound, 8080, 1, 0));
    assert_eq!((plain.bytes_received, plain.bytes_sent), (5, 9));
    assert_eq!(plain.peer.address, Some([127, 0, 0, 1].into()));
    assert_eq!(plain.peer.dialled, Some(scene.inbound.ip()));
    assert_eq!(plain.days.iter().map(|day| day.allowed).sum::<u64>(), 1);
    let mtls = find(&scene.cart, |seen| seen.transport == Transport::Mtls && seen.bytes_sent > 0);
    assert_eq!((mtls.peer.identity.as_deref(), mtls.allowed), (Some(WEB), 1));
    let outbound = find(&web, |seen| seen.direction == Direction::Outbound && seen.bytes_sent > 0);
    assert_eq!((outbound.peer.identity.as_deref(), outbound.port), (Some(CART), scene.inbound.port()));

    let seen = observations(&scene.cart);
    assert_eq!((seen.proxy.name.as_str(), seen.proxy.namespace.as_str()), ("cart", "shop"));
    assert_eq!((seen.proxy.identity.as_str(), seen.proxy.state.as_str()), (CART, "LIVE"));
    assert!(!seen.is_persistent && seen.evicted == 0);
    assert_eq!(seen.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [Some(8080), None]);
    let decided = &seen.ports[0].decided_by;
    assert_eq!(
        (seen.ports[0].mode, decided.label().as_str(), decided.line),
        (Mode::Permissive, "shop/default", Some(1))
    );
    assert!(decided.file.as_deref().is_some_and(|file| file.ends_with("shop.yaml")));
    assert_eq!(seen.observations.len(), 2, "{:?}", seen.observations);

    let metric = |line: &str| scene.cart.get("/metrics").unwrap().lines().any(|found| found == line);
    assert!(metric("portcullis_readiness{port=\"8080\"} 0") && metric("portcullis_ledger_pairs 2"));
    assert!(metric("portcullis_ledger_evicted_total 0") && metric("portcullis_ledger_write_failures_total 0"));

    scene.set_mode("STRICT");
    eventually("STRICT is in force", || (!passed(scene.inbound, b"plain")).then_some(()));
    // The one that found out may have been open during the change.
    assert!(!passed(scene.inbound, b"plain"));
    let reason = |seen: &Observation| seen.last_refusal.as_ref().map(|last| last.reason.clone());
    let refused = find(&scene.cart, |seen| reason(seen).as_deref() == Some("plaintext_in_strict"));
    let last = refused.last_refusal.unwrap();
    assert_eq!(last.policy, "shop/default");

    let info: portcullis_api::ProxyInfo = page(&scene.cart, "/server_info");
    assert_eq!((info.identity.as_str(), info.default_mode), (CART, Mode::Permissive));
}

#[test]
fn an_open_connection_counts_and_its_bytes_are_counted_once() {
    use std::io::{Read as _, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let app = echo.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = echo.accept().unwrap();
        let mut buffer = [0; 4];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).unwrap();
        }
    });
    let (cart, inbound) = cart(folder.path(), app, "");
    let mut stream = TcpStream::connect(inbound).unwrap();
    let mut exchange = || {
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    };
    exchange();
    let first = find(&cart, |seen| seen.bytes_sent == 4);
    assert_eq!((first.allowed, first.bytes_received), (1, 4));
    exchange();
    let second = find(&cart, |seen| seen.bytes_sent == 8);
    assert_eq!((second.allowed, second.bytes_received), (1, 8));
    drop(stream);
    let recent: Recent = eventually("its end", || {
        let recent: Recent = page(&cart, "/recent");
        (!recent.connections.is_empty()).then_some(recent)
    });
    assert_eq!((recent.connections[0].bytes_received, recent.connections[0].bytes_sent), (8, 8));
    assert_eq!(find(&cart, |_| true).bytes_sent, 8);
}

#[test]
fn what_ended_last_is_told_with_its_reason_and_hint() {
    let scene = Scene::new("STRICT");
    let (_web, listen) = scene.web();
    assert!(!passed(scene.inbound, b"plain") && passed(listen, b"over mtls"));
    let recent: Recent = eventually("two connections", || {
        let recent: Recent = page(&scene.cart, "/recent");
        (recent.connections.len() == 2).then_some(recent)
    });
    let [refused, mtls] = recent.connections.as_slice() else { unreachable!() };
    assert_eq!(
        (refused.sequence, refused.decision.as_str(), refused.reason.as_str()),
        (1, "deny", "plaintext_in_strict")
    );
    assert_eq!((refused.policy.as_str(), refused.mode.as_str(), refused.port), ("shop/default", "STRICT", Some(8080)));
    assert!(refused.hint.contains("no sidecar"), "{}", refused.hint);
    assert_eq!((mtls.peer.as_deref(), mtls.transport, mtls.reason.as_str()), (Some(WEB), Transport::Mtls, "-"));
    assert!(mtls.tls.as_ref().is_some_and(|tls| tls.version == "TLSv1.3"));
    assert_eq!((recent.newest, recent.missed), (2, 0));
    let of = |query: &str| {
        let recent: Recent = page(&scene.cart, &format!("/recent?{query}"));
        recent.connections.iter().map(|ended| ended.sequence).collect::<Vec<_>>()
    };
    assert_eq!(of("denied=true"), [1]);
    assert_eq!(of("after=1"), [2]);
    assert_eq!(of("limit=1"), [2]);
    assert_eq!(of("after=0&limit=1"), [1]);
    assert_eq!(of(&format!("conn={}", mtls.conn_id)), [2]);
    assert_eq!(of(&format!("peer={WEB}")), [2]);
    assert_eq!(of("peer=127.0.0.1"), [1, 2]);
    assert_eq!(of("peer=10.0.0.1"), [0_u64; 0]);
    assert!(scene.cart.get("/recent?befor=1").unwrap().starts_with("HTTP/1.1 400"));
}

/// A sidecar in its sandbox, with a folder.
fn cart(folder: &Path, app: std::net::SocketAddr, extra: &str) -> (Sidecar, std::net::SocketAddr) {
    let inbound = free_address();
    (start(folder, app, inbound, extra), inbound)
}

fn start(folder: &Path, app: std::net::SocketAddr, inbound: std::net::SocketAddr, extra: &str) -> Sidecar {
    if !folder.join("ca").exists() {
        Ca::init(&folder.join("ca")).issue(CART, &folder.join("cart"));
    }
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound: {{ports: [{{listen: \"{inbound}\", port: 8080, app: \"{app}\"}}]}}\n{extra}"
    );
    Sidecar::start(folder, "cart", &body)
}

const LEDGER: &str = "ledger: {folder: ledger}\n";

fn allowed(seen: &Observations) -> u64 {
    seen.observations.iter().map(|seen| seen.allowed).sum()
}

/// What the file says: every line is JSON, and as many follow as the head says.
fn allowed_in(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let (head, lines) = text.split_once('\n').unwrap();
    let head: serde_json::Value = serde_json::from_str(head).unwrap();
    let observations: Vec<Observation> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(head["observations"], observations.len());
    observations.iter().map(|seen| seen.allowed).sum()
}

#[test]
fn it_survives_a_restart_in_a_folder_that_the_sandbox_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start();
    let (cart, inbound) = cart(folder.path(), app.address, LEDGER);
    eventually("the sandbox", || cart.read_log().contains("files restricted").then_some(()));
    assert!((0..5).all(|_| passed(inbound, b"plain")));
    assert!(observations(&cart).is_persistent);
    cart.signal("TERM");
    let mut cart = cart;
    assert!(cart.child.wait().unwrap().success());
    let log = cart.read_log();
    assert!(!log.contains("ledger: cannot"), "{log}");
    assert_eq!(allowed_in(&folder.path().join("ledger/shop_cart.ledger")), 5);
    let cart = start(folder.path(), app.address, inbound, LEDGER);
    assert_eq!(allowed(&observations(&cart)), 5);
}

#[test]
fn no_kill_at_any_moment_loses_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start();
    let inbound = free_address();
    let file = folder.path().join("ledger/shop_cart.ledger");
    let mut written = 0;
    for round in 0..8_u64 {
        let mut cart = start(folder.path(), app.address, inbound, LEDGER);
        let at_start = allowed(&observations(&cart));
        assert!(at_start >= written, "round {round}: {at_start} of {written}");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _killed_meanwhile = passed(inbound, b"plain");
                }
            });
            let until = Instant::now() + Duration::from_millis(300 + 170 * round);
            let mut before = at_start;
            while Instant::now() < until {
                let now = allowed(&observations(&cart));
                assert!(now >= before, "counts never go down");
                before = now;
            }
            cart.child.kill().unwrap();
            cart.child.wait().unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        if file.exists() {
            let now = allowed_in(&file);
            assert!(now >= written, "round {round}: {now} of {written}");
            written = now;
        }
    }
    assert!(written > 0);
    let cart = start(folder.path(), app.address, inbound, LEDGER);
    assert!(allowed(&observations(&cart)) >= written);
    let left: Vec<_> =
        fs::read_dir(folder.path().join("ledger")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("damaged")), "{left:?}");
}

#[test]
fn a_folder_that_cannot_be_used_is_said_once_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ledger"), "not a folder").unwrap();
    let app = App::start();
    let (cart, inbound) = cart(folder.path(), app.address, LEDGER);
    assert!(passed(inbound, b"plain"));
    cart.logged(&["ledger: cannot write", "WARN"]);
    let failed = || {
        let metrics = cart.get("/metrics").unwrap();
        metrics.lines().any(|line| line.starts_with("portcullis_ledger_write_failures_total") && !line.ends_with(" 0"))
    };
    eventually("a failed write is counted", || failed().then_some(()));
    assert_eq!(cart.read_log().matches("ledger: cannot write").count(), 1);
    let seen = observations(&cart);
    assert!(!seen.is_persistent && allowed(&seen) == 1);
}

#[test]
fn a_client_without_an_identity_has_the_name_of_the_service_with_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start();
    let services = "services:\n  - apiVersion: networking.istio.io/v1\n    kind: ServiceEntry\n    \
                    metadata: {name: cron, namespace: shop}\n    spec: {hosts: [cron.shop.svc.cluster.local], resolution: STATIC, \
                    location: MESH_INTERNAL, ports: [{number: 80, name: tcp, protocol: TCP}], endpoints: [{address: 127.0.0.1}]}\n";
    let (cart, inbound) = cart(folder.path(), app.address, services);
    assert!(passed(inbound, b"plain"));
    let named = |seen: &Observation| seen.peer.name.as_deref() == Some("cron.shop.svc.cluster.local");
    find(&cart, named);
}

/// A shell in a mount namespace of its own, with a small file system at `folder` that is read-only, and a sidecar beside it. It runs the
/// lines that it reads; everything in it ends with it.
fn on_a_small_disk(config: &Path, folder: &Path, admin: std::net::SocketAddr) -> Sidecar {
    const SCRIPT: &str = "mount -t tmpfs -o size=128k none \"$1\" && mount -o remount,ro \"$1\" || exit 9
        \"$2\" proxy --config \"$3\" &
        while read -r line; do eval \"$line\"; done";
    let log = config.with_extension("log");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh"])
        .args([folder.as_os_str(), BIN.as_ref(), config.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&log).unwrap());
    Sidecar { child: command.spawn().unwrap(), admin, log }
}

/// A full disk and one that is read-only cost what is remembered, and nothing else.
#[test]
fn a_folder_without_room_or_read_only_is_told_and_used_again_when_it_can_be() {
    let scene = Scene::new("PERMISSIVE");
    let folder = scene.path().join("ledger");
    fs::create_dir(&folder).unwrap();
    let (admin, listen) = (free_address(), free_address());
    let config = scene.path().join("keeper.yaml");
    let body = format!(
        "workload: {{name: keeper, namespace: shop, spiffeId: \"{CART}\"}}\npolicies: ./policies\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         ledger: {{folder: ./ledger}}\nadmin: {{listen: \"{admin}\"}}\nworkers: 1\n\
         inbound:\n  ports: [{{listen: \"{listen}\", port: 8080, app: \"{}\"}}]\n",
        scene.app.address
    );
    fs::write(&config, body).unwrap();
    let mut keeper = on_a_small_disk(&config, &folder, admin);
    let mut shell = keeper.child.stdin.take().unwrap();
    let mut run = |line: String| writeln!(shell, "{line}").unwrap();
    keeper.ready();
    let failures = |keeper: &Sidecar| -> u64 {
        let metrics = keeper.get("/metrics").unwrap();
        let line = metrics.lines().find(|line| line.starts_with("portcullis_ledger_write_failures_total ")).unwrap();
        line.split_once(' ').unwrap().1.parse().unwrap()
    };
    let said = |text: &str| keeper.read_log().matches(text).count();
    let (cannot, again) = ("ledger: cannot write", "ledger: written again");
    // It is tried again every ten seconds.
    let patiently = |what: &str, is: &dyn Fn() -> bool| {
        for _ in 0..2 {
            if (0..150).any(|_| {
                thread::sleep(Duration::from_millis(100));
                is()
            }) {
                return;
            }
        }
        panic!("{what}\n{}", keeper.read_log());
    };
    // Read-only from the start.
    assert!(passed(listen, b"one"), "{}", keeper.read_log());
    patiently("the failed write is counted", &|| failures(&keeper) > 0);
    assert_eq!((said(cannot), said(again), observations(&keeper).is_persistent), (1, 0, false));
    run(format!("mount -o remount,rw {}", folder.display()));
    patiently("it is written again", &|| said(again) == 1);
    assert!(observations(&keeper).is_persistent);
    // Full.
    let before = failures(&keeper);
    run(format!("dd if=/dev/zero of={}/filler bs=1k 2> /dev/null", folder.display()));
    patiently("the failed write is counted", &|| passed(listen, b"more") && failures(&keeper) > before);
    assert_eq!((said(cannot), said(again)), (2, 1), "each trouble is told once: {}", keeper.read_log());
    assert!(passed(listen, b"served all the same") && !observations(&keeper).is_persistent);
    let remembered = observations(&keeper).observations.iter().map(|seen| seen.allowed).sum::<u64>();
    run(format!("rm {}/filler", folder.display()));
    patiently("it is written again", &|| said(again) == 2);
    let kept = observations(&keeper);
    assert!(kept.is_persistent && kept.observations.iter().map(|seen| seen.allowed).sum::<u64>() >= remembered);
}
