//! Integration tests of this crate, one binary for all of them.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_discovery::{AdminAddress, SidecarSource, SidecarTarget, Unanswered, ask, find};
use serde::Deserialize;

const WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize)]
struct Page {
    name: String,
}

/// Serves every connection with these bytes, after the request.
fn serve(mut stream: impl std::io::Read + std::io::Write, answer: &[u8]) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        request.extend(byte);
    }
    let _gone = stream.write_all(answer);
}

fn answering(answer: impl Into<Vec<u8>>) -> SidecarTarget {
    let (listener, answer) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(answer.into()));
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, &answer));
        }
    });
    SidecarTarget { address: address.into(), name: None }
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn names(targets: &[SidecarTarget], within: Duration) -> Vec<Result<String, Unanswered>> {
    let rows = ask(targets, within, |sidecar| async move { Ok(sidecar.get::<Page>("/page?x=1").await?.name) }).await;
    assert!(rows.iter().zip(targets).all(|(row, target)| row.target == *target), "not in the order of the targets");
    rows.into_iter().map(|row| row.answer).collect()
}

#[test]
fn one_that_does_not_answer_takes_nothing_from_the_others() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = SidecarTarget { address: silent.local_addr().unwrap().into(), name: None };
    let folder = tempfile::tempdir().unwrap();
    let unix = |name: &str| SidecarTarget { address: AdminAddress::Unix(folder.path().join(name)), name: None };
    let socket = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
    thread::spawn(move || serve(socket.accept().unwrap().0, http("200 OK", "{\"name\": \"unix\"}").as_bytes()));
    let targets = [
        answering(http("200 OK", "{\"name\": \"tcp\", \"new\": 1}")),
        SidecarTarget { address: refused.into(), name: None },
        unix("admin.sock"),
        unix("none.sock"),
        answering(http("404 Not Found", "no such path; there are:\nGET /\n")),
        answering(http("404 Not Found", "<html>")),
        answering(http("403 Forbidden", "the Host of a request\nmore")),
        answering(http("200 OK", "<html>")),
        answering(http("200 OK", "{\"name\": 7}")),
        answering("SSH-2.0-OpenSSH\r\n\r\n"),
    ];
    let answers = run(names(&targets, WITHIN));
    assert_eq!((answers[0].as_deref(), answers[2].as_deref()), (Ok("tcp"), Ok("unix")));
    let why = |index: usize| answers[index].as_ref().unwrap_err();
    let reasons: Vec<_> = [1, 3, 4, 5, 6, 7, 8, 9].map(|index| why(index).reason()).into();
    let not = "not-a-sidecar";
    assert_eq!(reasons, ["refused", "no-socket", "too-old", not, "forbidden", not, not, not]);
    assert_eq!(why(4).to_string(), "the sidecar is older than this command: it does not have /page");
    assert!(why(6).to_string().ends_with(": the Host of a request"), "{}", why(6));
    assert!(why(7).to_string().contains("no JSON") && why(8).to_string().contains("another form"));
    let late = run(names(&[silent], Duration::from_millis(50)));
    assert_eq!(late, [Err(Unanswered::TimedOut(Duration::from_millis(50)))]);
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = SidecarTarget { address: listener.local_addr().unwrap().into(), name: None };
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _request = stream.read(&mut request).unwrap();
        let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while written.is_ok() {
            written = stream.write_all(&[b' '; 64 * 1024]);
        }
    });
    let answers = run(names(&[target], WITHIN));
    assert_eq!(answers[0].as_ref().unwrap_err().reason(), "too-large");
}

#[test]
fn the_deadline_is_one_for_all_that_a_sidecar_is_asked() {
    let target = answering(http("200 OK", "{\"name\": \"a\"}"));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let begun = Instant::now();
    let rows = run(ask(&[target], Duration::from_millis(200), move |sidecar| {
        let count = Arc::clone(&count);
        async move {
            loop {
                sidecar.get::<Page>("/").await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            #[allow(unreachable_code, reason = "gives the question its type")]
            Ok(())
        }
    }));
    assert_eq!(rows[0].answer.as_ref().unwrap_err().reason(), "timeout");
    assert!(asked.load(Ordering::Relaxed) > 0 && begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn more_sidecars_than_are_asked_at_once_all_answer() {
    let open = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let targets: Vec<_> = (0..100).map(|_| answering(http("200 OK", "{\"name\": \"a\"}"))).collect();
    let counts = Arc::clone(&open);
    let rows = run(ask(&targets, WITHIN, move |sidecar| {
        let counts = Arc::clone(&counts);
        async move {
            let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
            counts.1.fetch_max(now, Ordering::SeqCst);
            let page = sidecar.get::<Page>("/").await;
            counts.0.fetch_sub(1, Ordering::SeqCst);
            page
        }
    }));
    assert!(rows.iter().all(|row| row.answer.is_ok()));
    assert!(open.1.load(Ordering::SeqCst) <= 64);
}

fn found(source: SidecarSource) -> Result<Vec<String>, String> {
    let found = run(find(&[source], WITHIN)).map_err(|error| error.to_string())?;
    Ok(found.targets.iter().map(|target| target.address.to_string()).collect())
}

#[test]
fn a_file_and_a_name_list_each_address_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxies.yaml");
    std::fs::write(&file, "# the shop\n- 127.0.0.1:1\n- dns:localhost:1\n- \"127.0.0.1:1\"\n").unwrap();
    let listed = found(SidecarSource::File(file.clone())).unwrap();
    assert!(listed == ["127.0.0.1:1"] || listed == ["127.0.0.1:1", "[::1]:1"], "{listed:?}");
    std::fs::write(&file, "a:b:c\n").unwrap();
    let wrong = found(SidecarSource::File(file.clone())).unwrap_err();
    assert!(wrong.starts_with(&format!("{}:1: ", file.display())), "{wrong}");
    std::fs::write(&file, "# none\n").unwrap();
    assert!(found(SidecarSource::File(file)).unwrap_err().contains("no proxy is listed"));
    assert!(found(SidecarSource::File("/nowhere/proxies".into())).unwrap_err().contains("cannot be read"));
    let unknown = found(SidecarSource::Dns { name: "no-such-name.invalid".to_owned(), port: 1 }).unwrap_err();
    assert!(unknown.contains("has no address"), "{unknown}");
}

/// An engine that answers one request, and returns its first line.
fn engine(socket: &Path, answer: String) -> thread::JoinHandle<String> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..length]).lines().next().unwrap().to_owned()
    })
}

#[test]
fn an_engine_is_sent_one_get_and_names_what_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let container = |name: &str, labels: &str, address: &str| {
        format!(
            "{{\"Names\": [\"/{name}\"], \"Labels\": {{{labels}}}, \"NetworkSettings\": {{\"Networks\": {{\"a\": \
             {{\"IPAddress\": \"{address}\"}}}}}}}}"
        )
    };
    let list = [
        container("shop-cart-net-1", "\"portcullis.sidecar-of\": \"cart\"", "172.18.0.3"),
        container("shop-cron-1", "\"com.docker.compose.service\": \"cron\"", "172.18.0.9"),
    ];
    let server = engine(&socket, http("200 OK", &format!("[{}]", list.join(","))));
    let found = run(find(&[SidecarSource::Engine { socket, project: None }], WITHIN)).unwrap();
    assert_eq!(
        found.targets,
        [SidecarTarget { address: AdminAddress::tcp("172.18.0.3", 15000), name: Some("cart".to_owned()) }]
    );
    assert_eq!(found.containers.get("172.18.0.9".parse().unwrap()), Some("cron"));
    let line = server.join().unwrap();
    assert_eq!(line, "GET /containers/json?filters=%7B%22status%22%3A%5B%22running%22%5D%7D HTTP/1.1");
}

#[test]
fn an_engine_without_sidecars_or_without_an_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let failed = |name: &str, answer: String| {
        let socket = folder.path().join(name);
        let server = engine(&socket, answer);
        let error = found(SidecarSource::Engine { socket, project: None }).unwrap_err();
        server.join().unwrap();
        error
    };
    let none = failed("none.sock", http("200 OK", "[]"));
    assert!(
        none.contains("none of 0 running containers is a sidecar") && none.contains("portcullis.sidecar-of"),
        "{none}"
    );
    assert!(failed("error.sock", http("500 Internal Server Error", "{}")).contains("status 500"));
    assert!(failed("other.sock", http("200 OK", "{}")).contains("gives no list"));
    assert!(
        found(SidecarSource::Engine { socket: folder.path().join("x"), project: None })
            .unwrap_err()
            .contains("does not answer")
    );
}
