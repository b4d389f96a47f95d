//! `portcullis policy diff`: the connections that two sets of policies answer differently.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use portcullis_policy::authorization::{Condition, Values};
use portcullis_policy::diff::{AccessDecision, Change, Client, Comparison, Connection, PortClass, WorkloadClass};
use portcullis_policy::{Evaluation, MeshSettings};
use serde::Serialize;

use crate::commands::again::quoted;
use crate::commands::subject::{MeshArgs, TrustDomainArgs, load_set};
use crate::commands::{can, values};
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::{self, Format};

/// List every connection that two sets of policies answer differently, with one that shows it: 0 none, 1 some
///
/// Answers are those of PeerAuthentication and AuthorizationPolicy together. Without -n, every workload is compared that the
/// policies tell apart by namespace and labels; with it, that one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis policy diff policies next
  portcullis policy diff policies next -n shop -l app=cart
  git show HEAD:cart.yaml | portcullis policy diff - cart.yaml -o json")]
pub(crate) struct Args {
    /// The policies in force: a file, or a folder with every .yaml, .yml and .json below it; `-` is standard input
    #[arg(value_name = "OLD", value_hint = ValueHint::AnyPath)]
    old: PathBuf,
    /// The policies that may take their place, likewise
    #[arg(value_name = "NEW", value_hint = ValueHint::AnyPath)]
    new: PathBuf,
    /// A configuration of a proxy, for the settings of the mesh; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Namespace of the workload to compare
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    namespace: Option<String>,
    /// Labels of the workload to compare
    #[arg(short, long, value_name = "k=v,k=v", value_parser = values::labels, requires = "namespace")]
    labels: Option<BTreeMap<String, String>>,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    trust_domains: TrustDomainArgs,
    /// Compare as if policies with the annotation istio.io/dry-run were enforced
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Answer<'a> {
    same: bool,
    changes: Vec<Row<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    workload: &'a WorkloadClass,
    /// `null`: every port but those of `otherThan`.
    port: Option<u16>,
    other_than: Vec<u16>,
    client: Client,
    /// What is true of all these connections, and of no other ones of this workload, port and client.
    conditions: Vec<ConditionRow>,
    was: &'a AccessDecision,
    now: &'a AccessDecision,
    witness: Witness<'a>,
}

#[derive(Serialize)]
struct ConditionRow {
    /// As a key of `when`.
    key: &'static str,
    value: String,
    holds: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Witness<'a> {
    peer: Option<&'a str>,
    port: u16,
    source_ip: IpAddr,
    remote_ip: IpAddr,
    destination_ip: IpAddr,
    sni: Option<&'a str>,
    /// Shows the answer of the old policies, and of the new ones.
    commands: [String; 2],
}

pub(crate) fn run(args: &Args) -> Outcome {
    let inputs = [Some(args.old.as_path()), Some(args.new.as_path()), args.config.as_deref()];
    if inputs.into_iter().flatten().filter(|path| files::is_stdin(path)).count() > 1 {
        return Err(Failure::message(Exit::Usage, "standard input can be read once; name a file instead of one `-`"));
    }
    let base = match &args.config {
        Some(file) => ConfigSource::find(Some(file)).map_or_else(
            || Ok(MeshSettings::default()),
            |source| source.load().map(|loaded| loaded.settings.mesh.policy),
        )?,
        None => MeshSettings::default(),
    };
    let mesh = args.trust_domains.or(args.mesh.or(base));
    let (old, new) = (load_set(&[&args.old])?, load_set(&[&args.new])?);
    let evaluation = if args.dry_run { Evaluation::DryRun } else { Evaluation::Enforced };
    let comparison = Comparison { old: &old, new: &new, mesh: &mesh, evaluation };
    let changes = match &args.namespace {
        Some(namespace) => comparison.workload(namespace, args.labels.as_ref().unwrap_or(&BTreeMap::new())),
        None => comparison.all_workloads(),
    }
    .map_err(Failure::bad_input)?;
    match args.output {
        Format::Json => output::json(&Answer {
            same: changes.is_empty(),
            changes: changes.iter().map(|change| Row::new(change, args, &mesh)).collect(),
        })?,
        Format::Text => output::text(&text(&changes, args, &mesh))?,
    }
    Ok(if changes.is_empty() { Exit::Ok } else { Exit::Failure })
}

impl<'a> Row<'a> {
    fn new(change: &'a Change, args: &Args, mesh: &MeshSettings) -> Self {
        let (port, other_than) = match &change.ports {
            PortClass::One(port) => (Some(*port), Vec::new()),
            PortClass::AllBut(named) => (None, named.iter().copied().collect()),
        };
        let conditions = change.conditions.iter().map(|(condition, holds)| {
            let Shown { key, value } = Shown::new(condition);
            ConditionRow { key, value, holds: *holds }
        });
        let Change { workload, client, was, now, witness, .. } = change;
        let Connection { source, remote, destination, .. } = *witness;
        Self {
            workload,
            port,
            other_than,
            client: *client,
            conditions: conditions.collect(),
            was,
            now,
            witness: Witness {
                peer: witness.peer.as_ref().map(|id| id.as_str()),
                port: witness.port,
                source_ip: source,
                remote_ip: remote,
                destination_ip: destination,
                sni: witness.sni.as_deref(),
                commands: [&args.old, &args.new].map(|path| command(path, change, args, mesh)),
            },
        }
    }
}

/// A condition with a single value, as a policy writes it.
struct Shown {
    key: &'static str,
    value: String,
}

impl Shown {
    fn new(condition: &Condition) -> Self {
        fn one<T: ToString>(values: &Values<T>) -> String {
            values.values().iter().map(ToString::to_string).collect()
        }
        let (key, value) = match condition {
            Condition::Principal(values) => ("source.principal", one(values)),
            Condition::TrustDomain(values) => ("source.trustDomain", one(values)),
            Condition::Namespace(values) => ("source.namespace", one(values)),
            Condition::ServiceAccount(values) => ("source.serviceAccount", one(values)),
            Condition::SourceIp(values) => ("source.ip", one(values)),
            Condition::RemoteIp(values) => ("remote.ip", one(values)),
            Condition::DestinationIp(values) => ("destination.ip", one(values)),
            Condition::Port(values) => ("destination.port", one(values)),
            Condition::Sni(values) => ("connection.sni", one(values)),
            Condition::Http(name) => ("http", name.clone()),
        };
        Self { key, value }
    }
}

fn text(changes: &[Change], args: &Args, mesh: &MeshSettings) -> String {
    if changes.is_empty() {
        return "no difference: both sets answer every connection alike\n".to_owned();
    }
    let mut text = String::new();
    let mut workload = None;
    for change in changes {
        if workload != Some(&change.workload) {
            let _infallible = writeln!(text, "{}", shown_workload(&change.workload));
            workload = Some(&change.workload);
        }
        let word = |verdict: &AccessDecision| if verdict.allow { "allowed" } else { "denied" };
        let (was, now) = (&change.was, &change.now);
        let _infallible = writeln!(
            text,
            "  {}, {}: {} -> {}",
            shown_client(change),
            shown_ports(&change.ports),
            word(was),
            word(now)
        );
        for (name, verdict) in [("was", was), ("now", now)] {
            let _infallible = writeln!(text, "    {name}: {}", shown_verdict(verdict));
        }
        let _infallible = writeln!(text, "    see: {}", command(&args.new, change, args, mesh));
    }
    let _infallible = writeln!(text, "{} in all", count(changes.len(), "change"));
    text
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn shown_workload(workload: &WorkloadClass) -> String {
    let namespace = if workload.any_other_namespace {
        "any namespace that no policy names".to_owned()
    } else {
        format!("namespace {}", workload.namespace)
    };
    let labels = shown_labels(&workload.labels);
    if labels.is_empty() { format!("{namespace}:") } else { format!("{namespace}, labels {labels}:") }
}

fn shown_labels(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

fn shown_ports(ports: &PortClass) -> String {
    match ports {
        PortClass::One(port) => format!("port {port}"),
        PortClass::AllBut(named) if named.is_empty() => "every port".to_owned(),
        PortClass::AllBut(named) => {
            let first: Vec<String> = named.iter().take(NAMED).map(ToString::to_string).collect();
            let more = if named.len() > NAMED { ", ..." } else { "" };
            format!("every port but {}{more}", first.join(", "))
        }
    }
}

/// How many conditions or ports the text names.
const NAMED: usize = 6;

fn shown_client(change: &Change) -> String {
    let (yes, no): (Vec<_>, Vec<_>) = change.conditions.iter().partition(|(_, holds)| *holds);
    let shown = |(condition, _): &&(Condition, bool)| {
        let Shown { key, value } = Shown::new(condition);
        format!("{key} {value}")
    };
    let mut text = match change.client {
        Client::Mtls => "mTLS peer",
        Client::Plaintext => "plaintext",
        Client::Tls => "client with TLS of its own",
    }
    .to_owned();
    if !yes.is_empty() {
        let _infallible = write!(text, " with {}", yes.iter().map(shown).collect::<Vec<_>>().join(" and "));
    }
    if !no.is_empty() {
        let more = no.len().saturating_sub(NAMED);
        let named = no.iter().take(NAMED).map(shown).collect::<Vec<_>>().join(" or ");
        let _infallible = write!(text, " without {named}");
        if more > 0 {
            let _infallible = write!(text, " or {more} more");
        }
    }
    text
}

fn shown_verdict(verdict: &AccessDecision) -> String {
    let reason = verdict.reason;
    let Some(by) = &verdict.decided_by else { return reason.to_owned() };
    let what = by.action.map_or_else(|| by.kind.to_owned(), |action| format!("{action} policy"));
    let rule = by.rule.map_or_else(String::new, |rule| format!("rule {rule} of "));
    format!("{reason}, {rule}{what} {}/{} ({}:{})", by.namespace, by.name, by.file, by.line)
}

/// A command line that shows how one of the sets answers the witness.
fn command(policies: &Path, change: &Change, args: &Args, mesh: &MeshSettings) -> String {
    let Change { workload, witness, .. } = change;
    let mut words = vec!["portcullis".to_owned(), "can".to_owned()];
    let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
    flag("-f", policies.display().to_string());
    flag("-n", workload.namespace.clone());
    if !workload.labels.is_empty() {
        flag("-l", shown_labels(&workload.labels));
    }
    flag("-p", witness.port.to_string());
    if let Some(peer) = &witness.peer {
        flag("--peer", peer.to_string());
    }
    if witness.source != can::SOURCE {
        flag("--source-ip", witness.source.to_string());
    }
    if witness.remote != witness.source {
        flag("--remote-ip", witness.remote.to_string());
    }
    if witness.destination != can::DESTINATION {
        flag("--destination-ip", witness.destination.to_string());
    }
    if let Some(sni) = &witness.sni {
        flag("--sni", sni.clone());
    }
    let standard = MeshSettings::default();
    if mesh.root_namespace != standard.root_namespace {
        flag("--root-namespace", mesh.root_namespace.clone());
    }
    if mesh.default_mode != standard.default_mode {
        flag("--default-mode", mesh.default_mode.to_string());
    }
    if mesh.trust_domains != standard.trust_domains {
        words.extend(TrustDomainArgs::flags(mesh));
    }
    if witness.peer.is_none() {
        words.push("--plaintext".to_owned());
    }
    if args.dry_run {
        words.push("--dry-run".to_owned());
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
