//! `portcullis wait`: blocks until the sidecar is ready.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::exit::{Exit, Failure, Outcome};
use crate::ready::{self, Waited};
use crate::signals::Signals;
use portcullis_discovery::Url;

/// Wait until a running proxy is ready: 0 ready, 1 not ready in time, 69 no answer
///
/// What is pending is printed to standard error, at first and whenever it changes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis wait
  portcullis wait --timeout 5m --url http://127.0.0.1:15000/healthz/ready
  portcullis wait && exec my-app")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) proxy: Proxy,
}

/// Which proxy to wait for, and how long.
#[derive(Debug, clap::Args)]
pub(super) struct Proxy {
    /// How long to wait, such as 500ms, 60s or 5m
    #[arg(long, value_parser = super::values::timeout, default_value = "60s")]
    pub(super) timeout: Duration,
    /// URL to ask [default: 127.0.0.1:15021 (Istio's health port), then 127.0.0.1:15000]
    #[arg(long, value_parser = Url::parse, value_hint = clap::ValueHint::Url)]
    pub(super) url: Option<Url>,
}

impl Proxy {
    /// Waits until it is ready, or a signal arrives.
    pub(super) async fn ready(&self, signals: &mut Signals) -> Result<Waited, Failure> {
        ready::wait(ready::urls(self.url.as_ref()), self.timeout, signals).await
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let wanted = [Signal::TERM, Signal::INT, Signal::HUP, Signal::CHILD];
        let mut signals = Signals::listen(&wanted).context("cannot listen to signals")?;
        Ok(match args.proxy.ready(&mut signals).await? {
            Waited::Ready => Exit::Ok,
            Waited::Signalled(signal) => Exit::killed_by(signal.as_raw()),
        })
    })
}
