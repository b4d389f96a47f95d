//! `portcullis explain`: the mode of a port of the workload, or how the workload reaches a destination, and why.

mod outbound;

use portcullis_config::HostPort;
use portcullis_policy::explain;

use super::subject::{LoadedSubject, SubjectArgs};
use super::values;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

/// Show which mode a port of a workload has, or how the workload reaches a destination, and what decided it
///
/// Inbound (--port): the mode, the policy that decided it, and why the others did not. Outbound (--to): the route, or the service of the
/// directory, and for each endpoint the transport with the identities that may answer.
///
/// Policies, namespaces, labels and default mode come from the proxy's configuration: that of -c, or else $PORTCULLIS_CONFIG or
/// /etc/portcullis/config.yaml. Flags override them. With both -f and -n, and without -c, no configuration is read, so there are no
/// routes. Names are not resolved: name a service by its host, not by an address that its name has.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis explain -c cart.yaml --port 8080
  portcullis explain -f policies -n shop -l app=cart --port 8080
  portcullis explain -c web.yaml --to cart:8080
  portcullis explain -f policies -n shop --to 10.0.0.7:5432 -o json
  cat policies/*.yaml | portcullis explain -f - -n shop -l app=cart --port 8080")]
#[command(group = clap::ArgGroup::new("direction").required(true))]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Port that the workload listens on (the container's, not a Service's)
    #[arg(short, long, group = "direction", value_parser = values::port)]
    port: Option<u16>,
    /// Destination that the workload dials: a host or an address, and a port
    #[arg(long, group = "direction", value_name = "HOST:PORT", value_parser = values::host_port)]
    to: Option<HostPort>,
    /// Only the endpoints of this subset of the DestinationRule
    #[arg(long, value_name = "NAME", requires = "to")]
    subset: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let subject = args.subject.load()?;
    if let Some(to) = &args.to {
        return outbound::explain(&subject, to, args.subset.as_deref(), args.output);
    }
    let LoadedSubject { set, mesh, namespace, labels, .. } = subject;
    let explanation = explain(&set, &mesh, &namespace, &labels, args.port.unwrap_or_default());
    match args.output {
        Format::Json => output::json(&explanation)?,
        Format::Text => output::text(&explanation.to_string())?,
    }
    Ok(Exit::Ok)
}
