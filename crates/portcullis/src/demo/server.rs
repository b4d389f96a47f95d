//! `portcullis demo app`: an app for the compose quick start, without TLS. Plain HTTP/1, one request for each
//! connection: it answers with its name, and with the answer of another app.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use portcullis_discovery::{Method, Url};

/// The deadline for a client's request, and for writing the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer heads are refused.
const MAX_HEAD: usize = 16 * 1024;
/// The deadline for the other app's answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait of `/slow`, in seconds.
const MAX_SLOW: u64 = 60;

/// Options of the app.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) name: String,
    pub(crate) calls: Option<Url>,
}

struct Response {
    status: &'static str,
    body: String,
}

/// Serves until SIGTERM or SIGINT; open requests are finished.
///
/// # Errors
/// If the address cannot be listened on.
pub(crate) fn serve(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).await?;
        let mut ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        println(&format!("{} listens on {}", options.name, listener.local_addr()?));
        let (stop, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        let [terminate, interrupt] = &mut ends;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(stream, options.clone(), stopping.clone()))),
                    Err(_no_descriptors) => sleep(Duration::from_millis(50)).await,
                },
            }
        }
        drop(listener);
        let _no_receiver = stop.send(true);
        while connections.join_next().await.is_some() {}
        println(&format!("{} ends", options.name));
        Ok(())
    })
}

/// A line that cannot be written is no reason to end.
fn println(line: &str) {
    let _unread = crate::output::text(&format!("{line}\n"));
}

async fn connection(mut stream: TcpStream, options: Options, mut stopping: watch::Receiver<bool>) {
    // A client that has not sent a request loses nothing when the app ends.
    let request = tokio::select! {
        request = timeout(CLIENT_TIMEOUT, request(&mut stream)) => request,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Ok(Ok(Some(target))) = request else { return };
    let Response { status, body } = respond(&target, &options).await;
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _gone = timeout(CLIENT_TIMEOUT, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// The target of a GET; `None` for another method or a head that is too long.
async fn request(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next());
    Ok(target.filter(|_| method == Some("GET")).map(str::to_owned))
}

async fn respond(target: &str, options: &Options) -> Response {
    let Options { name, calls, .. } = options;
    let ok = |body| Response { status: "200 OK", body };
    if let Some(seconds) = target.strip_prefix("/slow?seconds=").and_then(|digits| digits.parse::<u64>().ok()) {
        let seconds = seconds.min(MAX_SLOW);
        sleep(Duration::from_secs(seconds)).await;
        return ok(format!("hello from {name}, after {seconds} s\n"));
    }
    if target != "/" {
        return Response { status: "404 Not Found", body: format!("{name} has / and /slow?seconds=N\n") };
    }
    let Some(url) = calls else { return ok(format!("hello from {name}\n")) };
    match url.fetch(Method::GET, CALL_TIMEOUT).await {
        Ok(answer) if answer.status == 200 => ok(format!("hello from {name}\n{url} says: {}", answer.body)),
        Ok(answer) => Response {
            status: "502 Bad Gateway",
            body: format!("hello from {name}\n{url} answers {}: {}", answer.status, answer.body),
        },
        Err(error) => {
            Response { status: "502 Bad Gateway", body: format!("hello from {name}\n{url} cannot be asked: {error}\n") }
        }
    }
}
