//! Whether the services of a generated file run as it says: each in the network namespace of its own sidecar.

use std::fmt;

/// A container of the project.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Container {
    /// The engine's ID.
    pub id: String,
    /// The service, as Compose has labelled it.
    pub service: String,
    /// Whether it runs.
    pub running: bool,
    /// When it was started last: RFC 3339 in UTC, as the engine writes it.
    pub started: String,
    /// The container whose network namespace it joins whenever it starts.
    pub joined: Option<String>,
    /// Whether the engine failed to start it the last time that it tried.
    pub failed: bool,
}

/// How a service that has a sidecar runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceState {
    /// In the network namespace of its sidecar, whose proxy runs.
    Captured,
    /// It does not run, so nothing bypasses the sidecar.
    NotRunning,
    /// The engine tried to start it, failed, and does not try again.
    NotStarted,
    /// In a network of its own: what it sends and receives is plaintext, and no policy applies.
    Bypassed,
    /// In the network namespace of a holder that was replaced or restarted since.
    Orphaned,
    /// In the right namespace, whose proxy does not run: nothing gets in or out.
    NoProxy,
}

impl ServiceState {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::NotRunning => "not-running",
            Self::NotStarted => "not-started",
            Self::Bypassed => "bypassed",
            Self::Orphaned => "orphaned",
            Self::NoProxy => "no-proxy",
        }
    }

    /// What it means.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Captured => "in the network namespace of its sidecar",
            Self::NotRunning => "has no running container",
            Self::NotStarted => {
                "the engine failed to start it, mostly because it came before the holder of its network, and does not try again"
            }
            Self::Bypassed => {
                "runs in a network of its own, in plaintext and without a policy: it was started from a file without its sidecar"
            }
            Self::Orphaned => "its network namespace was replaced, and it has no network until it is restarted",
            Self::NoProxy => "its sidecar does not run: nothing gets in or out",
        }
    }

    /// The subcommands of Compose that mend it, in order.
    #[must_use]
    pub fn mending(self, service: &str) -> Vec<String> {
        let up = || "up --detach".to_owned();
        match self {
            Self::Captured => Vec::new(),
            Self::NotRunning | Self::NotStarted | Self::NoProxy => vec![up()],
            // Ports that it has published are the holder's.
            Self::Bypassed => vec![format!("stop {service}"), up()],
            // Compose sees no difference in what has only lost its namespace.
            Self::Orphaned => vec![up(), format!("restart {service}")],
        }
    }

    /// The state of `service` among the containers of its project.
    #[must_use]
    pub fn of(service: &str, containers: &[Container]) -> Self {
        let names = crate::names::SidecarNames::of(service);
        let running = |name: &str| -> Vec<&Container> {
            containers.iter().filter(|container| container.service == name && container.running).collect()
        };
        let holders = running(&names.holder);
        let in_holder = |container: &Container| {
            // A holder that was restarted since has another namespace.
            let is_present = |holder: &&&Container| key(&holder.started) <= key(&container.started);
            container.joined.as_ref().map(|id| holders.iter().filter(is_present).any(|holder| holder.id == *id))
        };
        // One that bypasses its sidecar counts more than one that does not.
        let apps: Vec<Option<bool>> = running(service).into_iter().map(in_holder).collect();
        if apps.is_empty() {
            let failed = containers.iter().any(|container| container.service == service && container.failed);
            if failed { Self::NotStarted } else { Self::NotRunning }
        } else if apps.contains(&None) {
            Self::Bypassed
        } else if apps.contains(&Some(false)) {
            Self::Orphaned
        } else if !running(&names.proxy).iter().any(|proxy| in_holder(proxy) == Some(true)) {
            Self::NoProxy
        } else {
            Self::Captured
        }
    }
}

/// By which times are compared as texts: the engine leaves out zeros at the end of the fraction.
fn key(time: &str) -> (&str, &str) {
    let time = time.trim_end_matches('Z');
    time.split_once('.').unwrap_or((time, ""))
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The services that a sidecar of `service` consists of, in the order in which they start.
#[must_use]
pub fn sidecar_services(service: &str) -> [String; 3] {
    crate::names::SidecarNames::of(service).services().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, service: &str, joined: Option<&str>) -> Container {
        let started = "2026-11-30T08:00:00.25Z".to_owned();
        let joined = joined.map(str::to_owned);
        Container { id: id.to_owned(), service: service.to_owned(), running: true, started, joined, failed: false }
    }

    #[test]
    fn a_service_is_captured_only_beside_a_running_proxy_in_the_present_namespace() {
        let net = || container("1", "web-net", None);
        let proxy = |joined| container("2", "web-proxy", Some(joined));
        let app = |joined| container("3", "web", joined);
        let stopped = |mut container: Container| {
            container.running = false;
            container
        };
        let failed = |mut container: Container| {
            container.failed = true;
            container
        };
        let at = |time: &str, mut container: Container| {
            time.clone_into(&mut container.started);
            container
        };
        for (containers, expected) in [
            (vec![at("2026-11-30T08:00:00.3Z", net()), proxy("1"), app(Some("1"))], ServiceState::Orphaned),
            (vec![at("2026-11-30T08:00:00.2Z", net()), proxy("1"), app(Some("1"))], ServiceState::Captured),
            (vec![at("2026-11-30T08:00:00Z", net()), proxy("1"), app(Some("1"))], ServiceState::Captured),
            (vec![net(), proxy("1"), app(Some("1"))], ServiceState::Captured),
            (vec![net(), proxy("1")], ServiceState::NotRunning),
            (vec![net(), proxy("1"), stopped(app(Some("1")))], ServiceState::NotRunning),
            (vec![net(), proxy("1"), failed(stopped(app(Some("1"))))], ServiceState::NotStarted),
            (vec![net(), proxy("1"), failed(app(Some("1")))], ServiceState::Captured),
            (vec![net(), proxy("1"), app(None)], ServiceState::Bypassed),
            (vec![net(), proxy("1"), app(Some("1")), app(None)], ServiceState::Bypassed),
            (vec![app(None)], ServiceState::Bypassed),
            (vec![net(), proxy("1"), app(Some("0"))], ServiceState::Orphaned),
            (vec![stopped(net()), proxy("1"), app(Some("1"))], ServiceState::Orphaned),
            (vec![net(), stopped(proxy("1")), app(Some("1"))], ServiceState::NoProxy),
            (vec![net(), proxy("0"), app(Some("1"))], ServiceState::NoProxy),
        ] {
            assert_eq!(ServiceState::of("web", &containers), expected, "{containers:?}");
        }
    }
}
