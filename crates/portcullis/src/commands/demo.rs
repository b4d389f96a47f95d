//! `portcullis demo`: the arguments; the show itself is in [`crate::demo`].

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use super::Outcome;
use crate::demo::{self, server};
use crate::exit::{Exit, Failure};
use crate::http::Url;
use crate::output;

/// Show what each mode lets through, with an authority and sidecars made for the occasion
///
/// Runs a certificate authority (`portcullis ca`), an app, and real sidecar processes on loopback that have their certificates
/// from it, and walks STRICT, PERMISSIVE and DISABLE by editing the policy file while they run. In each mode it tries
/// plaintext, mesh mTLS, a wrong CA, a wrong identity and no certificate, and prints what became of it. Nothing stays behind.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "Examples:
  portcullis demo
  portcullis demo --check
  portcullis demo --keep"
)]
pub(crate) struct Args {
    /// Exit with 1 if any cell of the table is not as it must be
    #[arg(long)]
    check: bool,
    /// Keep the folder with the authority, configurations and logs
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    App(App),
    Get(Get),
}

/// An app that knows nothing of TLS, for the compose quick start
///
/// Answers GET / with its name and, with --calls, with what another app says when it is asked; GET /slow?seconds=N waits
/// first. Ends on SIGTERM, once it has answered what was asked.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis demo app --listen '[::]:8080' --name cart
  portcullis demo app --listen 0.0.0.0:8080 --name web --calls http://cart:8080/")]
struct App {
    /// Address with port
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What it calls itself
    #[arg(long, default_value = "app")]
    name: String,
    /// An http:// URL that it asks for each GET /
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    calls: Option<Url>,
}

/// Ask for a page over plain HTTP, where there is no curl: 0 if the status is 2xx, 1 for any other, 69 if nobody answers
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis demo get http://cart:8080/ --timeout 2s")]
struct Get {
    /// An http:// URL
    #[arg(value_parser = Url::parse)]
    url: Url,
    /// For the whole answer, such as 500ms or 5s
    #[arg(long, value_parser = super::duration, default_value = "5s")]
    timeout: Duration,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        None => demo::run(demo::Options { check: args.check, keep: args.keep }),
        Some(Command::App(App { listen, name, calls })) => {
            let options = server::Options { listen: *listen, name: name.clone(), calls: calls.clone() };
            server::serve(&options).with_context(|| format!("cannot serve on {listen}"))?;
            Ok(Exit::Ok)
        }
        Some(Command::Get(Get { url, timeout })) => {
            let answer =
                url.get(*timeout).map_err(|error| Failure::message(Exit::Unreachable, format!("{url}: {error}")))?;
            output::note(&format!("{url}: status {}", answer.status));
            output::text(&answer.body)?;
            Ok(if (200..300).contains(&answer.status) { Exit::Ok } else { Exit::Failure })
        }
    }
}
