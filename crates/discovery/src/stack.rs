//! The containers of a compose project, whether they run or not, and which network namespace each of them joined and when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::docker::{EngineError, SIDECAR_LABEL, WORKLOAD_LABEL, fetch};

/// Those that do not run, too.
const ALL: &str = "/containers/json?all=1";
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const FOLDER: &str = "com.docker.compose.project.working_dir";
const FILES: &str = "com.docker.compose.project.config_files";
/// Containers of `docker-compose run`, which are none of the service's own.
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// A container that Compose has made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StackContainer {
    /// The engine's ID.
    pub id: String,
    /// Its project.
    pub project: String,
    /// Its service.
    pub service: String,
    /// The folder of the project on the host.
    pub folder: PathBuf,
    /// The files that it was made from, as Compose was given them; empty if it did not say.
    pub files: Vec<PathBuf>,
    /// The service that it is the sidecar of, or a part of it.
    pub sidecar_of: Option<String>,
    /// Whether it runs.
    pub running: bool,
    /// When it was started last, as the engine writes it.
    pub started: String,
    /// Why the engine failed to start it the last time that it tried; empty if it did not fail.
    pub error: String,
    /// The container whose network namespace it joins whenever it starts.
    pub joined: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: Started,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Started {
    started_at: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    network_mode: String,
}

/// Asks the engine for the containers of the compose projects in a folder.
///
/// # Errors
/// If there is no list within the deadline, which holds for each question.
pub async fn stack(socket: &Path, folder: &Path, within: Duration) -> Result<Vec<StackContainer>, EngineError> {
    let unreadable = |error: serde_json::Error| EngineError::Answer(error.to_string());
    let mut containers = parse(&fetch(socket, ALL, within).await?).map_err(unreadable)?;
    containers.retain(|container| container.folder == folder);
    inspect(socket, &mut containers, within).await?;
    Ok(containers)
}

/// Asks the engine for the containers of every compose project that has a sidecar, or of one.
///
/// # Errors
/// If there is no list within the deadline, which holds for each question.
pub async fn stacks(
    socket: &Path,
    project: Option<&str>,
    within: Duration,
) -> Result<Vec<StackContainer>, EngineError> {
    let unreadable = |error: serde_json::Error| EngineError::Answer(error.to_string());
    let mut containers = parse(&fetch(socket, ALL, within).await?).map_err(unreadable)?;
    let with_sidecar = containers.iter().filter(|container| container.sidecar_of.is_some());
    let projects: BTreeSet<String> = with_sidecar.map(|container| container.project.clone()).collect();
    containers.retain(|container| {
        projects.contains(&container.project) && project.is_none_or(|project| project == container.project)
    });
    inspect(socket, &mut containers, within).await?;
    Ok(containers)
}

/// Adds what the list does not have.
async fn inspect(socket: &Path, containers: &mut [StackContainer], within: Duration) -> Result<(), EngineError> {
    for container in containers {
        // The ID is the engine's own: hexadecimal digits.
        let text = match fetch(socket, &format!("/containers/{}/json", container.id), within).await {
            Ok(text) => text,
            // It was removed meanwhile.
            Err(EngineError::Answer(_)) if !container.running => continue,
            Err(error) => return Err(error),
        };
        let Inspected { state } =
            serde_json::from_str(&text).map_err(|error| EngineError::Answer(error.to_string()))?;
        container.started = state.started_at;
        container.error = state.error;
    }
    Ok(())
}

fn parse(text: &str) -> Result<Vec<StackContainer>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_str(text)?;
    Ok(entries.into_iter().filter_map(Entry::container).collect())
}

impl Entry {
    fn container(self) -> Option<StackContainer> {
        let labels = self.labels?;
        let label = |name: &str| labels.get(name).cloned();
        // docker-compose writes `False`, Compose v2 `False` or `false`.
        if label(ONE_OFF).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        Some(StackContainer {
            id: self.id,
            project: label(PROJECT)?,
            service: label(SERVICE)?,
            folder: label(FOLDER).unwrap_or_default().into(),
            files: label(FILES)
                .unwrap_or_default()
                .split(',')
                .filter(|file| !file.is_empty())
                .map(PathBuf::from)
                .collect(),
            sidecar_of: label(SIDECAR_LABEL).or_else(|| label(WORKLOAD_LABEL)),
            started: String::new(),
            error: String::new(),
            // A container that is restarting or paused has its network, or gets it back by itself.
            running: matches!(self.state.as_str(), "running" | "restarting" | "paused"),
            joined: self.host_config.network_mode.strip_prefix("container:").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_projects_are_read_and_others_are_not() {
        let labels = |service: &str, one_off: &str| {
            format!(
                r#"{{"com.docker.compose.project": "shop", "com.docker.compose.service": "{service}",
                "com.docker.compose.project.working_dir": "/srv/shop", "portcullis.sidecar-of": "web",
                "com.docker.compose.project.config_files": "a.yaml,/srv/b.yaml", "com.docker.compose.oneoff": "{one_off}"}}"#
            )
        };
        let text = format!(
            r#"[{{"Id": "1", "Labels": {}, "State": "exited", "HostConfig": {{"NetworkMode": "shop_default"}}}},
                {{"Id": "2", "Labels": {}, "State": "running", "HostConfig": {{"NetworkMode": "container:1"}}}},
                {{"Id": "3", "Labels": {}, "State": "running"}}, {{"Id": "4", "Labels": null, "State": "running"}}]"#,
            labels("web-net", "False"),
            labels("web", "False"),
            labels("web", "True")
        );
        let found = parse(&text).unwrap();
        let of = |id: &str, service: &str, running, joined: Option<&str>| StackContainer {
            id: id.to_owned(),
            project: "shop".to_owned(),
            service: service.to_owned(),
            folder: "/srv/shop".into(),
            files: vec!["a.yaml".into(), "/srv/b.yaml".into()],
            sidecar_of: Some("web".to_owned()),
            running,
            started: String::new(),
            error: String::new(),
            joined: joined.map(str::to_owned),
        };
        assert_eq!(found, [of("1", "web-net", false, None), of("2", "web", true, Some("1"))]);
    }
}
