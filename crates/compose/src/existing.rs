//! Sidecars that an earlier run added: the new services join their directories, and they join those of the new ones.

use serde_yaml::{Mapping, Value};

use crate::error::{Error, ExistingProblem, Problem, Reason};
use crate::file::ComposeFile;
use crate::names::{SidecarNames, owner};
use crate::plan::Plan;
use crate::proxy_config;
use crate::service::MeshedService;
use crate::sidecar::{CONFIG_VARIABLE, WORKLOAD_VARIABLE, environment};
use crate::yaml::{in_line, scalar, write};

/// A service that already has a sidecar.
#[derive(Debug)]
pub(crate) struct ExistingSidecar {
    pub(crate) service: MeshedService,
    config: Mapping,
    /// The services that have the configuration.
    configured: Vec<String>,
}

/// The existing sidecars of a file, or every reason why one of them cannot be extended.
pub(crate) fn existing_sidecars(file: &ComposeFile) -> Result<Vec<ExistingSidecar>, Error> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (name, holder) in file.services()? {
        let (Some(name), Some(holder)) = (scalar(name), holder.as_mapping()) else { continue };
        let Some(service) = owner(holder).filter(|service| name == SidecarNames::of(service).holder) else { continue };
        match ExistingSidecar::read(&service, holder, file) {
            Ok(sidecar) => found.push(sidecar),
            Err(problem) => problems.push(Problem::of_service(&service, Reason::ExistingSidecar(problem))),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(Error::Refused(problems)) }
}

impl ExistingSidecar {
    fn read(name: &str, holder: &Mapping, file: &ComposeFile) -> Result<Self, ExistingProblem> {
        let SidecarNames { proxy, .. } = SidecarNames::of(name);
        let text = file.service(&proxy).and_then(|proxy| proxy.get("environment")?.get(CONFIG_VARIABLE)?.as_str());
        let Some(text) = text else {
            return Err(ExistingProblem::NoConfiguration { proxy, variable: CONFIG_VARIABLE });
        };
        let config: Mapping = match serde_yaml::from_str(&text.replace("$$", "$")) {
            Ok(config) => config,
            Err(error) => return Err(ExistingProblem::Syntax { proxy, error: error.to_string() }),
        };
        let field = |section: &str, key: &str| config.get(section)?.get(key)?.as_str();
        if config.get("identity").and_then(|identity| identity.get("ca")).is_none() {
            return Err(ExistingProblem::OtherIdentitySource(proxy));
        }
        // An earlier version wrote the workload into the configuration.
        let variable =
            file.service(&proxy).and_then(|proxy| proxy.get("environment")?.get(WORKLOAD_VARIABLE)?.as_str());
        let namespace = variable.and_then(|workload| Some(workload.split_once('/')?.0));
        let namespace = namespace.or_else(|| field("workload", "namespace"));
        let (Some(domain), Some(namespace)) = (field("mesh", "trustDomain"), namespace) else {
            return Err(ExistingProblem::NoIdentity(proxy));
        };
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{name}");
        // In files of an earlier version, a service made the rules from the same text.
        let parts = [format!("{name}-intercept"), SidecarNames::of(name).proxy];
        let has_config =
            |part: &String| file.service(part).and_then(|part| part.get("environment")?.get(CONFIG_VARIABLE)).is_some();
        let configured = parts.into_iter().filter(has_config).collect();
        let service = MeshedService::new(name, namespace, id, holder, file, &[]).map_err(ExistingProblem::Network)?;
        Ok(Self { service, config, configured })
    }

    /// Adds each new service that it can reach to its directory.
    pub(crate) fn add_services(&self, new: &[&MeshedService], plan: &mut Plan) -> Result<(), Reason> {
        let new: Vec<_> = new.iter().filter(|peer| peer.shares_network_with(&self.service)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let SidecarNames { proxy, .. } = SidecarNames::of(&self.service.name);
        let mut config = self.config.clone();
        config.shift_remove("workload");
        let services = config.entry(Value::from("services")).or_insert_with(|| Value::Sequence(Vec::new()));
        let Value::Sequence(services) = services else {
            return Err(Reason::ExistingSidecar(ExistingProblem::NoServices(proxy)));
        };
        services.extend(new.into_iter().map(|peer| proxy_config::service_entry(peer)));
        let config = config.into_iter().map(|(key, value)| (key, in_line(value))).collect();
        let environment = environment(&write(&Value::Mapping(config)), &self.service.workload());
        for service in &self.configured {
            plan.set(service, "environment", Some(environment.clone()));
        }
        Ok(())
    }
}
