//! `portcullis hold`: keeps a container, and its network namespace that other containers share, until a signal.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_sandbox::privileges;
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::time::sleep;

use super::capture_args::CaptureArgs;
use super::intercept;
use crate::exit::{Exit, Failure, Outcome};
use crate::holder::{self, Namespace};
use crate::output;
use crate::signals::{Signals, reap};
use crate::uncaptured;

/// How often sockets are listed until the rules are installed.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// After this time nobody installs rules any more, or somebody forgot them: sockets are listed less often.
const EARLY: Duration = Duration::from_secs(10);
const LATE_INTERVAL: Duration = Duration::from_millis(250);

/// Do nothing until SIGTERM or SIGINT: holds the network namespace that app and sidecar share
///
/// For containers that share a network namespace, such as those of a compose file: its owner must outlive the others, or they
/// lose their network. With --intercept it installs the redirect rules before anything else, and gives up every privilege. Works as
/// PID 1, and ends with 0.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis hold --intercept --announce /run/portcullis/holder.sock
  portcullis hold --await-intercept
  docker run --name cart-net --user 0:0 --cap-drop ALL --cap-add NET_ADMIN --cap-add SETPCAP --cap-add SETUID --cap-add SETGID \\
    IMAGE hold --intercept; docker run --network container:cart-net IMAGE proxy")]
pub(crate) struct Args {
    /// Install the redirect rules at once, as `intercept install` with the options below, then become the sidecar's user without any
    /// capability. Takes root with CAP_NET_ADMIN, CAP_SETPCAP, CAP_SETUID and CAP_SETGID
    #[arg(long, conflicts_with = "await_intercept")]
    intercept: bool,
    /// Exit 1 if an app starts before the redirect rules are installed by another process, so that its network is gone: an engine that
    /// restarts containers does not keep their order
    #[arg(long)]
    await_intercept: bool,
    /// Tell a sidecar (`proxy --holder`) on this Unix socket which network namespace this is, once the rules are installed
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    announce: Option<PathBuf>,
    #[command(flatten)]
    capture_args: CaptureArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.intercept {
        install_and_drop(&args.capture_args)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut signals =
            Signals::listen(&[Signal::TERM, Signal::INT, Signal::CHILD]).context("cannot listen to signals")?;
        // Children that ended before there was a handler.
        reap();
        if args.await_intercept {
            tokio::select! {
                () = end(&mut signals) => return Ok(Exit::Ok),
                rules = rules_installed() => rules?,
            }
        }
        let announced = async {
            match &args.announce {
                None => std::future::pending().await,
                Some(socket) => {
                    let listener = holder::listen(socket).and_then(UnixListener::from_std);
                    let listener = listener.with_context(|| format!("cannot listen on {}", socket.display()))?;
                    holder::announce(listener, Namespace::own().context("/proc/self/ns/net")?).await;
                    Ok::<_, Failure>(Exit::Ok)
                }
            }
        };
        tokio::select! {
            () = end(&mut signals) => Ok(Exit::Ok),
            failed = announced => failed,
        }
    })
}

/// Installs the rules, and keeps nothing of what that took.
fn install_and_drop(capture_args: &CaptureArgs) -> Result<(), Failure> {
    let capture = capture_args.capture()?;
    intercept::install_rules(&capture)?;
    // The engine lets nobody join before this process runs, and it has done nothing else yet. Should somebody have been faster, the
    // connection ends with the namespace.
    if let Some(connection) = uncaptured::open_connection() {
        return Err(Failure::message(
            Exit::Failure,
            format!(
                "{connection}, which was opened before the redirect rules were installed: exiting, so that nothing gets past the \
                 sidecar. The container engine starts this again, if its restart policy says so; then restart the app"
            ),
        ));
    }
    let left = privileges::drop_all(capture.proxy_uid).map_err(|error| Failure::new(Exit::NoPermission, error))?;
    output::note(&format!("privileges given up: {left}"));
    Ok(())
}

async fn end(signals: &mut Signals) {
    while signals.next().await == Signal::CHILD {
        reap();
    }
}

/// Waits for the rules. Fails when a process uses the network before them.
async fn rules_installed() -> Result<(), Failure> {
    let listener = uncaptured::listen().context("another holder waits in this network namespace")?;
    let listener = UnixListener::from_std(listener).context("cannot wait for the rules")?;
    let begun = Instant::now();
    loop {
        let pause = if begun.elapsed() < EARLY { POLL_INTERVAL } else { LATE_INTERVAL };
        tokio::select! {
            announced = listener.accept() => if announced.is_ok() {
                output::note("the redirect rules are installed");
                return Ok(());
            },
            () = sleep(pause) => if let Some(socket) = uncaptured::find() {
                return Err(Failure::message(Exit::Failure, format!(
                    "{socket}, but the redirect rules are not installed yet: exiting, so that no connection gets past the \
                     sidecar. Start all containers in order: docker-compose up -d --force-recreate"
                )));
            },
        }
    }
}
