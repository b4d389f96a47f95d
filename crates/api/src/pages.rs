//! `/policies`, `/certs` and `/connections`, as far as commands read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Direction, ProxyInfo, Timestamp, Transport};

/// `/policies`: what is in force, and what is wrong with newer files.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Policies {
    /// A digest of the files in force, the same in every sidecar that has the same policies. None without a policy folder.
    pub hash: Option<String>,
    /// The policy folder.
    pub folder: Option<String>,
    /// How often a set was put in force.
    pub generation: Option<u64>,
    /// When the set in force was loaded.
    pub loaded_at: Option<Timestamp>,
    /// Why the files as they are now are not in force.
    pub problem: Option<Problem>,
    /// PeerAuthentications.
    pub policies: Vec<PeerAuthentication>,
    /// AuthorizationPolicies.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// Break-glass documents, those that have ended too. None from a sidecar that does not say.
    pub break_glass: Option<Vec<BreakGlass>>,
}

/// A PeerAuthentication that lets plaintext in for a limited time.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BreakGlass {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The labels that it selects; none selects every workload.
    pub selector: Option<BTreeMap<String, String>>,
    /// The file that it was read from.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// When it ends.
    pub until: Option<Timestamp>,
    /// Whether it has not ended.
    pub is_active: bool,
    /// Why.
    pub reason: String,
    /// Who wanted it.
    pub owner: Option<String>,
}

/// Why newer files are not in force.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Problem {
    /// A word.
    pub reason: String,
    /// Every error.
    pub message: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// A PeerAuthentication in force.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthentication {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The labels that it selects; none selects every workload.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its mode, or `UNSET`.
    pub mode: String,
    /// The modes of ports.
    pub ports: BTreeMap<String, String>,
    /// Evaluated, but not enforced.
    pub dry_run: bool,
    /// The file that it was read from.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

/// An AuthorizationPolicy in force.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ALLOW`, `DENY` or `AUDIT`.
    pub action: String,
    /// The labels that it selects; none selects every workload.
    pub selector: Option<BTreeMap<String, String>>,
    /// Evaluated, but not enforced.
    pub dry_run: bool,
    /// How many rules it has.
    pub rules: usize,
    /// The file that it was read from.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

impl AuthorizationPolicy {
    /// Whether it applies to a workload: its namespace's, or one of the root namespace, and its selector matches.
    #[must_use]
    pub fn applies_to(&self, proxy: &ProxyInfo) -> bool {
        let is_near = self.namespace == proxy.namespace || self.namespace == proxy.root_namespace;
        let selects = |(name, value): (&String, &String)| proxy.labels.get(name) == Some(value);
        is_near && self.selector.iter().flatten().all(selects)
    }
}

/// `/certs`: the own certificate, and the roots that peers are verified against.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Certs {
    /// One, or none before the first certificate.
    pub certificates: Vec<WorkloadCertificate>,
    /// Each trust domain with its roots.
    pub trust_bundles: Vec<TrustDomainRoots>,
}

/// The certificate of the workload.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadCertificate {
    /// Its SPIFFE ID.
    pub identity: String,
    /// `Available`, or why not.
    pub state: String,
    /// The leaf, then intermediates.
    pub cert_chain: Vec<Certificate>,
    /// When the next one is asked for. None: files are watched, and nobody knows when they are replaced.
    pub renews_at: Option<Timestamp>,
}

/// The roots of one trust domain.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrustDomainRoots {
    /// The trust domain.
    pub trust_domain: String,
    /// Its roots.
    pub root_certs: Vec<Certificate>,
}

/// A certificate.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Certificate {
    /// The subject, as openssl prints it.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial_number_hex: String,
    /// The first second of its validity.
    pub valid_from: Option<Timestamp>,
    /// The last second.
    pub expiration_time: Option<Timestamp>,
    /// The certificate itself, in PEM.
    pub pem: String,
}

/// `/connections`: those that are open now.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct OpenConnections {
    /// The oldest first.
    pub connections: Vec<OpenConnection>,
}

/// An open connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenConnection {
    /// Its number in logs (`conn_id`).
    pub conn_id: u64,
    /// Which side the sidecar is on.
    pub direction: Direction,
    /// Address of the client.
    pub source: String,
    /// The address that the client dialled.
    #[serde(default)]
    pub destination: Option<String>,
    /// The verified SPIFFE ID of the other side.
    #[serde(default)]
    pub peer: Option<String>,
    /// The service that was dialled.
    #[serde(default)]
    pub service: Option<String>,
    /// The port of the workload, as metrics have it.
    #[serde(default)]
    pub port: String,
    /// Mode of the port, or how the route is reached.
    #[serde(default)]
    pub mode: String,
    /// The policy that decided.
    #[serde(default)]
    pub policy: String,
    /// By what the bytes are carried.
    #[serde(default)]
    pub transport: Transport,
    /// For how long it has been open: seconds and `s`.
    #[serde(default)]
    pub age: String,
    /// Bytes from client to server.
    #[serde(default)]
    pub bytes_received: u64,
    /// Bytes from server to client.
    #[serde(default)]
    pub bytes_sent: u64,
}

impl OpenConnection {
    /// For how many seconds it has been open.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        self.age.strip_suffix('s')?.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_older_sidecars_are_read() {
        let policies: Policies = serde_json::from_str(r#"{"folder": "/p", "generation": 1, "policies": []}"#).unwrap();
        assert_eq!((policies.hash, policies.generation), (None, Some(1)));
        let open =
            r#"{"connId": 7, "direction": "inbound", "source": "1.2.3.4:5", "transport": "mtls", "age": "1.5s"}"#;
        let open: OpenConnection = serde_json::from_str(open).unwrap();
        assert_eq!((open.seconds(), open.transport, &open.service), (Some(1.5), Transport::Mtls, &None));
        for wrong in ["", "1", "-1s", "NaNs", "infs"] {
            assert_eq!(OpenConnection { age: wrong.to_owned(), ..open.clone() }.seconds(), None, "{wrong}");
        }
    }
}
