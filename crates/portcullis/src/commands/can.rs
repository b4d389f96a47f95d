//! `portcullis can`: whether a connection is authorized, and by which rule.

use std::fmt::Write as _;
use std::net::IpAddr;

use portcullis_policy::authorization::{Authorization, AuthorizationAction, Condition, Facts, MatchedRule};
use portcullis_policy::{EffectivePolicy, Evaluation, Mode};
use serde::Serialize;

use super::subject::{LoadedSubject, SubjectArgs, TrustDomainArgs};
use super::values;
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

/// Where a connection comes from and goes to if nobody says: addresses of no network.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const DESTINATION: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// Answer whether a peer may connect to a port of a workload, and which rule decides: 0 allowed, 1 denied
///
/// The answer is that of the AuthorizationPolicies. The mode of the port, which PeerAuthentication decides before them, is shown
/// beside it. Policies and workload come from the configuration or from flags, as for `explain`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis can -c cart.yaml --port 8080 --peer spiffe://cluster.local/ns/web/sa/front
  portcullis can -f policies -n shop -l app=cart --port 8080 --plaintext
  portcullis can -f policies -n shop --port 8080 --plaintext --source-ip 10.1.2.3 -o json
  portcullis can -f policies -n shop --port 8080 --peer spiffe://cluster.local/ns/web/sa/front --dry-run")]
#[command(group = clap::ArgGroup::new("client").required(true))]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    trust_domains: TrustDomainArgs,
    /// Port that the workload listens on (the container's, not a Service's)
    #[arg(short, long, value_parser = values::port)]
    port: u16,
    /// SPIFFE ID of the peer, verified by mTLS
    #[arg(long, value_name = "SPIFFE_ID", group = "client")]
    peer: Option<String>,
    /// A peer without a verified identity: plaintext, or TLS of its own
    #[arg(long, group = "client")]
    plaintext: bool,
    /// Address of the direct peer (`ipBlocks`, `source.ip`) [default: 192.0.2.1, an address of no network]
    #[arg(long, value_name = "IP")]
    source_ip: Option<IpAddr>,
    /// Address of the client behind a load balancer that speaks the PROXY protocol (`remoteIpBlocks`, `remote.ip`) [default: that
    /// of the direct peer]
    #[arg(long, value_name = "IP")]
    remote_ip: Option<IpAddr>,
    /// Address that the client dials (`destination.ip`) [default: 192.0.2.2, an address of no network]
    #[arg(long, value_name = "IP")]
    destination_ip: Option<IpAddr>,
    /// Server name of the client's TLS (`connection.sni`) [default: none]
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Answer as if policies with the annotation istio.io/dry-run were enforced
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'p> {
    allow: bool,
    mode: Mode,
    decided_by: Option<Decider<'p>>,
    reason: &'static str,
}

/// The policy that decided.
#[derive(Serialize)]
struct Decider<'p> {
    namespace: &'p str,
    name: &'p str,
    action: AuthorizationAction,
    /// Its rule, from 0; `null` if it is the only ALLOW policy, and none of its rules matches.
    rule: Option<usize>,
    file: &'p str,
    line: u32,
}

impl<'p> From<MatchedRule<'p>> for Decider<'p> {
    fn from(MatchedRule { policy, rule, line, .. }: MatchedRule<'p>) -> Self {
        Self {
            namespace: &policy.namespace,
            name: &policy.name,
            action: policy.action,
            rule: Some(rule),
            file: &policy.file,
            line,
        }
    }
}

impl<'p> Answer<'p> {
    fn new(authorization: Authorization<'p>, mode: Mode) -> Self {
        let decided_by = match authorization {
            Authorization::Allowed(matched) | Authorization::Denied(matched) => Some(matched.into()),
            Authorization::NotAllowed([policy]) => Some(Decider {
                namespace: &policy.namespace,
                name: &policy.name,
                action: policy.action,
                rule: None,
                file: &policy.file,
                line: policy.line,
            }),
            Authorization::NotAllowed(_) | Authorization::Unrestricted => None,
        };
        Self { allow: authorization.is_allowed(), mode, decided_by, reason: authorization.reason() }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let peer = args.peer.as_deref().map(values::parse_id).transpose()?;
    let LoadedSubject { set, mesh, namespace, labels, .. } = args.subject.load()?;
    let mesh = args.trust_domains.or(mesh);
    let evaluation = if args.dry_run { Evaluation::DryRun } else { Evaluation::Enforced };
    let policy = EffectivePolicy::evaluate(&set, &mesh, &namespace, &labels, evaluation);
    note_assumptions(args, &policy);
    let source = args.source_ip.unwrap_or(SOURCE);
    let facts = Facts {
        peer: peer.as_ref(),
        source,
        remote: args.remote_ip.unwrap_or(source),
        destination: args.destination_ip.unwrap_or(DESTINATION),
        port: args.port,
        sni: args.sni.as_deref(),
    };
    let authorization = policy.authorizer().authorize(&facts);
    let mode = policy.mode(args.port).mode;
    let answer = Answer::new(authorization, mode);
    match args.output {
        Format::Json => output::json(&answer)?,
        Format::Text => output::text(&text(authorization, mode, &facts))?,
    }
    Ok(if answer.allow { Exit::Ok } else { Exit::Failure })
}

/// An answer that depends on what nobody said is worth a word.
fn note_assumptions(args: &Args, policy: &EffectivePolicy) {
    let conditions =
        || policy.authorizer().policies().flat_map(|policy| &policy.rules).flat_map(|rule| rule.conditions());
    let source = args.source_ip.is_none() && conditions().any(|it| matches!(it, Condition::SourceIp(_)));
    let remote = args.source_ip.is_none() && args.remote_ip.is_none();
    let remote = remote && conditions().any(|it| matches!(it, Condition::RemoteIp(_)));
    if source || remote {
        output::note("note: a rule compares the client's address; 192.0.2.1 is assumed, name it with --source-ip");
    }
    if args.destination_ip.is_none() && conditions().any(|it| matches!(it, Condition::DestinationIp(_))) {
        output::note(
            "note: a rule compares the destination's address; 192.0.2.2 is assumed, name it with --destination-ip",
        );
    }
}

fn text(authorization: Authorization<'_>, mode: Mode, facts: &Facts<'_>) -> String {
    let verdict = if authorization.is_allowed() { "allowed" } else { "denied" };
    let why = match authorization {
        Authorization::Unrestricted => "no ALLOW policy applies to the workload, and no DENY rule matches".to_owned(),
        Authorization::Allowed(matched) | Authorization::Denied(matched) => {
            let MatchedRule { policy, rule, line, label } = matched;
            format!("rule {rule} of the {} policy {label} ({}:{line})", policy.action, policy.file)
        }
        Authorization::NotAllowed(policies) => {
            let at = |policy: &portcullis_policy::authorization::AuthorizationPolicy| {
                format!("{} ({}:{})", policy.label(), policy.file, policy.line)
            };
            let names: Vec<String> = policies.iter().take(NAMED).map(|policy| at(policy)).collect();
            let more = policies.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("no rule of an ALLOW policy matches: {}{more}", names.join(", "))
        }
    };
    let reason = authorization.reason();
    let mut text = format!("{verdict}: {why} [{reason}]; port {} is {mode}\n", facts.port);
    if mode == Mode::Strict && facts.peer.is_none() {
        let _infallible = writeln!(text, "the mode refuses a client without mTLS, whatever policies allow");
    }
    if mode == Mode::Disable && facts.peer.is_some() {
        let _infallible = writeln!(text, "the mode verifies no identity, so the proxy decides as for --plaintext");
    }
    text
}

/// How many policies the text names.
const NAMED: usize = 5;
