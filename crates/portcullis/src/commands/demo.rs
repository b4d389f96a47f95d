//! `portcullis demo`: the arguments; the demonstration itself is in [`crate::demo`].

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use crate::demo::{self, server};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use portcullis_discovery::Url;

/// Show what each mode admits, with a temporary CA and real sidecars
///
/// Runs a certificate authority (`portcullis ca`), an app, and real sidecar processes on loopback that get their certificates
/// from it, and walks through STRICT, PERMISSIVE and DISABLE by editing the policy file while they run. In each mode it tries
/// plaintext, mesh mTLS, a wrong CA, a wrong identity and no certificate, and prints the outcome. Nothing is left behind.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "Examples:
  portcullis demo
  portcullis demo --check
  portcullis demo --keep"
)]
pub(crate) struct Args {
    /// Exit with 1 if any cell of the table differs from its expected outcome
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

/// A plaintext HTTP app, for the compose quick start
///
/// Answers GET / with its name and, with --calls, with the answer of another app; GET /slow?seconds=N waits first. Ends on
/// SIGTERM, once it has answered open requests.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis demo app --listen '[::]:8080' --name cart
  portcullis demo app --listen 0.0.0.0:8080 --name web --calls http://cart:8080/")]
struct App {
    /// Address with port
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Name in its answers
    #[arg(long, default_value = "app")]
    name: String,
    /// An http:// URL that it fetches for each GET /
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    calls: Option<Url>,
}

/// Fetch a page over plain HTTP, where there is no curl: 0 if the status is 2xx, 1 for any other, 69 without an answer
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis demo get http://cart:8080/ --timeout 2s")]
struct Get {
    /// An http:// URL
    #[arg(value_parser = Url::parse)]
    url: Url,
    /// Deadline for the whole answer, such as 500ms or 5s
    #[arg(long, value_parser = super::values::timeout, default_value = "5s")]
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
            if (200..300).contains(&answer.status) {
                output::text(&answer.body)?;
                return Ok(Exit::Ok);
            }
            // Standard output is only for a page that was fetched.
            output::note(answer.body.trim_end());
            Ok(Exit::Failure)
        }
    }
}
