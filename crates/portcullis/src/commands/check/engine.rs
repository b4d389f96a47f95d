//! What a container engine knows of services with sidecars: whether each runs behind its own.

use std::collections::BTreeSet;

use portcullis_compose::{Container, ServiceState, sidecar_services};
use portcullis_discovery::StackContainer;
use portcullis_report::check::{MeshedService, Runs};

use crate::commands::compose::status::container;

/// Every service with a sidecar among the containers of all projects.
pub(super) fn meshed(found: &[StackContainer]) -> Vec<MeshedService> {
    let owners = found.iter().filter_map(|part| Some((part.project.clone(), part.sidecar_of.clone()?)));
    // One that was written by hand may consist of other parts, of which nothing is known here.
    let holds = |project: &str, service: &str| {
        let [holder, ..] = sidecar_services(service);
        found.iter().any(|part| part.project == project && part.service == holder)
    };
    let owners: BTreeSet<(String, String)> = owners.filter(|(project, service)| holds(project, service)).collect();
    let services = owners.into_iter().map(|(project, service)| {
        let of_project: Vec<&StackContainer> = found.iter().filter(|part| part.project == project).collect();
        let containers: Vec<Container> = of_project.iter().map(|part| container((*part).clone())).collect();
        let state = ServiceState::of(&service, &containers);
        // The app and its sidecar could come from two files: what is meant is the one with the sidecar.
        let part = of_project.iter().find(|part| part.sidecar_of.as_ref() == Some(&service));
        let call = part.map_or_else(|| "docker-compose".to_owned(), |part| call(part));
        let remedy = state.mending(&service).into_iter().map(|command| format!("{call} {command}"));
        MeshedService {
            runs: match state {
                ServiceState::Captured => Runs::Captured,
                ServiceState::NotRunning => Runs::Stopped,
                _ => Runs::Wrong,
            },
            explanation: state.explanation().to_owned(),
            remedy: remedy.collect::<Vec<_>>().join(" && "),
            project,
            service,
        }
    });
    services.collect()
}

/// Compose with the project and the files that the container was made from, whatever the folder and `.env` say.
fn call(part: &StackContainer) -> String {
    let mut call = format!("docker-compose --project-name {}", quoted(&part.project));
    for file in &part.files {
        call.push_str(&format!(" --file {}", quoted(&part.folder.join(file).display().to_string())));
    }
    call
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(service: &str, joined: Option<&str>, sidecar_of: Option<&str>) -> StackContainer {
        StackContainer {
            id: service.to_owned(),
            project: "shop".to_owned(),
            service: service.to_owned(),
            folder: "/srv/my shop".into(),
            files: vec!["compose.mesh.yaml".into()],
            sidecar_of: sidecar_of.map(str::to_owned),
            running: true,
            started: "2026-11-30T08:00:00Z".to_owned(),
            error: String::new(),
            joined: joined.map(str::to_owned),
        }
    }

    #[test]
    fn what_is_wrong_comes_with_a_command_that_names_the_files_in_use() {
        let stack = |app: StackContainer| {
            let (net, proxy) = (part("web-net", None, Some("web")), part("web-proxy", Some("web-net"), Some("web")));
            meshed(&[net, proxy, app])
        };
        let found = stack(part("web", Some("web-net"), None));
        assert_eq!((found.len(), found[0].runs, found[0].remedy.as_str()), (1, Runs::Captured, ""));
        let call = "docker-compose --project-name shop --file '/srv/my shop/compose.mesh.yaml'";
        let found = stack(part("web", None, None));
        assert_eq!((found[0].runs, &found[0].remedy), (Runs::Wrong, &format!("{call} stop web && {call} up --detach")));
        let mut orphan = part("web", Some("web-net"), None);
        orphan.started = "2026-11-30T07:00:00Z".to_owned();
        let found = stack(orphan);
        assert_eq!(
            (found[0].runs, &found[0].remedy),
            (Runs::Wrong, &format!("{call} up --detach && {call} restart web"))
        );
        let mut failed = part("web", Some("web-net"), None);
        (failed.running, failed.error) = (false, "cannot join network of a non running container".to_owned());
        let found = stack(failed);
        assert_eq!((found[0].runs, &found[0].remedy), (Runs::Wrong, &format!("{call} up --detach")));
    }
}
