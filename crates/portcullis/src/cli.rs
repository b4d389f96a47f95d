//! The command line: its commands, and the module that runs each of them.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, error::ErrorKind};

use crate::commands::resources::{apply, break_glass, delete, diff, get};
use crate::commands::{
    analyze, audit, auth, ca, can, certs, check, completion, compose, config, connections, dashboard, demo, describe,
    edges, explain, healthcheck, hold, identity, intercept, join, logs, migrate, policy, proxy, proxy_config,
    proxy_status, readiness, replay, run, validate, verify, version, wait, why, x,
};
use crate::exit::{self, Exit, Failure};
use crate::output::{self, Format};

/// An mTLS sidecar that obeys Istio's PeerAuthentication without Istio
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    disable_version_flag = true,
    after_help = "See it work:  portcullis demo",
    after_long_help = format!("Examples:
  portcullis demo --check
  portcullis validate -f policies
  portcullis proxy -c cart.yaml

{}", exit::TABLE)
)]
struct Cli {
    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Proxy(proxy::Args),
    Dashboard(dashboard::Args),
    Check(Box<check::Args>),
    Demo(demo::Args),
    #[command(visible_alias = "ps")]
    ProxyStatus(proxy_status::Args),
    Connections(connections::Args),
    Logs(logs::Args),
    Edges(edges::Args),
    Why(why::Args),
    #[command(visible_alias = "pc")]
    ProxyConfig(proxy_config::Args),
    Get(Box<get::Args>),
    Apply(Box<apply::Args>),
    Diff(Box<diff::Args>),
    Delete(Box<delete::Args>),
    BreakGlass(Box<break_glass::Args>),
    Validate(validate::Args),
    Analyze(Box<analyze::Args>),
    Audit(Box<audit::Args>),
    Explain(explain::Args),
    Can(Box<can::Args>),
    Auth(Box<auth::Args>),
    Describe(Box<describe::Args>),
    X(x::Args),
    Authn(x::AuthnArgs),
    Policy(policy::Args),
    Verify(Box<verify::Args>),
    Readiness(Box<readiness::Args>),
    Replay(Box<replay::Args>),
    Migrate(Box<migrate::Args>),
    Identity(identity::Args),
    Certs(certs::Args),
    Ca(ca::Args),
    Join(join::Args),
    Compose(compose::Args),
    // By far the most arguments.
    Intercept(Box<intercept::Args>),
    Config(config::Args),
    Healthcheck(healthcheck::Args),
    Wait(wait::Args),
    Run(run::Args),
    Hold(hold::Args),
    Completion(completion::Args),
    Version(version::Args),
}

/// Parses the command line and runs the command.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let outcome = match &cli.command {
        _ if cli.version => version::print(Format::Text),
        None => output::text(&Cli::command().render_help().to_string()).map(|()| Exit::Ok).map_err(Failure::from),
        Some(Command::Proxy(args)) => proxy::run(args),
        Some(Command::Dashboard(args)) => dashboard::run(args),
        Some(Command::Check(args)) => check::run(args),
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::ProxyStatus(args)) => proxy_status::run(args),
        Some(Command::Connections(args)) => connections::run(args),
        Some(Command::Logs(args)) => logs::run(args),
        Some(Command::Edges(args)) => edges::run(args),
        Some(Command::Why(args)) => why::run(args),
        Some(Command::ProxyConfig(args)) => proxy_config::run(args),
        Some(Command::Get(args)) => get::run(args),
        Some(Command::Apply(args)) => apply::run(args),
        Some(Command::Diff(args)) => diff::run(args),
        Some(Command::Delete(args)) => delete::run(args),
        Some(Command::BreakGlass(args)) => break_glass::run(args),
        Some(Command::Analyze(args)) => analyze::run(args),
        Some(Command::Audit(args)) => audit::run(args),
        Some(Command::Validate(args)) => validate::run(args),
        Some(Command::Explain(args)) => explain::run(args),
        Some(Command::Can(args)) => can::run(args),
        Some(Command::Auth(args)) => auth::run(args),
        Some(Command::Describe(args)) => describe::run(args),
        Some(Command::X(args)) => x::run(args),
        Some(Command::Authn(args)) => x::authn(args),
        Some(Command::Policy(args)) => policy::run(args),
        Some(Command::Verify(args)) => verify::run(args),
        Some(Command::Readiness(args)) => readiness::run(args),
        Some(Command::Replay(args)) => replay::run(args),
        Some(Command::Migrate(args)) => migrate::run(args),
        Some(Command::Identity(args)) => identity::run(args),
        Some(Command::Certs(args)) => certs::run(args),
        Some(Command::Ca(args)) => ca::run(args),
        Some(Command::Join(args)) => join::run(args),
        Some(Command::Compose(args)) => compose::run(args),
        Some(Command::Intercept(args)) => intercept::run(args),
        Some(Command::Config(args)) => config::run(args),
        Some(Command::Healthcheck(args)) => healthcheck::run(args),
        Some(Command::Wait(args)) => wait::run(args),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Hold(args)) => hold::run(args),
        Some(Command::Completion(args)) => completion::run::<Cli>(args),
        Some(Command::Version(args)) => version::run(args),
    };
    outcome
        .unwrap_or_else(|failure| {
            output::note(format!("error: {:#}", failure.error).trim_end());
            failure.exit
        })
        .into()
}

/// Help that was requested is an answer; anything else is a wrong command line. clap itself would exit with 2.
fn not_parsed(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelp {
        return output::text(&text).map_or(Exit::Failure, |()| Exit::Ok).into();
    }
    output::note(text.trim_end());
    Exit::Usage.into()
}

/// The whole command line, for the manual pages.
#[cfg(test)]
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_definition_of_the_command_line() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example_in_its_long_help() {
        let mut command = Cli::command();
        command.build();
        let mut pending: Vec<_> = command.get_subcommands().cloned().collect();
        while let Some(mut command) = pending.pop() {
            if command.get_name() == "help" {
                continue;
            }
            pending.extend(command.get_subcommands().cloned());
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}:\n{help}", command.get_name());
        }
    }
}
