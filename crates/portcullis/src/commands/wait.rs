//! `portcullis wait`: blocks until the sidecar is ready.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::exit::{Exit, Failure, Outcome};
use crate::holder::{self, Namespace};
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
  portcullis wait --holder /run/portcullis/holder.sock
  portcullis wait && exec my-app")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) proxy: Proxy,
    /// Exit 1 at once if the holder that answers on this Unix socket (`hold --announce`) has another network namespace than this
    /// process: the proxy will never answer in a namespace that was replaced
    #[arg(long, value_name = "SOCKET", value_hint = clap::ValueHint::FilePath)]
    holder: Option<PathBuf>,
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
        let waited = tokio::select! {
            waited = args.proxy.ready(&mut signals) => waited?,
            failure = left_behind(args.holder.as_deref()) => return Err(failure),
        };
        Ok(match waited {
            Waited::Ready => Exit::Ok,
            Waited::Signalled(signal) => Exit::killed_by(signal.as_raw()),
        })
    })
}

/// Until the holder is back with another network namespace. An engine that restarts everything starts this process again in the namespace
/// that it had, even if its holder gets another one in the same moment.
async fn left_behind(socket: Option<&Path>) -> Failure {
    let Some(socket) = socket else { return std::future::pending().await };
    let own = match Namespace::own().context("/proc/self/ns/net cannot be read, so a lost network would not be noticed")
    {
        Ok(own) => own,
        Err(error) => return error.into(),
    };
    let new = holder::replaced(socket, &own).await;
    let message = format!(
        "this network namespace ({own}) was replaced by another one ({new}), so no proxy will answer here. The container engine joins the \
         new one when it starts this container again: `docker-compose up --detach`"
    );
    Failure::message(Exit::Failure, message)
}
