//! Is the mesh well? Each check is one statement about all sidecars, with what is wrong, why, and what to do about it.
//!
//! [`evaluate`] is pure: answers of sidecars in, checks out. What could not be checked is [`State::Unchecked`], never a pass. A sidecar that
//! does not answer, and one that is too old to say something, are told by name.

mod capture;
mod configuration;
mod facts;
mod id;
mod identity;
mod ledger;
mod model;
mod plaintext;
mod policy;
mod proxies;
mod services;

pub use configuration::{Configuration, evaluate_configuration};
pub use facts::{Facts, Known, MeshedService, NoAnswer, Runs, Sidecar};
pub use id::{Category, Id};
pub use model::{Check, CheckResult, Finding, State, overall};
pub use policy::most_common_hash;

/// Every check of running sidecars, in the order of the reference.
#[must_use]
pub fn evaluate(facts: &Facts) -> Vec<Check> {
    let known: Vec<&Known> = facts.sidecars.iter().filter_map(|sidecar| sidecar.answer.as_ref().ok()).collect();
    let mut checks = vec![Check::new(Id::ProxyAnswers, proxies::answers(facts))];
    let evaluated = [
        (Id::ProxyReady, proxies::ready(&known)),
        (Id::ProxyConfig, proxies::config(&known)),
        (Id::ProxyVersions, proxies::versions(&known, &facts.version)),
        (Id::ProxyClocks, proxies::clocks(&known)),
        (Id::CaptureRules, capture::rules(&known, facts.now)),
        (Id::CertificatePresent, identity::present(&known)),
        (Id::CertificateChain, identity::chain(&known)),
        (Id::CertificateTime, identity::leaf_time(&known, facts.now)),
        (Id::IntermediateTime, identity::intermediate_time(&known, facts.now)),
        (Id::RootTime, identity::root_time(&known, facts.now)),
        (Id::TrustBundles, identity::bundles(&known)),
        (Id::CertificateSource, identity::source(&known, facts.now)),
        (Id::PolicyFolder, policy::folder(&known)),
        (Id::PolicyFiles, policy::files(&known, facts.now)),
        (Id::PolicyEqual, policy::equal(&known)),
        (Id::PolicyMeshWide, policy::mesh_wide(&known)),
        (Id::PolicyBreakGlass, policy::break_glass(&known, facts.now)),
        (Id::PolicyIgnoredFiles, policy::ignored(&known)),
        (Id::ServicesSidecars, services::directory(&known)),
        (Id::ServicesPlaintext, plaintext::between(&known, facts.now)),
        (Id::ContainersSidecars, services::containers(facts.containers.as_deref())),
        (Id::ContainersCaptured, services::captured(facts.meshed.as_ref(), facts.sidecars.is_empty())),
        (Id::LedgerWritten, ledger::written(&known)),
        (Id::LedgerComplete, ledger::complete(&known)),
    ];
    checks.extend(evaluated.into_iter().map(|(id, findings)| {
        if known.is_empty() && !matches!(id, Id::ContainersSidecars | Id::ContainersCaptured) {
            return Check::new(id, vec![Finding::unchecked(None, "no proxy answers".to_owned())]);
        }
        Check::new(id, findings)
    }));
    checks
}
