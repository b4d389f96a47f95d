//! `portcullis hold`: holds a container, and with it the network namespace that others share, until it is told to end.

use anyhow::Context as _;
use rustix::process::Signal;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::signals::{Signals, reap};

/// Do nothing until SIGTERM or SIGINT: holds the network namespace that app and sidecar share
///
/// For containers that share a network namespace, such as those of a compose file: whoever owns it must outlive the
/// others, or they are left without a network. Works as PID 1, needs no configuration, and ends with 0.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis hold
  docker run --name cart-net IMAGE hold; docker run --network container:cart-net IMAGE proxy")]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut signals =
            Signals::listen(&[Signal::TERM, Signal::INT, Signal::CHILD]).context("cannot listen to signals")?;
        // Those that ended before anybody listened.
        reap();
        while signals.next().await == Signal::CHILD {
            reap();
        }
        Ok::<_, Failure>(Exit::Ok)
    })
}
