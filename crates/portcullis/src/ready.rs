//! Readiness of the sidecar: asked once (`healthcheck`), or polled until it is ready (`wait`, `run`).

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::exit::{Exit, Failure};
use crate::output;
use crate::signals::{Signals, reap};
use portcullis_discovery::Url;

/// The deadline of one request. Docker's own limit for a health check is 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between two requests. Readiness is cheap to answer, and each pause delays the start of the app.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Istio's health port, then the admin port.
const PORTS: [u16; 2] = [15021, 15000];
const PATH: &str = "/healthz/ready";

/// The readiness of the proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Readiness {
    /// It is ready.
    Ready,
    /// It answers with what is pending.
    Pending(String),
    /// There is no answer.
    Unreachable(String),
}

impl Readiness {
    /// Why it is not ready.
    fn reason(&self) -> &str {
        match self {
            Self::Ready => "",
            Self::Pending(reason) | Self::Unreachable(reason) => reason,
        }
    }
}

/// The URLs to query: the one of the command line, else the usual ports.
pub(crate) fn urls(named: Option<&Url>) -> Vec<Url> {
    match named {
        Some(url) => vec![url.clone()],
        None => PORTS.iter().map(|port| Url::at(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), PATH)).collect(),
    }
}

/// Queries one after the other, until one answers.
pub(crate) fn check(urls: &[Url]) -> Readiness {
    let mut unreachable = Vec::new();
    for url in urls {
        match url.get(REQUEST_TIMEOUT) {
            Ok(answer) if answer.status == 200 => return Readiness::Ready,
            Ok(answer) => {
                let body = answer.body.trim();
                return Readiness::Pending(format!("{url} answered {}: {}", answer.status, body.escape_debug()));
            }
            Err(error) => unreachable.push(format!("{url}: {error}")),
        }
    }
    Readiness::Unreachable(unreachable.join("; "))
}

/// How waiting ended before its deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    Ready,
    /// A signal that ends a process arrived.
    Signalled(Signal),
}

/// Waits until the proxy is ready; writes to standard error what is pending, whenever that changes.
///
/// # Errors
/// If it is not ready in time: whether it could be reached, and what was pending last.
pub(crate) async fn wait(urls: Vec<Url>, timeout: Duration, signals: &mut Signals) -> Result<Waited, Failure> {
    let deadline = Instant::now().checked_add(timeout).context("--timeout is too long for this clock")?;
    let mut answers = poll(urls)?;
    let mut last: Option<Readiness> = None;
    // One answer proves that there is a proxy, even if it has exited since.
    let mut exit = Exit::Unreachable;
    loop {
        let answer = tokio::select! {
            answer = timeout_at(deadline, answers.recv()) => answer,
            signal = signals.next() => match signal {
                Signal::CHILD => { reap(); continue }
                // Signals whose default action is to be ignored.
                Signal::CONT | Signal::WINCH => continue,
                signal => return Ok(Waited::Signalled(signal)),
            }
        };
        match answer {
            Ok(Some(Readiness::Ready)) => return Ok(Waited::Ready),
            Ok(Some(answer)) => {
                if last.as_ref() != Some(&answer) {
                    output::note(&format!("waiting for the proxy: {}", answer.reason()));
                }
                if matches!(answer, Readiness::Pending(_)) {
                    exit = Exit::Failure;
                }
                last = Some(answer);
            }
            Ok(None) | Err(_) => {
                let last = last.as_ref().map_or("there was no answer yet", Readiness::reason);
                let message = format!("the proxy is not ready after {} s: {last}", timeout.as_secs_f64());
                return Err(Failure::message(exit, message));
            }
        }
    }
}

/// Polls in a thread of its own, which ends with the receiver or when the proxy is ready: neither a slow name lookup nor a stalled server delays a signal
/// or the deadline.
fn poll(urls: Vec<Url>) -> anyhow::Result<mpsc::UnboundedReceiver<Readiness>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let polling = move || {
        loop {
            let readiness = check(&urls);
            // Once it is ready, or the receiver has gone, the proxy is left alone.
            let is_last = readiness == Readiness::Ready;
            if sender.send(readiness).is_err() || is_last {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
    };
    thread::Builder::new().name("poll".to_owned()).spawn(polling).context("cannot start a thread")?;
    Ok(receiver)
}
