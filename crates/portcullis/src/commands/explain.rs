//! `portcullis explain`: which policy applies to a port, and why the others do not.

use portcullis_policy::explain;

use super::subject::{LoadedSubject, SubjectArgs};
use super::values;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

/// Show which mode a port of a workload has, which policy decided it, and why the others did not
///
/// Policies, namespaces, labels and default mode come from the proxy's configuration: that of -c, or else $PORTCULLIS_CONFIG or
/// /etc/portcullis/config.yaml. Flags override them. With both -f and -n, and without -c, no configuration is read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis explain -c cart.yaml --port 8080
  portcullis explain -f policies -n shop -l app=cart --port 8080
  cat policies/*.yaml | portcullis explain -f - -n shop -l app=cart --port 8080")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Port that the workload listens on (the container's, not a Service's)
    #[arg(short, long, value_parser = values::port)]
    port: u16,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let LoadedSubject { set, mesh, namespace, labels } = args.subject.load()?;
    let explanation = explain(&set, &mesh, &namespace, &labels, args.port);
    match args.output {
        Format::Json => output::json(&explanation)?,
        Format::Text => output::text(&explanation.to_string())?,
    }
    Ok(Exit::Ok)
}
