//! `portcullis ca rotate-root`: from one root to another. No new connection fails; those that rest on the old root are
//! reset when it goes.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use portcullis_ca::{Private, Root, write};
use portcullis_ca_server::{OldRootConnections, RotateRequest, RotationStatus, Step};

use super::folder::{CA_CERT, CA_KEY, CHAIN, INTERMEDIATE_TTL, ROOT_CERT, ROOT_KEY, put, read, unanswered};
use super::istiod::NewRoot;
use crate::commands::Outcome;
use crate::commands::values::ttl;
use crate::exit::{Exit, Failure};
use crate::files::not_written;
use crate::output::{self, Format};

/// The folder from which the running CA takes the new CA.
const NEXT: &str = "next";

/// Change the root in three phases: start publishes old and new, promote signs with the new, finish drops the old
///
/// The CA must run. A step that would cut off an identity from others is refused and changes nothing; the answer lists
/// the identities and instances that block it, with the reason.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca rotate-root start --dir ca
  portcullis ca rotate-root status --dir ca
  portcullis ca rotate-root promote --dir ca --assume spiffe://cluster.local/ns/shop/sa/envoy
  portcullis ca rotate-root finish --dir ca")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Publish a new root beside the old one, which still signs
    #[command(after_long_help = "Examples:
  portcullis ca rotate-root start --dir ca
  portcullis ca rotate-root start --dir ca --key-type ecdsa-p384
  portcullis ca rotate-root start --dir ca --ca /media/new-ca")]
    Start(Start),
    /// Sign below the new root; refused until every workload trusts it
    #[command(after_long_help = "Examples:
  portcullis ca rotate-root promote --dir ca
  portcullis ca rotate-root promote --dir ca --assume spiffe://cluster.local/ns/shop/sa/envoy
  portcullis ca rotate-root promote --dir ca --assume 5f2c99e6958bcb90")]
    Promote(Waiting),
    /// Publish the new root alone; refused while a certificate below the old one is valid
    ///
    /// Connections that were opened with a certificate below the old root are reset (`trust_changed`); --wait waits for
    /// them to end.
    #[command(after_long_help = "Examples:
  portcullis ca rotate-root finish --dir ca
  portcullis ca rotate-root finish --dir ca --wait 1h")]
    Finish(Finish),
    /// Go back one phase: sign below the old root again, or publish it alone again
    #[command(after_long_help = "Examples:
  portcullis ca rotate-root abort --dir ca")]
    Abort(Common),
    /// Show the status of the rotation, and what blocks the next step
    #[command(after_long_help = "Examples:
  portcullis ca rotate-root status --dir ca
  portcullis ca rotate-root status --dir ca -o json")]
    Status(Common),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct Start {
    #[command(flatten)]
    common: Common,
    /// Folder with the new CA under Istio's names (ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem), from elsewhere;
    /// otherwise one is made, and its root is put into DIR/root-DIGITS
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    new_root: NewRoot,
}

#[derive(Debug, clap::Args)]
struct Waiting {
    #[command(flatten)]
    common: Common,
    /// SPIFFE ID of a workload that cannot report its roots and that you know to trust both, or an instance, as `status` names
    /// it, that you know to be gone. May be repeated. Recorded in the audit
    #[arg(long, value_name = "SPIFFE_ID|INSTANCE")]
    assume: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Finish {
    #[command(flatten)]
    waiting: Waiting,
    /// Wait for so long until no sidecar reports a connection that rests on the old root, such as 30m; nothing is changed if
    /// there still is one. Instances that do not report their connections are not waited for
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    wait: Option<Duration>,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Start(start) => {
            // Check first, so that no unused root is created.
            let status = ask(&start.common, Step::Status, &[])?;
            if status.phase != "none" {
                return step(&start.common, Step::Start, &[]);
            }
            let done = hand_over(&start.common.dir, start);
            let done = done.and_then(|()| step(&start.common, Step::Start, &[]));
            if done.is_err() {
                // Leave no unused copy of a key behind.
                let _gone = std::fs::remove_dir_all(start.common.dir.join(NEXT));
            }
            done
        }
        Command::Promote(waiting) => step(&waiting.common, Step::Promote, &waiting.assume),
        Command::Finish(Finish { waiting, wait: None }) => step(&waiting.common, Step::Finish, &waiting.assume),
        Command::Finish(Finish { waiting: Waiting { common, assume }, wait: Some(wait) }) => show(
            common,
            portcullis_ca_server::finish_unused(&common.dir, assume, *wait).map_err(unanswered(&common.dir))?,
        ),
        Command::Abort(common) => step(common, Step::Abort, &[]),
        Command::Status(common) => step(common, Step::Status, &[]),
    }
}

/// Puts the new CA where the running one looks for it. What an interrupted run has left there is replaced.
fn hand_over(dir: &Path, start: &Start) -> Result<(), Failure> {
    let next = dir.join(NEXT);
    make(&next)?;
    if let Some(from) = &start.ca {
        for (name, private) in [(ROOT_CERT, Private::No), (CA_KEY, Private::Yes), (CA_CERT, Private::No)] {
            write(&next.join(name), read(&from.join(name))?.as_bytes(), private, true).map_err(not_written)?;
        }
        let chain = from.join(CHAIN);
        let chain = if chain.exists() { read(&chain)? } else { read(&from.join(CA_CERT))? };
        return write(&next.join(CHAIN), chain.as_bytes(), Private::No, true).map_err(not_written);
    }
    let failed = |error| Failure::new(Exit::Failure, error);
    let own = Root::trust_domain_in(&read(&dir.join(ROOT_CERT))?)
        .with_context(|| format!("{}: a new root for it cannot be made; use --ca", dir.join(ROOT_CERT).display()))?;
    let root = start.new_root.make(&own)?;
    let intermediate = root.intermediate(INTERMEDIATE_TTL).map_err(failed)?;
    // A name of its own: a root that lies there may be the one in use.
    let digits: String = root.fingerprint().map_err(failed)?.chars().take(8).collect();
    let folder = dir.join(format!("root-{digits}"));
    make(&folder)?;
    write(&folder.join(ROOT_KEY), root.key_pem().as_bytes(), Private::Yes, false).map_err(not_written)?;
    write(&folder.join(ROOT_CERT), root.cert_pem().as_bytes(), Private::No, false).map_err(not_written)?;
    put(&next, &intermediate, root.cert_pem())?;
    output::note(&format!("wrote a new root to {0}\nnext: keep {0} in a safe place", folder.display()));
    Ok(())
}

fn make(folder: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    Ok(made.with_context(|| folder.display().to_string())?)
}

fn ask(common: &Common, step: Step, assume: &[String]) -> Result<RotationStatus, Failure> {
    let request = RotateRequest { step, assume: assume.to_vec() };
    portcullis_ca_server::rotate(&common.dir, &request).map_err(unanswered(&common.dir))
}

fn step(common: &Common, step: Step, assume: &[String]) -> Outcome {
    show(common, ask(common, step, assume)?)
}

fn show(common: &Common, status: RotationStatus) -> Outcome {
    match common.output {
        Format::Json => output::json(&status)?,
        Format::Text => output::text(&shown(&status))?,
    }
    match status.refused {
        Some(why) => Err(Failure::message(Exit::Failure, format!("refused: {why}"))),
        None => Ok(Exit::Ok),
    }
}

fn shown(status: &RotationStatus) -> String {
    let next = match status.next {
        None => "start".to_owned(),
        Some(next) => {
            let next = if next == Step::Promote { "promote" } else { "finish" };
            let waited = match status.behind.len() {
                0 => String::new(),
                waited => format!("; {waited} to wait for"),
            };
            match &status.not_before {
                Some(time) => format!("{next}, not before {time} (in {} s){waited}", status.seconds_left),
                None if waited.is_empty() => format!("{next}, now"),
                None => format!("{next}{waited}"),
            }
        }
    };
    let mut rows = vec![("phase", status.phase.clone())];
    rows.extend(status.phases.iter().map(|began| (began.phase.name(), format!("since {}", began.since))));
    rows.push(("new root since", status.published_since.clone().unwrap_or_else(|| "-".to_owned())));
    rows.push(("bundle digest", status.bundle_digest.clone()));
    rows.push(("next", next));
    if let Some(found) = &status.old_root_connections {
        rows.push(("on old root", on_old_root(found)));
    }
    let mut text: String = rows.iter().map(|(name, value)| format!("{name:<19} {value}\n")).collect();
    if !status.behind.is_empty() {
        text.push('\n');
        text.push_str(&row(["ID", "INSTANCE", "LACK", "CERTIFICATE UNTIL", "HEARD"], "TOLD"));
        for waited in &status.behind {
            let or_none = |text: &'_ Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let (instance, last_seen) = (or_none(&waited.instance), or_none(&waited.last_seen));
            let cells = [waited.id.as_str(), &instance, &waited.lack, &waited.until, &last_seen];
            text.push_str(&row(cells, &or_none(&waited.reported_digest)));
        }
    }
    text
}

fn on_old_root(found: &OldRootConnections) -> String {
    let age = found.oldest_report_seconds.map_or_else(String::new, |age| format!(", oldest report {age} s ago"));
    let unknown = match found.unknown {
        0 => String::new(),
        unknown => format!("; unknown for {unknown} that do not report"),
    };
    format!("{} live connections of {} sidecars{age}{unknown}", found.live, found.sidecars)
}

fn row([id, instance, lack, until, last_seen]: [&str; 5], digest: &str) -> String {
    format!("{id:<44}  {instance:<16}  {lack:<13}  {until:<20}  {last_seen:<20}  {digest}\n")
}
