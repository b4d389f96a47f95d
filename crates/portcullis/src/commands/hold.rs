//! `portcullis hold`: keeps a container, and its network namespace that other containers share, until a signal.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::time::sleep;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::signals::{Signals, reap};
use crate::uncaptured;

/// How often sockets are listed until the rules are installed.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Do nothing until SIGTERM or SIGINT: holds the network namespace that app and sidecar share
///
/// For containers that share a network namespace, such as those of a compose file: its owner must outlive the others, or they
/// lose their network. Works as PID 1, needs no configuration, and ends with 0.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis hold
  portcullis hold --await-intercept
  docker run --name cart-net IMAGE hold; docker run --network container:cart-net IMAGE proxy")]
pub(crate) struct Args {
    /// Exit 1 if an app starts before the redirect rules are installed, so that its network is gone: an engine that restarts
    /// containers does not keep their order
    #[arg(long)]
    await_intercept: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut signals =
            Signals::listen(&[Signal::TERM, Signal::INT, Signal::CHILD]).context("cannot listen to signals")?;
        // Children that ended before there was a handler.
        reap();
        tokio::select! {
            () = end(&mut signals) => return Ok(Exit::Ok),
            rules = rules_installed(), if args.await_intercept => rules?,
        }
        end(&mut signals).await;
        Ok::<_, Failure>(Exit::Ok)
    })
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
    loop {
        tokio::select! {
            announced = listener.accept() => if announced.is_ok() {
                output::note("the redirect rules are installed");
                return Ok(());
            },
            () = sleep(POLL_INTERVAL) => if let Some(socket) = uncaptured::find() {
                return Err(Failure::message(Exit::Failure, format!(
                    "{socket}, but the redirect rules are not installed yet: exiting, so that no connection gets past the \
                     sidecar. Start all containers in order: docker-compose up -d --force-recreate"
                )));
            },
        }
    }
}
