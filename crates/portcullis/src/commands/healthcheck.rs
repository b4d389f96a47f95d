//! `portcullis healthcheck`: is the proxy beside us ready? Made for images that have no shell and no curl.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::http::Url;
use crate::output;

/// The whole question and answer, for each address that is asked. Docker's own limit is 30 s.
const WITHIN: Duration = Duration::from_secs(3);
/// Istio's health port, then the admin port.
const PORTS: [u16; 2] = [15021, 15000];
const PATH: &str = "/healthz/ready";

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
    let urls = match &args.url {
        Some(url) => vec![url.clone()],
        None => PORTS.iter().map(|port| Url::at(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)), PATH)).collect(),
    };
    let mut unreachable = Vec::new();
    for url in &urls {
        match url.get(WITHIN) {
            Ok(answer) if answer.status == 200 => {
                output::text("ready\n")?;
                return Ok(Exit::Ok);
            }
            Ok(answer) => {
                let said = answer.body.trim();
                output::note(&format!("{url} answered {}: {}", answer.status, said.escape_debug()));
                return Ok(Exit::Failure);
            }
            Err(error) => unreachable.push(format!("{url}: {error}")),
        }
    }
    Err(Failure::message(Exit::Unreachable, unreachable.join("; ")))
}
