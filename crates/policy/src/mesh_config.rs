//! `spec.meshConfig` of an IstioOperator: extra roots, lifetimes and the size of keys.
//!
//! Istio merges its operators before it reads them; here each says a part, and what two of them say differently is an error.

use std::time::Duration;

use portcullis_identity::KeyType;
use portcullis_yaml::Position;

use crate::Diagnostic;

/// Where something is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// Line and column, from 1.
    pub position: Position,
    /// Path of the field, such as `spec.meshConfig.certificates.secretTTL`.
    pub field: String,
}

impl Place {
    /// Something to say about it.
    #[must_use]
    pub fn diagnostic(&self, reason: &'static str, message: String) -> Diagnostic {
        let Self { file, position, field } = self.clone();
        Diagnostic { file, line: position.line, column: position.column, field, reason, message }
    }
}

/// A value with its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub place: Place,
}

/// An entry of `caCertificates`: Istio's `MeshConfig.CertificateData`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CaCertificates {
    /// `pem`: one root or more. Whether they are roots is for whoever uses them to judge.
    pub pem: String,
    /// `certSigners`: the signers below these roots, by name.
    pub signers: Vec<String>,
    /// Where `pem` is written.
    pub place: Place,
}

/// What all IstioOperator documents of a set say together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MeshConfig {
    /// `caCertificates`.
    pub ca_certificates: Vec<CaCertificates>,
    /// `certificates.secretTTL`: what workloads ask for that do not say otherwise.
    pub secret_ttl: Option<Placed<Duration>>,
    /// `certificates.workloadCertTTL`: what a certificate authority issues to whoever asks for no lifetime.
    pub workload_cert_ttl: Option<Placed<Duration>>,
    /// `certificates.workloadRSAKeySize`: RSA with so many bits.
    pub workload_key: Option<Placed<KeyType>>,
}

impl MeshConfig {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The kind of key that workloads are to have.
    #[must_use]
    pub fn key_type(&self) -> Option<KeyType> {
        self.workload_key.as_ref().map(|key| key.value)
    }

    /// What is said for a certificate authority, each with its place: in a sidecar's folder it has no effect.
    #[must_use]
    pub fn for_the_authority(&self) -> Vec<Place> {
        let lifetimes = [&self.secret_ttl, &self.workload_cert_ttl].into_iter().flatten().map(|ttl| ttl.place.clone());
        self.ca_certificates.iter().map(|entry| entry.place.clone()).chain(lifetimes).collect()
    }

    /// Adds what another document says.
    pub(crate) fn add(&mut self, other: Self, errors: &mut Vec<Diagnostic>) {
        self.ca_certificates.extend(other.ca_certificates);
        add(&mut self.secret_ttl, other.secret_ttl, errors);
        add(&mut self.workload_cert_ttl, other.workload_cert_ttl, errors);
        add(&mut self.workload_key, other.workload_key, errors);
    }
}

/// The same said twice is no harm.
fn add<T: Eq>(known: &mut Option<Placed<T>>, further: Option<Placed<T>>, errors: &mut Vec<Diagnostic>) {
    match (known.as_ref(), further) {
        (Some(one), Some(other)) if one.value != other.value => {
            let (file, line) = (&one.place.file, one.place.position.line);
            let message = format!("{file}:{line} says another value of this field; take one of them out");
            errors.push(other.place.diagnostic("conflicting-value", message));
        }
        (None, further) => *known = further,
        _ => {}
    }
}
