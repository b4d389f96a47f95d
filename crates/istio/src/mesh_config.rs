//! `spec.meshConfig` of an IstioOperator: extra roots, lifetimes and key sizes.
//!
//! Istio merges its operators before it reads them. Here each document may set a part, and two different values for one field are
//! an error.

use std::time::Duration;

use portcullis_identity::KeyType;
use portcullis_yaml::{Diagnostic, Position};

/// Where a value is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// The file, as it was named.
    pub file: String,
    /// Line and column, from 1.
    pub position: Position,
    /// Path of the field, such as `spec.meshConfig.certificates.secretTTL`.
    pub field: String,
}

impl Location {
    /// An error or a warning about the value.
    #[must_use]
    pub fn diagnostic(&self, reason: &'static str, message: String) -> Diagnostic {
        let Self { file, position, field } = self.clone();
        Diagnostic { file, line: position.line, column: position.column, field, reason, message }
    }
}

/// A value and its location.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub location: Location,
}

/// An entry of `caCertificates`: Istio's `MeshConfig.CertificateData`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CaCertificates {
    /// `pem`: one or more certificates, unchecked; see [`ExtraRoots`](crate::ExtraRoots).
    pub pem: String,
    /// `certSigners`: the signers below these roots, by name.
    pub signers: Vec<String>,
    /// Where `pem` is written.
    pub location: Location,
}

/// The settings of all IstioOperator documents of a set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MeshConfig {
    /// `caCertificates`.
    pub ca_certificates: Vec<CaCertificates>,
    /// `certificates.secretTTL`: the lifetime that workloads request by default.
    pub secret_ttl: Option<Located<Duration>>,
    /// `certificates.workloadCertTTL`: the lifetime that a CA issues if the request names none.
    pub workload_cert_ttl: Option<Located<Duration>>,
    /// `certificates.workloadRSAKeySize`: the size of workloads' RSA keys.
    pub workload_key: Option<Located<KeyType>>,
}

impl MeshConfig {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The key type of workloads.
    #[must_use]
    pub fn key_type(&self) -> Option<KeyType> {
        self.workload_key.as_ref().map(|key| key.value)
    }

    /// The locations of settings for a CA, which have no effect in the folder of a sidecar.
    #[must_use]
    pub fn ca_only_locations(&self) -> Vec<Location> {
        let lifetimes =
            [&self.secret_ttl, &self.workload_cert_ttl].into_iter().flatten().map(|ttl| ttl.location.clone());
        self.ca_certificates.iter().map(|entry| entry.location.clone()).chain(lifetimes).collect()
    }

    /// Adds the settings of another document. A contradiction is added to `errors`.
    pub fn merge(&mut self, other: Self, errors: &mut Vec<Diagnostic>) {
        self.ca_certificates.extend(other.ca_certificates);
        merge(&mut self.secret_ttl, other.secret_ttl, errors);
        merge(&mut self.workload_cert_ttl, other.workload_cert_ttl, errors);
        merge(&mut self.workload_key, other.workload_key, errors);
    }
}

/// The same value twice is allowed.
fn merge<T: Eq>(known: &mut Option<Located<T>>, further: Option<Located<T>>, errors: &mut Vec<Diagnostic>) {
    match (known.as_ref(), further) {
        (Some(one), Some(other)) if one.value != other.value => {
            let (file, line) = (&one.location.file, one.location.position.line);
            let message = format!("{file}:{line} sets another value; remove one of them");
            errors.push(other.location.diagnostic("conflicting-value", message));
        }
        (None, further) => *known = further,
        _ => {}
    }
}
