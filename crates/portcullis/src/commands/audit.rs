//! `portcullis audit`: every exception from mTLS, who wanted it, why, until when, and what changed since a baseline.

use std::path::{Path, PathBuf};

use clap::ValueHint;
use portcullis_api::Timestamp;
use portcullis_ca::{Private, write};
use portcullis_policy::MeshSettings;
use portcullis_report::audit::{Audit, AuditInput, AuditStatus, Baseline};
use portcullis_tls::Clock;

use super::observed;
use super::proxies::ProxiesArgs;
use super::selection::NamespaceArgs;
use super::subject::{MeshArgs, load_set};
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::format::NAMED_REPORT;
use crate::output::{self, OutputFormat};

/// List every exception from mTLS, with owner, reason and end; compare with a saved baseline: 0 clean, 79 something to correct, 83 drift
///
/// An exception is a mode PERMISSIVE or DISABLE of mesh, namespace, workload or port; a mesh-wide mode that nothing sets; a DestinationRule with
/// tls.mode DISABLE; a service or workload of the mesh without a sidecar; a dry run; and whatever has the annotation portcullis/expires.
/// Annotations are portcullis/owner, portcullis/reason and portcullis/expires, or the same without the prefix. If proxies are named, USED is what an
/// exception let through without mTLS.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis audit -f policies
  portcullis audit -f policies --proxies proxies.yaml -o wide
  portcullis audit -f policies --save audit.json
  portcullis audit -f policies --baseline audit.json -o sarif > audit.sarif")]
pub(crate) struct Args {
    /// The proxy's configuration, which names the policy folder; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Policy files, or folders with every .yaml, .yml and .json below them; `-` is standard input [default: `policies` of the
    /// configuration]
    #[arg(short, long = "file", visible_alias = "policies", value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Compare with a baseline: 83 if an exception was added, removed or changed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    baseline: Option<PathBuf>,
    /// Write a baseline of the exceptions as they are now
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    save: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_parser = OutputFormat::one_of(NAMED_REPORT), default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// The largest baseline: far above that of any mesh.
const MAX_BASELINE: u64 = 64 << 20;

/// What is audited.
struct Subject {
    paths: Vec<PathBuf>,
    mesh: MeshSettings,
    mesh_source: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.save.is_some() && args.namespace.namespace.is_some() {
        let message = "a baseline is of all namespaces: leave out -n with --save";
        return Err(Failure::message(Exit::Usage, message));
    }
    let Subject { paths, mesh, mesh_source } = find(args)?;
    let set = load_set(&paths)?;
    let baseline = args.baseline.as_ref().map(|path| read(path)).transpose()?;
    let answers = if args.proxies.is_named() { Some(observed::ask(&args.proxies)?.0) } else { None };
    let mut audit = Audit::new(&AuditInput {
        set: &set,
        mesh: &mesh,
        mesh_source: &mesh_source,
        answers: answers.as_deref(),
        namespace: args.namespace.namespace.as_deref(),
        baseline: baseline.as_ref(),
        now: Timestamp::from_unix(Clock::system().now_unix()),
    });
    for item in &mut audit.items {
        item.written = files::written(Path::new(&item.file)).map(Timestamp::from_unix);
    }
    output::text(&shown(&audit, args.output)?)?;
    if let Some(path) = &args.save {
        let text = Baseline::new(&audit.items).to_json().map_err(anyhow::Error::from)?;
        write(path, text.as_bytes(), Private::No, true).map_err(files::not_written)?;
        output::note(&format!("saved {}", path.display()));
    }
    Ok(match audit.status {
        AuditStatus::Clean => Exit::Ok,
        AuditStatus::Unreachable => Exit::Unreachable,
        AuditStatus::Findings => Exit::Found,
        AuditStatus::Drift => Exit::Drift,
    })
}

fn shown(audit: &Audit, format: OutputFormat) -> Result<String, Failure> {
    let Some(form) = format.form() else {
        let name = |item: &portcullis_report::audit::Exception| {
            format!("exception/{}/{}/{}\n", item.namespace, item.name, item.scope)
        };
        return Ok(audit.items.iter().map(name).collect());
    };
    audit.render(form).map_err(|error| Failure::new(Exit::Failure, error))
}

fn find(args: &Args) -> Result<Subject, Failure> {
    let source =
        if !args.file.is_empty() && args.config.is_none() { None } else { ConfigSource::find(args.config.as_deref()) };
    let mesh_source = source.as_ref().map_or_else(String::new, ToString::to_string);
    let settings = source.map(|source| source.load().map(|loaded| loaded.settings)).transpose()?;
    let (named, mesh) =
        settings.map_or_else(|| (None, MeshSettings::default()), |settings| (settings.policies, settings.mesh.policy));
    let paths: Vec<PathBuf> = if args.file.is_empty() { named.into_iter().collect() } else { args.file.clone() };
    if paths.is_empty() {
        let message = "there are no policies to audit: name them with -f PATH, or the proxy's configuration (-c FILE, or \
                       $PORTCULLIS_CONFIG)";
        return Err(Failure::message(Exit::Usage, message));
    }
    Ok(Subject { paths, mesh: args.mesh.or(mesh), mesh_source })
}

fn read(path: &Path) -> Result<Baseline, Failure> {
    let text = files::read_text(path, MAX_BASELINE)?;
    Baseline::parse(&text).map_err(|error| Failure::message(Exit::BadInput, format!("{}: {error}", path.display())))
}
