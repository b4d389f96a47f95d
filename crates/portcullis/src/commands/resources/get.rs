//! `portcullis get`: the resources of the policy folder, as kubectl lists them.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_api::ProxyInfo;
use portcullis_manifest::{read, to_json, to_yaml};
use portcullis_policy::{MeshSettings, PolicySet};
use portcullis_tls::Clock;
use serde_json::{Value, json};

use super::delete::kind;
use super::folder::text_file;
use super::guard::notice;
use super::located::Located;
use super::rows::Columns;
use crate::commands::proxies::{ProxiesArgs, proxy_info};
use crate::commands::subject::MeshArgs;
use crate::commands::values;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files::Policies;
use crate::output;

/// List PeerAuthentications, AuthorizationPolicies, ServiceEntries, WorkloadEntries or DestinationRules of the policy folder
///
/// Columns are kubectl's; -o wide adds what decides: scope, selector, ports, the workloads that it selects (if proxies are named), status, and
/// where it is written. Without a timestamp AGE is that of the file. -o yaml prints what kubectl accepts.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis get peerauthentication -A --policies policies
  portcullis get pa -n shop -o wide -c cart.yaml
  portcullis get pa -A -o wide --policies policies --docker
  portcullis get pa default -n shop -o yaml --policies policies")]
pub(crate) struct Args {
    /// pa, ap, se, we, dr or their long names
    #[arg(value_name = "KIND")]
    kind: String,
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The proxy's configuration, which names the policy folder; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Policy files, or folders with every .yaml, .yml and .json below them; `-` is standard input [default: `policies` of the
    /// configuration]
    #[arg(short, long = "file", visible_alias = "policies", value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,
    /// Namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    namespace: Option<String>,
    /// Every namespace
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "names"])]
    all_namespaces: bool,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// With scope, status and place.
    Wide,
    Yaml,
    Json,
    /// KIND.GROUP/NAME.
    Name,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let kind = kind(&args.kind)?;
    let (paths, mesh) = find(args)?;
    for notice in paths.iter().filter_map(|path| notice(path)) {
        output::note(&format!("warning: {notice}"));
    }
    let Policies { sources, mut errors } = Policies::read(&paths);
    let now = Clock::system().now_unix();
    let loaded = PolicySet::load_at(&sources, now);
    errors.extend(loaded.errors);
    let mut all = Vec::new();
    for source in sources {
        let file = text_file(source)?;
        all.extend(read(&file.text).into_iter().map(|object| Located { file: file.path.clone(), object }));
    }
    let namespace = args.namespace.as_deref().unwrap_or("default");
    all.retain(|found| found.object.id.kind == kind);
    all.retain(|found| args.all_namespaces || found.object.id.namespace == namespace);
    all.sort_by(|one, other| one.object.id.cmp(&other.object.id));
    let missing: Vec<&String> =
        args.names.iter().filter(|name| !all.iter().any(|found| found.object.id.name == **name)).collect();
    if !args.names.is_empty() {
        all.retain(|found| args.names.contains(&found.object.id.name));
    }
    for error in &errors {
        output::note(&format!("error: {error}"));
    }
    let proxies = workloads(args)?;
    let columns = Columns { kind, set: &loaded.set, mesh: &mesh, now, proxies: proxies.as_deref() };
    output::text(&render(args, &columns, &all)?)?;
    for name in &missing {
        output::note(&format!("Error from server (NotFound): {}.{} {name:?} not found", kind.plural(), kind.group()));
    }
    if all.is_empty() && missing.is_empty() && matches!(args.output, Format::Table | Format::Wide | Format::Name) {
        output::note(&match args.all_namespaces {
            true => "No resources found".to_owned(),
            false => format!("No resources found in {namespace} namespace."),
        });
    }
    Ok(match (errors.is_empty(), missing.is_empty()) {
        (false, _) => Exit::BadInput,
        (true, false) => Exit::Failure,
        (true, true) => Exit::Ok,
    })
}

/// The sidecars, if the command line says where they are and there is a column for it.
fn workloads(args: &Args) -> Result<Option<Vec<ProxyInfo>>, Failure> {
    if args.output != Format::Wide || !args.proxies.is_named() {
        return Ok(None);
    }
    let answers = args.proxies.ask(|sidecar| async move { proxy_info(&sidecar).await })?;
    Ok(Some(answers.answers.into_iter().map(|answer| answer.value).collect()))
}

fn find(args: &Args) -> Result<(Vec<PathBuf>, MeshSettings), Failure> {
    let source =
        if !args.file.is_empty() && args.config.is_none() { None } else { ConfigSource::find(args.config.as_deref()) };
    let settings = source.map(|source| source.load().map(|loaded| loaded.settings)).transpose()?;
    let (named, mesh) =
        settings.map_or_else(|| (None, MeshSettings::default()), |settings| (settings.policies, settings.mesh.policy));
    let paths = if args.file.is_empty() { named.into_iter().collect() } else { args.file.clone() };
    if paths.is_empty() {
        let message = "there are no policies to list: name them with -f PATH, or the proxy's configuration (-c FILE, or \
                       $PORTCULLIS_CONFIG)";
        return Err(Failure::message(Exit::Usage, message));
    }
    Ok((paths, args.mesh.or(mesh)))
}

fn render(args: &Args, columns: &Columns<'_>, all: &[Located]) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Table | Format::Wide if all.is_empty() => String::new(),
        Format::Table | Format::Wide => {
            columns.table(all, args.all_namespaces, args.output == Format::Wide).render(true, false)
        }
        Format::Name => all.iter().map(|found| format!("{}\n", found.object.id)).collect(),
        // Nothing was found, which is told elsewhere.
        Format::Yaml | Format::Json if all.is_empty() && !args.names.is_empty() => String::new(),
        Format::Yaml => to_yaml(&document(args, all))?,
        Format::Json => to_json(&document(args, all))?,
    })
}

/// The one resource that was named, else a list, as kubectl prints it.
fn document(args: &Args, all: &[Located]) -> Value {
    match (args.names.as_slice(), all) {
        ([_], [one]) => one.object.value.clone(),
        _ => {
            let items: Vec<&Value> = all.iter().map(|found| &found.object.value).collect();
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
        }
    }
}
