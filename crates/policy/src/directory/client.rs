//! The workload whose connections the directory is for.

use std::collections::BTreeMap;

use crate::directory::locality::Locality;

/// A client. The names of its trust domain are those of the mesh ([`crate::MeshSettings::trust_domains`]).
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its namespace: what is exported to it is seen, and short names are of it.
    pub namespace: &'a str,
    /// Its labels: what DestinationRules of its namespace select by.
    pub labels: &'a BTreeMap<String, String>,
    /// Where it runs, if that is known: nearer endpoints go before farther ones.
    pub locality: Option<&'a Locality>,
}
