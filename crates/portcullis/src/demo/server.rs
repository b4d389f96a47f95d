//! `portcullis demo app`: an app for the compose quick start, which knows nothing of TLS. Plain HTTP/1, one request a
//! connection: who it is, and what another app says when it is asked.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::Url;

/// How long a client has for its request.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer heads are refused.
const MAX_HEAD: usize = 16 * 1024;
/// How long the other app has for its answer.
const CALL: Duration = Duration::from_secs(2);
/// What `/slow` waits at most.
const MAX_SLOW: u64 = 60;

/// What the app is told.
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

/// Serves until SIGTERM or SIGINT; what is under way then is finished.
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
        let _nobody_waits = stop.send(true);
        while connections.join_next().await.is_some() {}
        println(&format!("{} ends", options.name));
        Ok(())
    })
}

/// A line that nobody may read is no reason to end.
fn println(line: &str) {
    let _unread = crate::output::text(&format!("{line}\n"));
}

async fn connection(mut stream: TcpStream, options: Options, mut stopping: watch::Receiver<bool>) {
    // Who has not asked yet when the app is told to end has nothing to lose.
    let request = tokio::select! {
        request = timeout(PATIENCE, request(&mut stream)) => request,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Ok(Ok(Some(target))) = request else { return };
    let Response { status, body } = respond(&target, &options).await;
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _gone = timeout(PATIENCE, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// The target of a GET; `None` if it is none, or too long.
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
    let Some(url) = calls.clone() else { return ok(format!("hello from {name}\n")) };
    let called = tokio::task::spawn_blocking({
        let url = url.clone();
        move || url.get(CALL)
    });
    match called.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
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
