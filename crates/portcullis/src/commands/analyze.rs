//! `portcullis analyze`: what is wrong in a policy folder, and what is valid but probably unintended.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_analyze::{Code, Finding, Input, Level, Resource, Suppression, Workload, analyze};
use portcullis_api::ProxyInfo;
use portcullis_manifest::read;
use portcullis_policy::{MeshSettings, PolicySet};
use portcullis_reload::ignored_files;
use portcullis_report::guard::RECOVERY_FILE;
use portcullis_tls::{Clock, check_extra_roots};
use serde_json::{Value, json};

use super::proxies::{ProxiesArgs, proxy_info};
use super::resources::guard::notice;
use super::subject::MeshArgs;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files::{self, Policies};
use crate::output::format::FINDINGS;
use crate::output::{self, OutputFormat};

/// Analyze policies, offline or with the sidecars that are named: 0 nothing found, 79 something
///
/// With sidecars named, policies for namespaces and labels that none of them has are found too. Kiali's codes for PeerAuthentication (KIA...) and ours (PC...). Without a finding of --failure-threshold or worse the exit code is 0.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis analyze -f policies
  portcullis analyze -f policies --docker
  portcullis analyze -c cart.yaml --failure-threshold Warning
  portcullis analyze -f policies -S \"KIA0004=PeerAuthentication cart.shop\" -o sarif")]
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
    /// The lowest level at which the exit code is 79
    #[arg(long, value_enum, ignore_case = true, default_value = "Error")]
    failure_threshold: Threshold,
    /// The lowest level that is printed
    #[arg(long, value_enum, ignore_case = true, default_value = "Info")]
    output_threshold: Threshold,
    /// Leave out a finding: `CODE=Kind name.namespace`; `*` in the name stands for any text. May be repeated
    #[arg(short = 'S', long = "suppress", value_name = "CODE=Kind name.ns", value_parser = Suppression::parse)]
    suppress: Vec<Suppression>,
    /// Assume that clients have no automatic mTLS, and check that DestinationRules turn it on
    #[arg(long)]
    no_auto_mtls: bool,
    /// Output format
    #[arg(short, long, value_parser = OutputFormat::one_of(FINDINGS), default_value = "log")]
    output: OutputFormat,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Threshold {
    Info,
    Warning,
    Error,
}

impl From<Threshold> for Level {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Info => Self::Info,
            Threshold::Warning => Self::Warning,
            Threshold::Error => Self::Error,
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (paths, mesh) = find(args)?;
    for notice in paths.iter().filter_map(|path| notice(path)) {
        output::note(&format!("warning: {notice}"));
    }
    let Policies { sources, mut errors } = Policies::read(&paths);
    let now_unix = Clock::system().now_unix();
    let loaded = PolicySet::load_at(&sources, now_unix);
    let roots = check_extra_roots(loaded.set.mesh(), now_unix);
    errors.extend(loaded.errors.into_iter().chain(roots.errors));
    let warnings: Vec<_> = loaded.warnings.into_iter().chain(roots.warnings).collect();
    let resources: Vec<Resource> = sources
        .iter()
        .flat_map(|source| {
            let objects = read(&String::from_utf8_lossy(&source.text));
            objects.into_iter().map(|object| Resource { file: source.file.clone(), object }).collect::<Vec<_>>()
        })
        .collect();
    let sidecars = sidecars(args)?;
    let mut findings = analyze(&Input {
        resources: &resources,
        set: &loaded.set,
        errors: &errors,
        warnings: &warnings,
        ignored_files: &ignored(&paths),
        sidecars: sidecars.as_deref(),
        mesh: &mesh,
        auto_mtls: !args.no_auto_mtls,
        now_unix,
    });
    findings.retain(|finding| !args.suppress.iter().any(|known| known.covers(finding)));
    let (fail_at, show_at) = (Level::from(args.failure_threshold), Level::from(args.output_threshold));
    let fails = findings.iter().any(|finding| finding.code.level() >= fail_at);
    findings.retain(|finding| finding.code.level() >= show_at);
    match args.output {
        OutputFormat::Json => output::json(&list(&findings))?,
        OutputFormat::Sarif => output::json(&sarif(&findings))?,
        _ => {
            output::text(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?;
            if findings.is_empty() {
                let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                output::note(&format!("\u{2714} No validation issues found when analyzing {}.", shown.join(", ")));
            }
        }
    }
    Ok(if fails { Exit::Found } else { Exit::Ok })
}

/// The workloads of the mesh, if the command line says where it is.
fn sidecars(args: &Args) -> Result<Option<Vec<Workload>>, Failure> {
    if !args.proxies.is_named() {
        return Ok(None);
    }
    let answers = args.proxies.ask(|sidecar| async move { proxy_info(&sidecar).await })?.answers;
    let workload = |proxy: ProxyInfo| Workload { namespace: proxy.namespace, labels: proxy.labels };
    Ok(Some(answers.into_iter().map(|answer| workload(answer.value)).collect()))
}

fn find(args: &Args) -> Result<(Vec<PathBuf>, MeshSettings), Failure> {
    let source =
        if !args.file.is_empty() && args.config.is_none() { None } else { ConfigSource::find(args.config.as_deref()) };
    let settings = source.map(|source| source.load().map(|loaded| loaded.settings)).transpose()?;
    let (named, mesh) =
        settings.map_or_else(|| (None, MeshSettings::default()), |settings| (settings.policies, settings.mesh.policy));
    let paths: Vec<PathBuf> = if args.file.is_empty() { named.into_iter().collect() } else { args.file.clone() };
    if paths.is_empty() {
        let message = "there are no policies to analyze: name them with -f PATH, or the proxy's configuration (-c FILE, or \
                       $PORTCULLIS_CONFIG)";
        return Err(Failure::message(Exit::Usage, message));
    }
    Ok((paths, args.mesh.or(mesh)))
}

/// Files of the folders that the proxy does not read.
fn ignored(paths: &[PathBuf]) -> Vec<String> {
    let folders = paths.iter().filter(|path| !files::is_stdin(path) && path.is_dir());
    let mut ignored: Vec<String> =
        folders.flat_map(|folder| ignored_files(folder)).map(|one| one.path.display().to_string()).collect();
    // A finding of its own reports that one.
    ignored.retain(|path| !path.ends_with(RECOVERY_FILE));
    ignored.sort();
    ignored
}

fn list(findings: &[Finding]) -> Value {
    let item = |finding: &Finding| {
        let subject = &finding.subject;
        json!({
            "code": finding.code.id(),
            "level": finding.code.level().name(),
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "file": subject.file,
            "line": subject.line,
            "message": finding.text,
            "remedy": finding.code.remedy(),
        })
    };
    json!({
        "apiVersion": "portcullis/v1",
        "kind": "FindingList",
        "items": findings.iter().map(item).collect::<Vec<_>>(),
    })
}

/// SARIF 2.1.0.
fn sarif(findings: &[Finding]) -> Value {
    let level = |level: Level| match level {
        Level::Info => "note",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let rule = |code: Code| {
        json!({
            "id": code.id(),
            "shortDescription": { "text": code.meaning() },
            "help": { "text": code.remedy() },
            "defaultConfiguration": { "level": level(code.level()) },
        })
    };
    let result = |finding: &Finding| {
        let mut place = json!({ "artifactLocation": { "uri": finding.subject.file } });
        if finding.subject.line > 0
            && let Some(place) = place.as_object_mut()
        {
            place.insert("region".to_owned(), json!({ "startLine": finding.subject.line }));
        }
        json!({
            "ruleId": finding.code.id(),
            "level": level(finding.code.level()),
            "message": { "text": finding.text },
            "locations": [{ "physicalLocation": place }],
        })
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "portcullis analyze",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": Code::ALL.into_iter().map(rule).collect::<Vec<_>>(),
            } },
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}
