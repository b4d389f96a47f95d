//! `portcullis hold`: holds a container, and with it the network namespace that others share, until it is told to end.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::time::sleep;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::signals::{Signals, reap};
use crate::uncaptured;

/// How often it is looked who is there, until the rules are.
const LOOK: Duration = Duration::from_millis(10);

/// Do nothing until SIGTERM or SIGINT: holds the network namespace that app and sidecar share
///
/// For containers that share a network namespace, such as those of a compose file: whoever owns it must outlive the
/// others, or they are left without a network. Works as PID 1, needs no configuration, and ends with 0.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis hold
  portcullis hold --await-intercept
  docker run --name cart-net IMAGE hold; docker run --network container:cart-net IMAGE proxy")]
pub(crate) struct Args {
    /// End with 1, so that the network is gone, if somebody uses it before `intercept install` was run in it: an engine
    /// that starts containers again does not keep their order
    #[arg(long)]
    await_intercept: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut signals =
            Signals::listen(&[Signal::TERM, Signal::INT, Signal::CHILD]).context("cannot listen to signals")?;
        // Those that ended before anybody listened.
        reap();
        tokio::select! {
            () = end(&mut signals) => return Ok(Exit::Ok),
            rules = rules(), if args.await_intercept => rules?,
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

/// Waits for the rules, as long as nobody is here that they would be for.
async fn rules() -> Result<(), Failure> {
    let listener = uncaptured::listen().context("another holder waits in this network namespace")?;
    let listener = UnixListener::from_std(listener).context("cannot wait for the rules")?;
    loop {
        tokio::select! {
            told = listener.accept() => if told.is_ok() {
                output::note("the redirect rules are there");
                return Ok(());
            },
            () = sleep(LOOK) => if let Some(socket) = uncaptured::find() {
                return Err(Failure::message(Exit::Failure, format!(
                    "{socket}, and the redirect rules are not there yet: ending, so that the network is gone and nobody gets \
                     past the sidecar. Start all parts in their order: docker-compose up -d --force-recreate"
                )));
            },
        }
    }
}
