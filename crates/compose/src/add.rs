//! Builds the plan from a file and a request.

use serde_yaml::{Mapping, Value};

use crate::ca::Ca;
use crate::error::{Error, Problem};
use crate::existing::existing_sidecars;
use crate::file::ComposeFile;
use crate::names::SidecarNames;
use crate::plan::Plan;
use crate::request::Request;
use crate::service::MeshedService;
use crate::sidecar::{SidecarSpec, memory_volume};
use crate::yaml::scalar;
use crate::{checks, proxy_config};

/// A selected service and its definition.
struct Selected<'a> {
    service: MeshedService,
    original: &'a Mapping,
}

impl ComposeFile {
    /// The changes that give the requested services a sidecar.
    ///
    /// # Errors
    /// If the sidecars cannot be added: [`Error::Refused`] with every reason.
    pub fn add_sidecars(&self, request: &Request) -> Result<Plan, Error> {
        let services = self.services()?;
        let ca = Ca::find(self, request)?;
        let names = checks::selected(self, &ca, request)?;
        let mut existing = existing_sidecars(self)?;
        let mut selected = self.select(&names, request)?;
        let all = selected.iter_mut().map(|new| &mut new.service);
        let all = all.chain(existing.iter_mut().map(|sidecar| &mut sidecar.service));
        checks::keep_unambiguous_hosts(services, &mut all.collect::<Vec<_>>());

        let mut warnings = checks::warnings(services, &names);
        let new: Vec<&MeshedService> = selected.iter().map(|new| &new.service).collect();
        if matches!(ca, Ca::New) {
            warnings.extend(checks::shared_networks(self, &new));
        }
        let mut plan = Plan::new(self.document().clone(), warnings);
        ca.register(&new, self, request, &mut plan);
        for sidecar in &existing {
            let refused = |reason| Error::Refused(vec![Problem::of_service(&sidecar.service.name, reason)]);
            sidecar.add_services(&new, &mut plan).map_err(refused)?;
        }
        for Selected { service, original } in &selected {
            let peers = new.iter().copied().chain(existing.iter().map(|sidecar| &sidecar.service));
            let peers = peers.filter(|peer| peer.shares_network_with(service));
            let config = proxy_config::text(service, peers, &ca.address(), request);
            let spec = SidecarSpec { service, original, config: &config };
            plan.add_sidecar(&service.name, spec.services(request));
            let names = SidecarNames::of(&service.name);
            // A token that the sidecar has got for its next start must outlive this one.
            let identity = if request.joined.is_some() { Value::Null } else { memory_volume() };
            plan.add_volume(&names.identity_volume, identity);
            plan.add_volume(&names.admin_volume, memory_volume());
            plan.add_volume(&names.ledger_volume, Value::Null);
            plan.move_network(service, original);
        }
        for (name, service) in services {
            let (Some(name), Some(service)) = (scalar(name), service.as_mapping()) else { continue };
            let refused = |reason| Error::Refused(vec![Problem::of_service(&name, reason)]);
            plan.redirect_references(&name, service, &names).map_err(refused)?;
        }
        Ok(plan)
    }

    /// Reads the selected services, or returns every reason why one cannot have a sidecar.
    fn select(&self, names: &[String], request: &Request) -> Result<Vec<Selected<'_>>, Error> {
        let services = self.services()?;
        let mut problems = checks::problems(self, services, names);
        let mut selected = Vec::new();
        for name in names {
            let Some(original) = services.get(name.as_str()).and_then(Value::as_mapping) else { continue };
            match MeshedService::new(name, &request.namespace, request.spiffe_id(name), original, self, names) {
                Ok(service) => selected.push(Selected { service, original }),
                Err(reasons) => {
                    problems.extend(reasons.into_iter().map(|reason| Problem::of_service(name, reason)));
                }
            }
        }
        if problems.is_empty() { Ok(selected) } else { Err(Error::Refused(problems)) }
    }
}
