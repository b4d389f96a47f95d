//! `portcullis healthcheck`: is the proxy beside us ready? Made for images that have no shell and no curl.

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::http::Url;
use crate::output;
use crate::ready::{self, Answer};

/// Ask a running proxy whether it is ready: 0 yes, 1 not ready, 69 nobody answers
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis healthcheck
  portcullis healthcheck --url http://127.0.0.1:15000/healthz/ready
  HEALTHCHECK CMD [\"/portcullis\", \"healthcheck\"]")]
pub(crate) struct Args {
    /// Where to ask; otherwise 127.0.0.1:15021 (Istio's health port), and if nobody listens there 127.0.0.1:15000
    #[arg(long, value_parser = Url::parse)]
    url: Option<Url>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match ready::ask(&ready::urls(args.url.as_ref())) {
        Answer::Ready => {
            output::text("ready\n")?;
            Ok(Exit::Ok)
        }
        Answer::NotYet(pending) => {
            output::note(&pending);
            Ok(Exit::Failure)
        }
        Answer::Unreachable(why) => Err(Failure::message(Exit::Unreachable, why)),
    }
}
