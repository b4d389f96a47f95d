//! IstioOperator documents in the CA's folder: extra roots for workloads, and default lifetimes.
//!
//! The extra roots are only handed out. This CA verifies its callers against its own roots only, so the holder of an
//! extra root's key cannot obtain a certificate here for another identity.

use std::ffi::OsString;
use std::path::Path;

use portcullis_ca::{DefaultLifetimes, MIN_TTL, Root, pem};
use portcullis_identity::TrustDomain;
use portcullis_istio::{Location, MeshConfig, RootCertificate};
use portcullis_policy::{Diagnostic, Loaded, PolicySet};
use portcullis_reload::FileContent;
use portcullis_tls::{TrustBundle, check_extra_roots, utc};
use rustls_pki_types::CertificateDer;

/// An extra root in the forms in which it is handed out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ExtraRoot {
    der: CertificateDer<'static>,
    pem: String,
    not_after_unix: i64,
    location: Location,
}

impl From<portcullis_istio::ExtraRoot> for ExtraRoot {
    fn from(root: portcullis_istio::ExtraRoot) -> Self {
        let RootCertificate { der, not_after_unix } = root.certificate;
        Self { pem: pem(&der), der: CertificateDer::from(der), not_after_unix, location: root.location }
    }
}

/// The settings of all documents, which are in force together.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    /// Lifetimes where the registrations set none.
    pub(crate) default_lifetimes: DefaultLifetimes,
    roots: Vec<ExtraRoot>,
}

impl Resources {
    /// The roots that have not ended and are not among the CA's own.
    pub(crate) fn roots_beyond(&self, own: &TrustBundle, now_unix: i64) -> impl Iterator<Item = &ExtraRoot> {
        self.roots
            .iter()
            .filter(move |extra| extra.not_after_unix >= now_unix && !own.roots().any(|root| *root.der() == extra.der))
    }
}

impl ExtraRoot {
    pub(crate) const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }
}

/// The files that may hold them: every YAML and JSON file but the registrations and the state of a rotation.
pub(crate) fn watched_files(dir: &Path, registrations: &str) -> portcullis_reload::FileSet {
    let except = vec![OsString::from(registrations), OsString::from(portcullis_ca::rotation::FILE)];
    portcullis_reload::FileSet::FlatFolder { folder: dir.to_owned(), except }
}

/// Reads the files as one set. `environment` holds where they say nothing.
pub(crate) fn parse(
    files: &[FileContent],
    domain: &TrustDomain,
    environment: DefaultLifetimes,
    now_unix: i64,
) -> Result<Resources, String> {
    let sources: Vec<_> = files
        .iter()
        .map(|file| portcullis_policy::Source { file: file.path.display().to_string(), text: file.content.to_vec() })
        .collect();
    let Loaded { set, errors, mut warnings, .. } = PolicySet::load(&sources);
    // Other files in this folder only cause a warning: it is not a policy folder.
    let (other, mut errors): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|error| matches!(error.reason, "unknown-kind" | "unsupported-kind"));
    warnings.extend(other);
    let mut checked = check_extra_roots(set.mesh(), now_unix);
    errors.append(&mut checked.errors);
    warnings.append(&mut checked.warnings);
    let extra: Vec<_> = checked.roots.into_iter().map(ExtraRoot::from).collect();
    errors.extend(extra.iter().filter_map(|root| foreign(root, domain)));
    if !errors.is_empty() {
        return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    let default_lifetimes = default_lifetimes(set.mesh(), environment, &mut warnings);
    let no_effect = |kind: &str, file: &String, line, column| Diagnostic {
        file: file.clone(),
        line,
        column,
        field: String::new(),
        reason: "no-effect-here",
        message: format!("{kind} has an effect in the policy folder of sidecars only"),
    };
    warnings.extend(set.policies().iter().map(|it| no_effect("a PeerAuthentication", &it.file, it.line, it.column)));
    let rules = set.authorization_policies().iter();
    warnings.extend(rules.map(|it| no_effect("an AuthorizationPolicy", &it.file, it.line, it.column)));
    for warning in &warnings {
        tracing::warn!(%warning, "resource");
    }
    let mut roots = Vec::new();
    for root in extra {
        if !roots.iter().any(|known: &ExtraRoot| known.der == root.der) {
            roots.push(root);
        }
    }
    log_extra_roots(set.mesh(), &roots);
    Ok(Resources { default_lifetimes, roots })
}

/// Refuses a root that names another trust domain, since it would be trusted for ours.
fn foreign(root: &ExtraRoot, domain: &TrustDomain) -> Option<Diagnostic> {
    let named = Root::trust_domain_in(&root.pem).ok().filter(|named| named != domain)?;
    let message =
        format!("it has a root of trust domain {named}, and this CA is of {domain}; write it into trustBundles");
    Some(root.location.diagnostic("td-bundle", message))
}

/// A request without a lifetime gets `workloadCertTTL`, or `secretTTL` where that is shorter: the one is what a CA issues, the
/// other what agents ask for.
fn default_lifetimes(
    mesh: &MeshConfig,
    environment: DefaultLifetimes,
    warnings: &mut Vec<Diagnostic>,
) -> DefaultLifetimes {
    let shortest = [&mesh.workload_cert_ttl, &mesh.secret_ttl].into_iter().flatten().min_by_key(|ttl| ttl.value);
    if let Some(ttl) = shortest.filter(|ttl| ttl.value < MIN_TTL) {
        let message = "no certificate is issued for less than a minute; it will be one minute".to_owned();
        warnings.push(ttl.location.diagnostic("lifetime-cut", message));
    }
    if let Some(key) = &mesh.workload_key {
        let message = "has an effect in the policy folder of sidecars only: keys are made there".to_owned();
        warnings.push(key.location.diagnostic("no-effect-here", message));
    }
    DefaultLifetimes { ttl: shortest.map(|ttl| ttl.value).or(environment.ttl), max_ttl: environment.max_ttl }
}

/// Logs the roots that are handed out beyond the CA's own, with their signers.
fn log_extra_roots(mesh: &MeshConfig, roots: &[ExtraRoot]) {
    for root in roots {
        let entry = mesh.ca_certificates.iter().find(|entry| entry.location == root.location);
        let signers = entry.map(|entry| entry.signers.join(", ")).filter(|signers| !signers.is_empty());
        let (file, line) = (&root.location.file, root.location.position.line);
        let until = utc(root.not_after_unix);
        tracing::info!(file, line, signers, until, "an extra root is handed out to workloads");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_testkit::certs::{Authority, Profile};

    use portcullis_tls::Clock;

    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("cluster.local").unwrap()
    }

    fn read_with(text: &str, environment: DefaultLifetimes) -> Result<Resources, String> {
        let file = FileContent { path: "/ca/mesh.yaml".into(), content: text.as_bytes().to_vec().into(), mode: 0o644 };
        parse(&[file], &domain(), environment, Clock::system().now_unix())
    }

    fn read(text: &str) -> Result<Resources, String> {
        read_with(text, DefaultLifetimes::default())
    }

    fn operator(mesh: &str) -> String {
        format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  meshConfig:\n{mesh}")
    }

    fn roots(pems: &[&str]) -> String {
        let entry = |pem: &&str| {
            let lines: String = pem.lines().map(|line| format!("        {line}\n")).collect();
            format!("    - certSigners: [external.example]\n      pem: |\n{lines}")
        };
        operator(&format!("    caCertificates:\n{}", pems.iter().map(entry).collect::<String>()))
    }

    fn no_domain() -> Authority {
        Authority::self_signed(&Profile { sans: None, ..Profile::authority("cluster.local", "CN=external") })
    }

    #[test]
    fn extra_roots_are_taken_once_and_never_those_of_the_ca() {
        let (own, one, two) = (Authority::root("cluster.local"), Authority::root("cluster.local"), no_domain());
        let pems = [one.bundle_pem(), two.bundle_pem(), own.bundle_pem() + &one.bundle_pem()];
        let read = read(&roots(&pems.each_ref().map(String::as_str))).unwrap();
        let now = Clock::system().now_unix();
        let bundle = TrustBundle::from_pem(own.bundle_pem().as_bytes(), now).unwrap();
        let beyond: Vec<_> = read.roots_beyond(&bundle, now).map(|root| root.der().to_vec()).collect();
        assert_eq!(beyond, [one.root_der().to_vec(), two.root_der().to_vec()]);
        assert_eq!(read.roots_beyond(&bundle, i64::MAX).count(), 0, "what has ended is not handed out");
    }

    #[test]
    fn an_invalid_or_foreign_root_is_refused_with_its_position() {
        let root = Authority::root("cluster.local");
        let leaf = pem(&root.workload("spiffe://cluster.local/ns/a/sa/b").chain[0]);
        for (pem, what) in [
            ("-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n", "damaged"),
            ("hello\n", "no CERTIFICATE block"),
            (leaf.as_str(), "a trust bundle holds the root certificates"),
            (Authority::root("partner.test").bundle_pem().as_str(), "partner.test, and this CA is of cluster.local"),
        ] {
            let why = read(&roots(&[&root.bundle_pem(), pem])).unwrap_err();
            let lines = 7 + root.bundle_pem().lines().count() + 3;
            let place = format!("/ca/mesh.yaml:{lines}:9: spec.meshConfig.caCertificates[1].pem: ");
            assert!(why.starts_with(&place) && why.contains(what), "{place} {what}: {why}");
        }
        let many: Vec<_> = (0..33).map(|_| Authority::root("cluster.local").bundle_pem()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(read(&roots(&many)).unwrap_err().contains("33 extra roots"));
        read(&roots(&many[1..])).unwrap();
    }

    #[test]
    fn a_root_that_has_ended_is_left_out() {
        let now = Clock::system().now_unix();
        let old = Profile { sans: None, ..Profile::authority("cluster.local", "CN=old") }.valid(now - 100, now - 1);
        let read = read(&roots(&[&Authority::self_signed(&old).bundle_pem()])).unwrap();
        assert!(read.roots.is_empty());
    }

    #[test]
    fn lifetimes_are_the_shorter_one_and_go_before_the_environment() {
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
        let environment = DefaultLifetimes { ttl: hours(5), max_ttl: hours(50) };
        for (fields, ttl) in [
            ("{workloadCertTTL: 12h}", 12),
            ("{secretTTL: 6h}", 6),
            ("{workloadCertTTL: 12h, secretTTL: 6h}", 6),
            ("{workloadCertTTL: 12h, secretTTL: 24h}", 12),
            ("{workloadRSAKeySize: 4096}", 5),
        ] {
            let read = read_with(&operator(&format!("    certificates: {fields}\n")), environment).unwrap();
            assert_eq!(read.default_lifetimes, DefaultLifetimes { ttl: hours(ttl), max_ttl: hours(50) }, "{fields}");
        }
    }

    #[test]
    fn other_files_are_ignored_and_an_invalid_operator_is_an_error() {
        read("note: this is mine\n").unwrap();
        read("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: b}\n")
            .unwrap();
        for text in [
            "apiVersion: install.istio.io/v1\nkind: IstioOperator\n",
            "apiVersion: [\n",
            &operator("    certificates: {secretTTL: 1d}\n"),
        ] {
            read(text).unwrap_err();
        }
    }
}
