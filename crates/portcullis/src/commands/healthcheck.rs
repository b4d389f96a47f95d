//! `portcullis healthcheck`: is the sidecar ready? For images that have no shell and no curl.

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::ready::{self, Readiness};
use portcullis_discovery::Url;

/// Check whether a running proxy is ready: 0 ready, 1 not ready, 69 no answer
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis healthcheck
  portcullis healthcheck --url http://127.0.0.1:15000/healthz/ready
  HEALTHCHECK CMD [\"/portcullis\", \"healthcheck\"]")]
pub(crate) struct Args {
    /// URL to ask [default: 127.0.0.1:15021 (Istio's health port), then 127.0.0.1:15000]
    #[arg(long, value_parser = Url::parse, value_hint = clap::ValueHint::Url)]
    url: Option<Url>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match ready::check(&ready::urls(args.url.as_ref())) {
        Readiness::Ready => {
            output::text("ready\n")?;
            Ok(Exit::Ok)
        }
        Readiness::Pending(pending) => {
            output::note(&pending);
            Ok(Exit::Failure)
        }
        Readiness::Unreachable(why) => Err(Failure::message(Exit::Unreachable, why)),
    }
}
