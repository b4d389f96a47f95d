//! The service directory in force, with what is made from it once and not for each connection.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_policy::directory::{Directory, Service, TlsOrigination};
use portcullis_telemetry as telemetry;
use portcullis_tls::Originator;

/// A directory that connections are decided with. A reload makes another one.
#[derive(Default)]
pub struct ServiceTable {
    directory: Arc<Directory>,
    /// By the address of the service, which the directory keeps.
    names: HashMap<usize, ServiceNames>,
    originators: Originators,
}

/// What TLS origination needs for each rule, or why it cannot be used.
pub type Originators = Vec<(Arc<TlsOrigination>, Result<Arc<Originator>, String>)>;

/// What a service is called.
#[derive(Clone)]
pub(crate) struct ServiceNames {
    /// In metrics.
    pub(crate) metrics: Arc<telemetry::Service>,
    /// Its full name.
    pub(crate) host: Arc<str>,
}

impl ServiceTable {
    /// The table of a directory. A rule without an originator cannot be used.
    #[must_use]
    pub fn new(directory: Arc<Directory>, originators: Originators) -> Self {
        let names = directory.services().iter().map(|service| (key(service), ServiceNames::of(service))).collect();
        Self { directory, names, originators }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The directory, for a table with other originators.
    #[must_use]
    pub fn shared_directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// What a service of the directory is called.
    pub(crate) fn names(&self, service: &Arc<Service>) -> ServiceNames {
        self.names.get(&key(service)).cloned().unwrap_or_else(|| ServiceNames::of(service))
    }

    /// What TLS origination needs.
    ///
    /// # Errors
    /// Why there is nothing to use.
    pub(crate) fn originator(&self, rule: &Arc<TlsOrigination>) -> Result<&Arc<Originator>, &str> {
        let found = self.originators.iter().find(|(other, _)| Arc::ptr_eq(other, rule) || other == rule);
        match found {
            Some((_, originator)) => originator.as_ref().map_err(String::as_str),
            None => Err("its files were not read"),
        }
    }
}

fn key(service: &Arc<Service>) -> usize {
    Arc::as_ptr(service).addr()
}

impl ServiceNames {
    /// Istio's hosts have the form `NAME.NAMESPACE.svc.cluster.local`; all others are their own name.
    fn of(service: &Service) -> Self {
        let host: Arc<str> = service.label().into();
        let parts = host.strip_suffix(".svc.cluster.local").and_then(|short| short.split_once('.'));
        let metrics = match parts.filter(|(_, namespace)| !namespace.contains('.')) {
            Some((name, namespace)) => telemetry::Service::new(name, namespace),
            None => telemetry::Service::without_namespace(&host),
        };
        Self { metrics: Arc::new(metrics), host }
    }
}
