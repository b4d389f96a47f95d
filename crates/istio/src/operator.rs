//! One IstioOperator document. Four of its many fields have an effect here; each of the others is a warning.
//!
//! Guides to Istio write `meshConfig.certificates` with lifetimes and a key size, but Istio's own MeshConfig has no such field:
//! there `certificates` is a list of DNS certificates. The warning names the setting that Istio reads instead.

use std::time::Duration;

use portcullis_identity::KeyType;
use portcullis_yaml::{Content, Cursor, Fields, Problem, Problems, printable, reason};

use crate::go_duration::go_duration;
use crate::mesh_config::{CaCertificates, Located, Location, MeshConfig};

/// The `apiVersion` of IstioOperator.
pub const API_VERSION: &str = "install.istio.io/v1alpha1";

/// Ten years: a longer lifetime is a typing error.
const MAX_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The most signer names in one entry.
const MAX_SIGNERS: usize = 64;

/// One IstioOperator document as it was read.
#[derive(Debug, Default)]
pub struct Operator {
    /// Its settings, which are not to be used if there is any problem.
    pub mesh: MeshConfig,
    /// What is wrong.
    pub problems: Problems,
    /// What has no effect, or has one here but not in Istio.
    pub warnings: Problems,
}

impl Operator {
    /// Reads the document at `root`, which is in `file`.
    #[must_use]
    pub fn read(file: &str, root: &Cursor<'_>) -> Self {
        let mut reader = OperatorReader { file, problems: Problems::new(), warnings: Problems::new() };
        let mesh = reader.document(root);
        Self { mesh, problems: reader.problems, warnings: reader.warnings }
    }
}

struct OperatorReader<'a> {
    file: &'a str,
    problems: Problems,
    warnings: Problems,
}

impl OperatorReader<'_> {
    fn document(&mut self, root: &Cursor<'_>) -> MeshConfig {
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        let mesh = self.lenient(root, &known).and_then(|fields| present(&fields, "spec"));
        let mesh = mesh.and_then(|spec| self.lenient(&spec, &["meshConfig"]));
        let mesh = mesh.and_then(|fields| present(&fields, "meshConfig"));
        let Some(fields) = mesh.and_then(|mesh| self.lenient(&mesh, &["caCertificates", "certificates"])) else {
            return MeshConfig::default();
        };
        let mut config = MeshConfig::default();
        if let Some(at) = present(&fields, "caCertificates") {
            let items = at.items(&mut self.problems).unwrap_or_default();
            config.ca_certificates = items.iter().filter_map(|item| self.ca_certificates(item)).collect();
        }
        if let Some(at) = present(&fields, "certificates") {
            self.certificates(&at, &mut config);
        }
        config
    }

    /// The fields of a mapping that has many more in Istio: those are ignored with a warning.
    fn lenient<'t>(&mut self, at: &Cursor<'t>, known: &[&str]) -> Option<Fields<'t>> {
        let mut found = Problems::new();
        let fields = at.fields(known, &mut found);
        for problem in found.into_vec() {
            if problem.reason == reason::UNKNOWN_FIELD {
                let message = format!("{}; it has no meaning here and is ignored", problem.message);
                self.warnings.push(Problem { reason: "ignored-field", message, ..problem });
            } else {
                self.problems.push(problem);
            }
        }
        fields
    }

    /// Nothing is ignored here: a root with a restriction that is not implemented would be trusted too widely.
    fn ca_certificates(&mut self, at: &Cursor<'_>) -> Option<CaCertificates> {
        let fields = at.fields(&["pem", "certSigners", "trustDomains", "spiffeBundleUrl"], &mut self.problems)?;
        for (name, instead) in [
            (
                "trustDomains",
                "these roots would be trusted for our own trust domain too; for another one write trustBundles in identities.yaml",
            ),
            ("spiffeBundleUrl", "no bundle is fetched from elsewhere; write its roots as pem"),
        ] {
            if let Some(at) = fields.get(name) {
                at.report("unsupported-field", format!("is not supported: {instead}"), &mut self.problems);
            }
        }
        let pem = fields.require("pem", &mut self.problems)?;
        let text = pem.string(&mut self.problems)?;
        let mut signers = Vec::new();
        if let Some(at) = present(&fields, "certSigners") {
            let items = at.items(&mut self.problems)?;
            if items.len() > MAX_SIGNERS {
                let message = format!("has {} names; at most {MAX_SIGNERS} are read", items.len());
                at.report("invalid-value", message, &mut self.problems);
            }
            signers.extend(items.iter().filter_map(|item| item.string(&mut self.problems)).map(str::to_owned));
        }
        Some(CaCertificates { pem: text.to_owned(), signers, location: self.location(&pem) })
    }

    fn certificates(&mut self, at: &Cursor<'_>, config: &mut MeshConfig) {
        if matches!(at.node().content, Content::Sequence(_)) {
            let message = "Istio's list of DNS certificates has no meaning here and is ignored";
            return at.report("ignored-field", message, &mut self.warnings);
        }
        let Some(fields) = self.lenient(at, &["secretTTL", "workloadCertTTL", "workloadRSAKeySize"]) else { return };
        config.secret_ttl = self.lifetime(&fields, "secretTTL", "SECRET_TTL in the environment of its agents");
        config.workload_cert_ttl =
            self.lifetime(&fields, "workloadCertTTL", "DEFAULT_WORKLOAD_CERT_TTL in the environment of istiod");
        config.workload_key = present(&fields, "workloadRSAKeySize").and_then(|at| self.key_size(&at));
    }

    fn lifetime(&mut self, fields: &Fields<'_>, name: &str, instead: &str) -> Option<Located<Duration>> {
        let at = present(fields, name)?;
        self.istio_ignores(&at, instead);
        let text = at.string(&mut self.problems)?;
        let whole = |ttl: &Duration| ttl.subsec_nanos() == 0 && !ttl.is_zero() && *ttl <= MAX_LIFETIME;
        let Some(value) = go_duration(text).filter(whole) else {
            let message = format!(
                "\"{}\" is not a lifetime; write a duration as Go does, in whole seconds and ten years at most: 24h, 1h30m",
                printable(text)
            );
            at.report("invalid-value", message, &mut self.problems);
            return None;
        };
        Some(Located { value, location: self.location(&at) })
    }

    fn key_size(&mut self, at: &Cursor<'_>) -> Option<Located<KeyType>> {
        self.istio_ignores(at, "WORKLOAD_RSA_KEY_SIZE in the environment of its agents");
        let bits = at.integer(0, i64::MAX, &mut self.problems)?;
        let Some(value) = KeyType::rsa(bits) else {
            at.report(
                "invalid-value",
                format!("{bits} is not a supported RSA key size; write 2048, 3072 or 4096"),
                &mut self.problems,
            );
            return None;
        };
        Some(Located { value, location: self.location(at) })
    }

    fn istio_ignores(&mut self, at: &Cursor<'_>, instead: &str) {
        let message = format!("works here, ignored by Istio, whose MeshConfig has no such field: there set {instead}");
        at.report("ignored-by-istio", message, &mut self.warnings);
    }

    fn location(&self, at: &Cursor<'_>) -> Location {
        Location { file: self.file.to_owned(), position: at.position(), field: at.field().to_owned() }
    }
}

/// A field that is present and not null.
fn present<'t>(fields: &Fields<'t>, name: &str) -> Option<Cursor<'t>> {
    fields.get(name).filter(|at| !at.is_null())
}
