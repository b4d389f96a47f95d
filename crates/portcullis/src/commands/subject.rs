//! What questions about policies are asked of: the policies, the settings of the mesh, and one workload. Shared by the commands
//! that answer them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use portcullis_config::Outbound;
use portcullis_identity::TrustDomain;
use portcullis_policy::directory::Locality;
use portcullis_policy::{MeshSettings, Mode, ParsedSource, PolicySet, Source};
use portcullis_tls::Clock;

use super::values;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure};
use crate::files::Policies;
use crate::output;

/// The policies, and the workload.
#[derive(Debug, clap::Args)]
pub(crate) struct SubjectArgs {
    /// The proxy's configuration, which names policies, namespace and labels; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Policy files, or folders with every .yaml, .yml and .json below them; `-` is standard input [default: `policies` of the
    /// configuration]
    #[arg(short, long = "file", visible_alias = "policies", value_name = "PATH", num_args = 1..)]
    pub(crate) file: Vec<PathBuf>,
    /// Namespace of the workload [default: `workload.namespace` of the configuration]
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    pub(crate) namespace: Option<String>,
    /// Labels of the workload [default: `workload.labels` of the configuration]
    #[arg(short, long, value_name = "k=v,k=v", value_parser = values::labels)]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
}

/// Settings of the mesh that take the place of the configuration's.
#[derive(Debug, clap::Args)]
pub(crate) struct MeshArgs {
    /// Root namespace: its policies without a selector apply to the whole mesh [default: `mesh.rootNamespace` of the configuration, or
    /// istio-system]
    #[arg(long, value_name = "NS", value_parser = values::namespace)]
    pub(crate) root_namespace: Option<String>,
    /// Mode where no policy applies [default: `mesh.defaultMode` of the configuration, or PERMISSIVE]
    #[arg(long, value_name = "MODE", value_parser = values::mode())]
    pub(crate) default_mode: Option<Mode>,
}

impl MeshArgs {
    /// The settings, with what was named on the command line.
    pub(crate) fn or(&self, base: MeshSettings) -> MeshSettings {
        MeshSettings {
            root_namespace: self.root_namespace.clone().unwrap_or(base.root_namespace),
            default_mode: self.default_mode.unwrap_or(base.default_mode),
            trust_domains: base.trust_domains,
        }
    }
}

/// Names of the mesh, which principals of policies are expanded to.
#[derive(Debug, clap::Args)]
pub(crate) struct TrustDomainArgs {
    /// Trust domain of the mesh [default: `mesh.trustDomain` of the configuration, or cluster.local]
    #[arg(long, value_name = "DOMAIN", value_parser = values::trust_domain)]
    trust_domain: Option<TrustDomain>,
    /// Another name of the mesh's trust domain; may be repeated [default: `mesh.trustDomainAliases` of the configuration]
    #[arg(long = "trust-domain-alias", value_name = "DOMAIN", value_parser = values::trust_domain)]
    aliases: Vec<TrustDomain>,
}

impl TrustDomainArgs {
    /// The settings, with what was named on the command line.
    pub(crate) fn or(&self, mut base: MeshSettings) -> MeshSettings {
        let own = self.trust_domain.as_ref().map(ToString::to_string);
        if self.aliases.is_empty() {
            if let (Some(own), Some(first)) = (own, base.trust_domains.first_mut()) {
                *first = own;
            }
        } else {
            let own = own.or_else(|| base.trust_domains.first().cloned());
            base.trust_domains = own.into_iter().chain(self.aliases.iter().map(ToString::to_string)).collect();
        }
        base
    }

    /// As the flags that say the same.
    pub(crate) fn flags(mesh: &MeshSettings) -> Vec<String> {
        let flags = ["--trust-domain"].into_iter().chain(std::iter::repeat("--trust-domain-alias"));
        flags.zip(&mesh.trust_domains).flat_map(|(flag, name)| [flag.to_owned(), name.clone()]).collect()
    }
}

/// Where the policies are, and the workload.
struct Subject {
    policies: Vec<PathBuf>,
    mesh: MeshSettings,
    namespace: String,
    labels: BTreeMap<String, String>,
    client: ClientSettings,
}

/// What a configuration says of the workload as a client. Without one, nothing.
#[derive(Default)]
pub(crate) struct ClientSettings {
    pub(crate) outbound: Outbound,
    pub(crate) locality: Option<Locality>,
    /// ServiceEntries of the configuration.
    services: Option<ParsedSource>,
}

/// The policies of a valid set, and the workload.
pub(crate) struct LoadedSubject {
    pub(crate) set: PolicySet,
    pub(crate) mesh: MeshSettings,
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) client: ClientSettings,
}

impl SubjectArgs {
    /// From the configuration, if one is named or needed; the command line takes precedence.
    fn find(&self) -> Result<Subject, Failure> {
        let complete = !self.file.is_empty() && self.namespace.is_some();
        let source = if complete && self.config.is_none() { None } else { ConfigSource::find(self.config.as_deref()) };
        let base = match source {
            Some(source) => {
                let settings = source.load()?.settings;
                Subject {
                    policies: settings.policies.into_iter().collect(),
                    mesh: settings.mesh.policy,
                    namespace: settings.workload.namespace,
                    labels: settings.workload.labels,
                    client: ClientSettings {
                        outbound: settings.outbound,
                        locality: settings.locality.as_deref().and_then(Locality::parse),
                        services: settings.services,
                    },
                }
            }
            None => {
                let mesh = MeshSettings::default();
                let namespace = self.namespace.clone().filter(|_| complete).ok_or_else(|| {
                    let message = "there are no policies to answer from: name the proxy's configuration (-c FILE, or \
                                   $PORTCULLIS_CONFIG), or the policies and the namespace of the workload (-f PATH -n NS)";
                    Failure::message(Exit::Usage, message)
                })?;
                let (labels, client) = (BTreeMap::new(), ClientSettings::default());
                Subject { policies: Vec::new(), mesh, namespace, labels, client }
            }
        };
        Ok(Subject {
            policies: if self.file.is_empty() { base.policies } else { self.file.clone() },
            mesh: self.mesh.or(base.mesh),
            namespace: self.namespace.clone().unwrap_or(base.namespace),
            labels: self.labels.clone().unwrap_or(base.labels),
            client: base.client,
        })
    }

    /// Reads the policies. Warnings about them, also about what concerns the workload only, go to standard error.
    ///
    /// # Errors
    /// If there are none, or anything in them is wrong.
    pub(crate) fn load(&self) -> Result<LoadedSubject, Failure> {
        let Subject { policies, mesh, namespace, labels, client } = self.find()?;
        let set = load_with(&policies, client.services.as_ref())?;
        for warning in &set.warnings_for(&mesh, &namespace, &labels) {
            output::note(&format!("warning: {warning}"));
        }
        Ok(LoadedSubject { set, mesh, namespace, labels, client })
    }
}

/// Reads policies that must be valid: an answer from the rest of a broken set would not be the one that the proxy acts on.
pub(crate) fn load_set(paths: &[impl AsRef<Path>]) -> Result<PolicySet, Failure> {
    load_with(paths, None)
}

fn load_with(paths: &[impl AsRef<Path>], services: Option<&ParsedSource>) -> Result<PolicySet, Failure> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.as_ref().to_owned()).collect();
    let Policies { sources, mut errors } = Policies::read(&paths);
    let parsed: Vec<ParsedSource> = sources.iter().map(Source::parse).collect();
    let loaded = PolicySet::assemble(parsed.iter().chain(services)).at(Clock::system().now_unix());
    errors.extend(loaded.errors);
    if !errors.is_empty() {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Failure::message(Exit::BadInput, lines.join("\nerror: ")));
    }
    for warning in &loaded.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(loaded.set)
}
