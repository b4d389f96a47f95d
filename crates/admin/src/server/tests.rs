use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::{Change, Page, Token, TokenError};

#[derive(Default)]
struct Fixed {
    pending: Option<&'static str>,
    token: Option<&'static str>,
    done: Mutex<Vec<String>>,
}

impl Views for Fixed {
    fn view(&self) -> Arc<portcullis_dashboard::View> {
        let title = "<script>alert(1)</script>".to_owned();
        Arc::new(portcullis_dashboard::View { title, ..Default::default() })
    }
}

impl State for Fixed {
    fn ready(&self) -> Result<(), String> {
        self.pending.map_or(Ok(()), |pending| Err(pending.to_owned()))
    }
    fn metrics(&self) -> String {
        "one 1\n".to_owned()
    }
    fn about(&self) -> Vec<(&'static str, String)> {
        vec![("workload", "<script>alert(1)</script>".to_owned())]
    }
    fn page(&self, page: Page) -> String {
        format!("{{\"page\": \"{page:?}\"}}\n")
    }
    fn recent(&self, query: &crate::RecentQuery) -> String {
        format!("recent {query:?}\n")
    }
    fn explain(&self, port: u16) -> String {
        format!("{{\"port\": {port}}}\n")
    }
    fn log_filter(&self) -> String {
        "info".to_owned()
    }
    fn set_log_filter(&self, words: &str) -> Result<String, String> {
        self.done.lock().unwrap().push(words.to_owned());
        if words == "loud" { Err("no such level".to_owned()) } else { Ok(words.to_owned()) }
    }
    fn change(&self, change: Change) {
        self.done.lock().unwrap().push(format!("{change:?}"));
    }
    fn token(&self) -> Result<Option<Token>, TokenError> {
        self.token.map(|token| Token::parse(token.as_bytes())).transpose()
    }
}

async fn start(address: &str, serves: Serves, state: &Arc<Fixed>) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let bound = listener.local_addr().unwrap();
    let state: Arc<dyn State> = Arc::<Fixed>::clone(state);
    tokio::spawn(serve(listener, serves, state));
    SocketAddr::from(([127, 0, 0, 1], bound.port()))
}

async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// `request` is the first line without its version; further lines are headers.
async fn ask(address: SocketAddr, request: &str) -> String {
    let (line, headers) = request.split_once('\n').unwrap_or((request, "host: localhost"));
    let headers = headers.replace('\n', "\r\n");
    send(address, &format!("{line} HTTP/1.1\r\n{headers}\r\nconnection: close\r\n\r\n")).await
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or(answer)
}

#[tokio::test]
async fn readiness_says_what_is_pending() {
    let ready = start("127.0.0.1", Serves::All, &Arc::default()).await;
    assert_eq!(status(&ask(ready, "GET /healthz/ready").await), "200");
    let pending = Arc::new(Fixed { pending: Some("credentials"), ..Fixed::default() });
    let not = ask(start("127.0.0.1", Serves::Health, &pending).await, "GET /healthz/ready").await;
    assert!(status(&not) == "503" && not.contains("pending: credentials"), "{not}");
}

#[tokio::test]
async fn an_address_serves_only_its_own_paths() {
    let state = Arc::default();
    let metrics = start("127.0.0.1", Serves::Metrics, &state).await;
    let page = ask(metrics, "GET /stats/prometheus").await;
    assert!(page.contains("version=0.0.4") && page.ends_with("one 1\n"), "{page}");
    let health = start("127.0.0.1", Serves::Health, &state).await;
    for (address, path) in [
        (metrics, "/healthz/ready"),
        (metrics, "/config_dump"),
        (health, "/stats/prometheus"),
        (health, "/"),
        (health, "/quitquitquit"),
    ] {
        assert_eq!(status(&ask(address, &format!("GET {path}")).await), "404", "{path}");
        assert_eq!(status(&ask(address, &format!("POST {path}")).await), "404", "{path}");
    }
    let unknown = ask(health, "GET /nothing").await;
    assert!(unknown.contains("/healthz/live") && !unknown.contains("/quitquitquit"), "{unknown}");
}

#[tokio::test]
async fn health_and_metrics_accept_any_host_header_and_the_admin_server_does_not() {
    let address = start("127.0.0.1", Serves::All, &Arc::default()).await;
    for path in ["/healthz/ready", "/ready", "/healthz/live", "/stats/prometheus", "/metrics"] {
        assert_eq!(status(&ask(address, &format!("GET {path}\nhost: evil.test")).await), "200", "{path}");
    }
    for path in ["/", "/help", "/config_dump", "/certs", "/explain?port=1", "/logging", "/server_info"] {
        assert_eq!(status(&ask(address, &format!("GET {path}\nhost: evil.test")).await), "403", "{path}");
        assert_eq!(status(&ask(address, &format!("GET {path}")).await), "200", "{path}");
    }
}

#[tokio::test]
async fn a_change_by_anything_but_post_is_refused_with_what_is_allowed() {
    let state = Arc::<Fixed>::default();
    let address = start("127.0.0.1", Serves::All, &state).await;
    for path in ["/drain_listeners", "/quitquitquit", "/logging?level=debug"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = ask(address, &format!("{method} {path}")).await.to_lowercase();
            assert!(answer.starts_with("http/1.1 405 ") && answer.contains("\nallow: "), "{method} {path}: {answer}");
            assert!(answer.lines().any(|line| line.starts_with("allow: ") && line.contains("post")), "{answer}");
        }
    }
    for path in ["/healthz/ready", "/config_dump", "/"] {
        let answer = ask(address, &format!("POST {path}")).await;
        assert!(status(&answer) == "405" && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
    assert!(state.done.lock().unwrap().is_empty());
}

#[tokio::test]
async fn changes_are_made_once_by_whoever_may() {
    let state = Arc::<Fixed>::default();
    let address = start("127.0.0.1", Serves::All, &state).await;
    for refused in [
        "POST /quitquitquit\nhost: evil.test",
        "POST /quitquitquit\nhost: localhost\norigin: http://evil.test",
        "POST /logging?level=debug\nhost: localhost\norigin: null",
    ] {
        assert_eq!(status(&ask(address, refused).await), "403", "{refused}");
    }
    assert!(state.done.lock().unwrap().is_empty());
    for (allowed, words) in [
        ("POST /logging?level=access%3Ddebug", "access=debug"),
        ("POST /drain_listeners", "draining inbound listeners"),
        ("POST /quitquitquit", "draining, then ending"),
    ] {
        let answer = ask(address, allowed).await;
        assert!(status(&answer) == "200" && answer.ends_with(&format!("{words}\n")), "{answer}");
    }
    assert_eq!(*state.done.lock().unwrap(), ["access=debug", "DrainListeners", "Quit"]);
    for wrong in ["POST /logging", "POST /logging?level=loud", "POST /logging?levle=debug"] {
        assert_eq!(status(&ask(address, wrong).await), "400", "{wrong}");
    }
}

#[tokio::test]
async fn elsewhere_a_change_takes_the_token() {
    let open = start("0.0.0.0", Serves::All, &Arc::default()).await;
    let refused = ask(open, "POST /quitquitquit").await;
    assert!(status(&refused) == "403" && refused.contains("admin.tokenFile"), "{refused}");
    let state = Arc::new(Fixed { token: Some("0123456789abcdef"), ..Fixed::default() });
    let address = start("0.0.0.0", Serves::All, &state).await;
    let refused = ask(address, "POST /quitquitquit").await;
    assert!(status(&refused) == "401" && refused.contains("www-authenticate: Bearer\r\n"), "{refused}");
    let right = "POST /drain_listeners\nhost: anything\nauthorization: Bearer 0123456789abcdef";
    assert_eq!(status(&ask(address, right).await), "200");
    assert_eq!(*state.done.lock().unwrap(), ["DrainListeners"]);
}

#[tokio::test]
async fn json_is_json_and_a_wrong_port_is_told() {
    let address = start("127.0.0.1", Serves::All, &Arc::default()).await;
    let page = ask(address, "GET /explain?port=8080").await;
    assert!(page.contains("content-type: application/json\r\n") && page.ends_with("{\"port\": 8080}\n"), "{page}");
    for wrong in
        ["", "?port=", "?port=0", "?port=65536", "?port=-1", "?port=+1", "?port=http", "?prot=1", "?port=1&x=2"]
    {
        let answer = ask(address, &format!("GET /explain{wrong}")).await;
        assert!(status(&answer) == "400" && answer.contains("port"), "{wrong}: {answer}");
    }
}

#[tokio::test]
async fn the_index_has_buttons_and_no_script() {
    let address = start("127.0.0.1", Serves::All, &Arc::default()).await;
    let page = ask(address, "GET /admin").await;
    assert!(page.contains("content-type: text/html") && page.contains("frame-ancestors 'none'"), "{page}");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(page.contains(r#"<form method="post" action="/quitquitquit">"#), "{page}");
    for row in Serves::All.rows() {
        assert!(page.contains(&format!("\"{}\"", row.path)), "{}", row.path);
    }
    let state = Arc::new(Fixed { token: Some("0123456789abcdef"), ..Fixed::default() });
    let page = ask(start("127.0.0.1", Serves::All, &state).await, "GET /admin").await;
    assert!(!page.contains("method=\"post\""), "{page}");
    let help = ask(address, "GET /help").await;
    assert!(Serves::All.rows().all(|row| help.contains(row.summary)), "{help}");
}

#[tokio::test]
async fn the_page_has_this_servers_script_only_and_listens_to_its_events() {
    let address = start("127.0.0.1", Serves::All, &Arc::default()).await;
    let page = ask(address, "GET /").await;
    let policy = page.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(page.contains("&lt;script&gt;alert(1)") && page.matches("<script").count() == 1, "{page}");
    assert!(page.contains("src=\"/dashboard.js\"") && page.contains("href=\"/admin\""), "{page}");
    let script = ask(address, "GET /dashboard.js").await;
    assert!(
        script.contains("content-type: text/javascript") && script.contains("EventSource(\"/events\")"),
        "{script}"
    );
    for path in ["/", "/dashboard.js", "/events"] {
        assert_eq!(status(&ask(address, &format!("GET {path}\nhost: evil.test")).await), "403", "{path}");
    }
    let mut events = TcpStream::connect(address).await.unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut read = String::new();
    while !read.contains("data: \"<div class=\\\"verdict") {
        let mut part = [0; 4096];
        let len = events.read(&mut part).await.unwrap();
        assert!(len > 0, "{read}");
        read.push_str(&String::from_utf8_lossy(&part[..len]));
    }
    assert!(read.contains("content-type: text/event-stream"), "{read}");
}

#[tokio::test]
async fn a_body_is_ignored_up_to_a_limit() {
    let state = Arc::<Fixed>::default();
    let address = start("127.0.0.1", Serves::All, &state).await;
    let post = |length: usize, body: &str| {
        format!(
            "POST /drain_listeners HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    assert_eq!(status(&send(address, &post(5, "hello")).await), "200");
    assert_eq!(status(&send(address, &post(1 << 30, "")).await), "413");
    assert_eq!(*state.done.lock().unwrap(), ["DrainListeners"]);
}

#[tokio::test]
async fn slow_clients_lose_their_slots_to_a_probe() {
    let address = start("127.0.0.1", Serves::All, &Arc::default()).await;
    let mut slow = Vec::new();
    for _ in 0..3 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: ").await.unwrap();
        slow.push(stream);
    }
    let begun = std::time::Instant::now();
    assert_eq!(status(&ask(address, "GET /healthz/ready").await), "200");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
