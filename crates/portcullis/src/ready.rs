//! Whether the proxy beside us is ready: asked once (`healthcheck`), or until it is (`wait`, `run`).

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::exit::{Exit, Failure};
use crate::http::Url;
use crate::output;
use crate::signals::{Signals, reap};

/// The whole question and answer, for each address that is asked. Docker's own limit is 30 s.
const WITHIN: Duration = Duration::from_secs(3);
/// Pause between two questions. Readiness is cheap to answer, and an app that starts late is late.
const PAUSE: Duration = Duration::from_millis(100);
/// Istio's health port, then the admin port.
const PORTS: [u16; 2] = [15021, 15000];
const PATH: &str = "/healthz/ready";

/// What came of asking.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// It is ready.
    Ready,
    /// Somebody answers, and says why it is not.
    NotYet(String),
    /// Nobody answers.
    Unreachable(String),
}

impl Answer {
    /// Why it is not ready.
    fn pending(&self) -> &str {
        match self {
            Self::Ready => "",
            Self::NotYet(pending) | Self::Unreachable(pending) => pending,
        }
    }
}

/// Where to ask: as the command line says, else at both addresses where it is usual.
pub(crate) fn urls(named: Option<&Url>) -> Vec<Url> {
    match named {
        Some(url) => vec![url.clone()],
        None => PORTS.iter().map(|port| Url::at(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), PATH)).collect(),
    }
}

/// Asks one after the other, until somebody answers.
pub(crate) fn ask(urls: &[Url]) -> Answer {
    let mut unreachable = Vec::new();
    for url in urls {
        match url.get(WITHIN) {
            Ok(answer) if answer.status == 200 => return Answer::Ready,
            Ok(answer) => {
                let said = answer.body.trim();
                return Answer::NotYet(format!("{url} answered {}: {}", answer.status, said.escape_debug()));
            }
            Err(error) => unreachable.push(format!("{url}: {error}")),
        }
    }
    Answer::Unreachable(unreachable.join("; "))
}

/// How waiting ended, if not by its deadline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    Ready,
    /// This signal came, which ends a process.
    Ended(Signal),
}

/// Waits until the proxy is ready; says on standard error what is pending, whenever that changes.
///
/// # Errors
/// If it is not ready in time: whether it could be reached, and what was pending last.
pub(crate) async fn wait(urls: Vec<Url>, timeout: Duration, signals: &mut Signals) -> Result<Waited, Failure> {
    let deadline = Instant::now().checked_add(timeout).context("--timeout is too long for this clock")?;
    let mut answers = answers(urls)?;
    let mut last: Option<Answer> = None;
    // One answer is enough to know that there is a proxy, be it gone by now.
    let mut exit = Exit::Unreachable;
    loop {
        let answer = tokio::select! {
            answer = timeout_at(deadline, answers.recv()) => answer,
            signal = signals.next() => match signal {
                Signal::CHILD => { reap(); continue }
                // What does nothing by default does not end us either.
                Signal::CONT | Signal::WINCH => continue,
                signal => return Ok(Waited::Ended(signal)),
            }
        };
        match answer {
            Ok(Some(Answer::Ready)) => return Ok(Waited::Ready),
            Ok(Some(answer)) => {
                if last.as_ref() != Some(&answer) {
                    output::note(&format!("waiting for the proxy: {}", answer.pending()));
                }
                if matches!(answer, Answer::NotYet(_)) {
                    exit = Exit::Failure;
                }
                last = Some(answer);
            }
            Ok(None) | Err(_) => {
                let last = last.as_ref().map_or("nobody has answered yet", Answer::pending);
                let message = format!("the proxy is not ready after {} s: {last}", timeout.as_secs_f64());
                return Err(Failure::message(exit, message));
            }
        }
    }
}

/// Asks again and again in a thread of its own, which ends with the receiver: neither a name that takes long to look up nor
/// a server that stalls keeps a signal or the deadline waiting.
fn answers(urls: Vec<Url>) -> anyhow::Result<mpsc::UnboundedReceiver<Answer>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let asking = move || {
        while sender.send(ask(&urls)).is_ok() {
            thread::sleep(PAUSE);
        }
    };
    thread::Builder::new().name("ask".to_owned()).spawn(asking).context("cannot start a thread")?;
    Ok(receiver)
}
