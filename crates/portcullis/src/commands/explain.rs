//! `portcullis explain`: which policy holds for a port, and why the others do not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use portcullis_policy::{MeshSettings, Mode, PolicySet, explain};

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::files::Policies;
use crate::output::{self, Format};

/// Say which mode a port of a workload has, which policy decided it, and why the others did not
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis explain --policies policies --root-namespace istio-system --namespace shop --labels app=cart --port 8080")]
pub(crate) struct Args {
    /// The policy folder
    #[arg(long, value_name = "DIR")]
    policies: PathBuf,
    /// Namespace whose policies without a selector hold for the mesh
    #[arg(long, value_name = "NS", value_parser = namespace)]
    root_namespace: String,
    /// Namespace of the workload
    #[arg(long, value_name = "NS", value_parser = namespace)]
    namespace: String,
    /// Labels of the workload
    #[arg(long, value_name = "k=v,k=v", value_parser = labels, default_value = "", hide_default_value = true)]
    labels: BTreeMap<String, String>,
    /// Port that the workload listens on (the container's, not a Service's)
    #[arg(long, value_parser = port)]
    port: u16,
    /// Mode where no policy says anything (the proxy's `mesh.defaultMode`)
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "PERMISSIVE")]
    default_mode: Mode,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Policies { sources, mut errors } = Policies::read(std::slice::from_ref(&args.policies));
    let loaded = PolicySet::load(&sources);
    errors.extend(loaded.errors);
    if !errors.is_empty() {
        // An answer from the rest of a broken set would not be the one that the proxy acts on.
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Failure::message(Exit::BadInput, lines.join("\nerror: ")));
    }
    let mesh = MeshSettings { root_namespace: args.root_namespace.clone(), default_mode: args.default_mode };
    let here = loaded.set.warnings_for(&mesh, &args.namespace, &args.labels);
    for warning in loaded.warnings.iter().chain(&here) {
        output::note(&format!("warning: {warning}"));
    }
    let explanation = explain(&loaded.set, &mesh, &args.namespace, &args.labels, args.port);
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

/// What the configuration takes as a name too: a misspelt one would match nothing and be answered with the default.
fn namespace(text: &str) -> Result<String, String> {
    if portcullis_config::is_name(text) { Ok(text.to_owned()) } else { Err(portcullis_config::NAME_RULE.to_owned()) }
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| "write a number from 1 to 65535, the container's port; a name is not enough".to_owned())
}

fn mode(text: &str) -> Result<Mode, String> {
    let known = Mode::ALL.into_iter().find(|mode| mode.as_str() == text);
    known.ok_or_else(|| "write STRICT, PERMISSIVE or DISABLE".to_owned())
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
