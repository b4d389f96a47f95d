//! `portcullis explain`: which policy applies to a port, and why the others do not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueHint;
use portcullis_policy::{MeshSettings, Mode, PolicySet, explain};

use super::values;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files::Policies;
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
    /// The proxy's configuration, which names policies, namespace and labels; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Policy files, or folders with every .yaml, .yml and .json below them; `-` is standard input [default: `policies` of the
    /// configuration]
    #[arg(short, long = "file", visible_alias = "policies", value_name = "PATH", num_args = 1..)]
    file: Vec<PathBuf>,
    /// Namespace of the workload [default: `workload.namespace` of the configuration]
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    namespace: Option<String>,
    /// Labels of the workload [default: `workload.labels` of the configuration]
    #[arg(short, long, value_name = "k=v,k=v", value_parser = labels)]
    labels: Option<BTreeMap<String, String>>,
    /// Port that the workload listens on (the container's, not a Service's)
    #[arg(short, long, value_parser = port)]
    port: u16,
    /// Root namespace: its policies without a selector apply to the whole mesh [default: `mesh.rootNamespace` of the configuration, or
    /// istio-system]
    #[arg(long, value_name = "NS", value_parser = values::namespace)]
    root_namespace: Option<String>,
    /// Mode where no policy applies [default: `mesh.defaultMode` of the configuration, or PERMISSIVE]
    #[arg(long, value_name = "MODE", value_parser = values::mode())]
    default_mode: Option<Mode>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The policies and the workload to explain.
struct Question {
    policies: Vec<PathBuf>,
    mesh: MeshSettings,
    namespace: String,
    labels: BTreeMap<String, String>,
}

impl Question {
    /// From the configuration, if one is named or needed; the command line takes precedence.
    fn new(args: &Args) -> Result<Self, Failure> {
        let complete = !args.file.is_empty() && args.namespace.is_some();
        let source = if complete && args.config.is_none() { None } else { ConfigSource::find(args.config.as_deref()) };
        let base = match source {
            Some(source) => {
                let settings = source.load()?.settings;
                Self {
                    policies: settings.policies.into_iter().collect(),
                    mesh: settings.mesh.policy,
                    namespace: settings.workload.namespace,
                    labels: settings.workload.labels,
                }
            }
            None => {
                let mesh = MeshSettings::default();
                let namespace = args.namespace.clone().filter(|_| complete).ok_or_else(|| {
                    let message = "there is nothing to explain: name the proxy's configuration (-c FILE, or \
                                   $PORTCULLIS_CONFIG), or the policies and the namespace of the workload (-f PATH -n NS)";
                    Failure::message(Exit::Usage, message)
                })?;
                Self { policies: Vec::new(), mesh, namespace, labels: BTreeMap::new() }
            }
        };
        Ok(Self {
            policies: if args.file.is_empty() { base.policies } else { args.file.clone() },
            mesh: MeshSettings {
                root_namespace: args.root_namespace.clone().unwrap_or(base.mesh.root_namespace),
                default_mode: args.default_mode.unwrap_or(base.mesh.default_mode),
                trust_domains: base.mesh.trust_domains,
            },
            namespace: args.namespace.clone().unwrap_or(base.namespace),
            labels: args.labels.clone().unwrap_or(base.labels),
        })
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Question { policies, mesh, namespace, labels } = Question::new(args)?;
    let Policies { sources, mut errors } = Policies::read(&policies);
    let loaded = PolicySet::load(&sources);
    errors.extend(loaded.errors);
    if !errors.is_empty() {
        // An answer from the rest of a broken set would not be the one that the proxy acts on.
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Failure::message(Exit::BadInput, lines.join("\nerror: ")));
    }
    let here = loaded.set.warnings_for(&mesh, &namespace, &labels);
    for warning in loaded.warnings.iter().chain(&here) {
        output::note(&format!("warning: {warning}"));
    }
    let explanation = explain(&loaded.set, &mesh, &namespace, &labels, args.port);
    match args.output {
        Format::Json => output::json(&explanation)?,
        Format::Text => output::text(&explanation.to_string())?,
    }
    Ok(Exit::Ok)
}

fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    for label in text.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').ok_or_else(|| format!("\"{label}\" is not key=value"))?;
        if key.is_empty() || labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("the key of \"{label}\" is empty, or there twice"));
        }
    }
    Ok(labels)
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| "write a number from 1 to 65535, the container's port; a name is not enough".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs_with_keys_of_their_own() {
        assert!(labels("").unwrap().is_empty());
        let two = labels("app=cart,tier=").unwrap();
        assert_eq!((two["app"].as_str(), two["tier"].as_str()), ("cart", ""));
        for wrong in ["app", "=x", "a=1,a=2"] {
            assert!(labels(wrong).is_err(), "{wrong}");
        }
    }
}
