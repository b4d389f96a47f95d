//! `portcullis intercept`: the redirect rules of transparent capture, in the network namespace that it runs in.

use std::fmt::Display;

use portcullis_intercept::probe::{self, Outcome as Probed, Version};
use portcullis_intercept::{Capture, InstallError, Installed, Table, install, installed, remove};

use super::capture_args::CaptureArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::uncaptured;

/// Capture TCP for the sidecar: redirect rules in this network namespace
///
/// Inbound connections are redirected to the sidecar's transparent inbound listener, outbound ones to its outbound listener,
/// over IPv4 and IPv6. Loopback, this host's own addresses and the sidecar's own connections (--proxy-uid) are not captured. While no sidecar
/// listens, captured connections are reset.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis intercept plan -c cart.yaml
  portcullis intercept install -c cart.yaml --exclude-outbound-ports 5432
  portcullis intercept verify -c cart.yaml
  portcullis intercept remove")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Plan(Plan),
    Install(Install),
    Verify(Verify),
    Remove(Remove),
}

/// Print the rules that install would make, as nft prints them; changes nothing, needs no privilege
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis intercept plan
  portcullis intercept plan -c cart.yaml --exclude-inbound-ports 22,9100
  portcullis intercept plan --include-outbound-ip-ranges 10.0.0.0/8 --include-outbound-ports 443 | nft --check --file -")]
struct Plan {
    #[command(flatten)]
    capture_args: CaptureArgs,
}

/// Install the rules; needs CAP_NET_ADMIN
///
/// Rules of an earlier run are replaced in one transaction, so it can be repeated at any time. Connections that are open already
/// are not captured: install before the app starts.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis intercept install
  portcullis intercept install -c cart.yaml --exclude-outbound-ip-ranges 169.254.169.254
  portcullis intercept install --drop-outbound-udp-ports 443      # no QUIC around the sidecar")]
struct Install {
    #[command(flatten)]
    capture_args: CaptureArgs,
}

/// Verify that the rules are in force: 0 as planned, 1 not, 81 something could not be checked
///
/// Reads the rules back and compares them, then opens a connection to an address that no host has, over IPv4 and IPv6, and
/// checks where it arrives. It changes nothing. The kernel shows rules with CAP_NET_ADMIN only, and connections of the sidecar's own user are
/// not redirected: what cannot be seen for that is marked with ?, with where it can be seen. In the container of a sidecar both are so; those
/// who hold the network namespace see the rules.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis intercept verify -c cart.yaml
  docker exec shop_cart-net_1 /portcullis intercept verify
  docker exec --user 1000 shop_cart-proxy_1 /portcullis intercept verify")]
struct Verify {
    #[command(flatten)]
    capture_args: CaptureArgs,
}

/// Remove the rules, if there are any; needs CAP_NET_ADMIN
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis intercept remove")]
struct Remove {}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Plan(Plan { capture_args }) => {
            Ok(output::text(&capture_args.capture()?.table().to_string()).map(|()| Exit::Ok)?)
        }
        Command::Install(Install { capture_args }) => install_rules(&capture_args.capture()?),
        Command::Verify(Verify { capture_args }) => verify(&capture_args.capture()?),
        Command::Remove(Remove {}) => {
            remove().map_err(not_installed)?;
            output::text("removed: no rule of portcullis is left\n")?;
            Ok(Exit::Ok)
        }
    }
}

/// Installs the rules, unless they are there already, and says so.
pub(super) fn install_rules(capture: &Capture) -> Outcome {
    let table = capture.table();
    if capture.proxy_uid == 0 {
        output::note("warning: no connection of root is captured; run the sidecar as a user of its own");
    }
    let done = if installed(&table).map_err(not_installed)? == Installed::AsPlanned {
        "unchanged"
    } else {
        install(&table).map_err(not_installed)?;
        "installed"
    };
    uncaptured::announce();
    output::text(&format!("{done}: {}\n", summary(&table)))?;
    Ok(Exit::Ok)
}

fn summary(table: &Table) -> String {
    let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
    format!("table inet {}, {} chains, {rules} rules", table.name, table.chains.len())
}

fn verify(capture: &Capture) -> Outcome {
    let mut report = Report { text: String::new(), exit: Exit::Ok };
    let table = capture.table();
    match installed(&table) {
        Err(InstallError::NotPermitted { .. }) => report.unchecked(
            "rules",
            "cannot be read: the kernel shows them with CAP_NET_ADMIN only. Where they were made it is there: in a compose file the \
             container NAME-net (docker exec NAME-net /portcullis intercept verify)",
        ),
        Err(error) => return Err(not_installed(error)),
        Ok(Installed::AsPlanned) => report.good("rules", format!("as planned: {}", summary(&table))),
        Ok(Installed::Missing) => report.bad("rules", "not installed: run portcullis intercept install"),
        Ok(Installed::Different(what)) => report.bad("rules", format!("not as planned: {what}")),
    }
    for (version, name) in [(Version::V4, "IPv4 outbound"), (Version::V6, "IPv6 outbound")] {
        let outcome = probe::outbound(capture, version).map_err(|error| anyhow::Error::new(error).context(name))?;
        report.probe(name, outcome);
    }
    output::text(&report.text)?;
    Ok(report.exit)
}

struct Report {
    text: String,
    exit: Exit,
}

impl Report {
    fn line(&mut self, mark: &str, what: &str, message: impl Display) {
        self.text.push_str(&format!("{mark:6}  {what:13}  {message}\n"));
    }

    /// What is proven to be wrong comes before what is unknown.
    fn unchecked(&mut self, what: &str, message: impl Display) {
        if self.exit == Exit::Ok {
            self.exit = Exit::TooLittleObserved;
        }
        self.line("?", what, message);
    }

    fn good(&mut self, what: &str, message: impl Display) {
        self.line("ok", what, message);
    }

    fn bad(&mut self, what: &str, message: impl Display) {
        self.exit = Exit::Failure;
        self.line("FAILED", what, message);
    }

    fn probe(&mut self, what: &str, outcome: Probed) {
        match outcome {
            Probed::Captured(to) => self.good(what, format!("captured: a connection to {to} arrived here")),
            Probed::Answered(to) => self.good(
                what,
                format!("the sidecar took a connection to {to} (unless the network outside answers for every address)"),
            ),
            Probed::NoRoute => {
                self.line("-", what, "there is no route out of this network namespace: nothing to capture")
            }
            Probed::NothingToProbe => self.line("-", what, "nothing is captured that could be probed"),
            Probed::Exempt => self.unchecked(
                what,
                "cannot be probed as the user whose connections are not captured; run it as another one (docker exec --user 1000)",
            ),
            Probed::NotCaptured(to, error) => self.bad(what, format!("a connection to {to} was not captured: {error}")),
            Probed::Changed(to, found) => {
                let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
                self.bad(what, format!("a connection to {to} arrived here with another destination: {found}"));
            }
        }
    }
}

fn not_installed(error: InstallError) -> Failure {
    let exit = match error {
        InstallError::NotPermitted { .. } => Exit::NoPermission,
        InstallError::NotSupported { .. } | InstallError::Refused { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}
