//! The table of paths. Methods, help, index and the answer to an unknown path are all made from it.

use hyper::Method;

use crate::state::{Change, Page};

/// The content or action behind a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    Ready,
    Live,
    Metrics,
    Dashboard,
    Script,
    Events,
    Index,
    Help,
    Page(Page),
    Explain,
    Recent,
    Logging,
    Change(Change),
}

/// One path.
pub(crate) struct Row {
    pub(crate) path: &'static str,
    pub(crate) endpoint: Endpoint,
    /// A short description.
    pub(crate) summary: &'static str,
}

const fn row(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Row {
    Row { path, endpoint, summary }
}

pub(crate) const ROWS: [Row; 24] = [
    row("/", Endpoint::Dashboard, "which traffic is mTLS, and why not: a page that stays up to date"),
    row("/dashboard.js", Endpoint::Script, "the script of that page"),
    row("/events", Endpoint::Events, "its content whenever it changes, as server-sent events"),
    row("/admin", Endpoint::Index, "every path, with links and buttons"),
    row("/help", Endpoint::Help, "every path, as text"),
    row("/config_dump", Endpoint::Page(Page::ConfigDump), "everything in force but secrets"),
    row("/certs", Endpoint::Page(Page::Certs), "own certificate and the roots that peers are verified against"),
    row("/listeners", Endpoint::Page(Page::Listeners), "addresses that are listened on"),
    row("/policies", Endpoint::Page(Page::Policies), "policies in force, and what is wrong with newer files"),
    row("/connections", Endpoint::Page(Page::Connections), "connections that are open now"),
    row(
        "/observations",
        Endpoint::Page(Page::Observations),
        "who was seen talking to the workload, and to whom it talked",
    ),
    row("/changes", Endpoint::Page(Page::Changes), "policies, modes and certificates that changed since the start"),
    row("/recent", Endpoint::Recent, "connections that ended last; ?after=N&limit=N&denied=true&conn=ID&peer=WHO"),
    row("/explain", Endpoint::Explain, "?port=N: which policy holds for a port, and why not the others"),
    row("/status", Endpoint::Page(Page::Status), "what `portcullis check` evaluates and no other page says"),
    row("/server_info", Endpoint::Page(Page::ServerInfo), "version, state and age of the process"),
    row("/logging", Endpoint::Logging, "the log level; POST ?level=debug or ?level=access=off changes it"),
    row("/healthz/ready", Endpoint::Ready, "200 when ready, otherwise what is pending"),
    row("/ready", Endpoint::Ready, "the same"),
    row("/healthz/live", Endpoint::Live, "200 while the process lives"),
    row("/stats/prometheus", Endpoint::Metrics, "metrics"),
    row("/metrics", Endpoint::Metrics, "the same"),
    row(
        "/drain_listeners",
        Endpoint::Change(Change::DrainListeners),
        "stop accepting inbound connections; the process stays",
    ),
    row("/quitquitquit", Endpoint::Change(Change::Quit), "drain and end, as SIGTERM does"),
];

impl Endpoint {
    /// Health and metrics, which probes and scrapers request under any host name.
    pub(crate) const fn is_public(self) -> bool {
        matches!(self, Self::Ready | Self::Live | Self::Metrics)
    }

    /// The methods that are answered; the value of `Allow`.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::Change(_) => "POST",
            Self::Logging => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }

    pub(crate) fn allows(self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Which paths an address serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serves {
    /// Every path: `admin.listen`.
    All,
    /// Readiness and liveness: `health.listen`.
    Health,
    /// Metrics: `metrics.listen`.
    Metrics,
    /// The page, for a server that is no proxy.
    Page,
}

impl Serves {
    const fn has(self, endpoint: Endpoint) -> bool {
        match self {
            Self::All => true,
            Self::Health => matches!(endpoint, Endpoint::Ready | Endpoint::Live),
            Self::Metrics => matches!(endpoint, Endpoint::Metrics),
            Self::Page => matches!(
                endpoint,
                Endpoint::Dashboard | Endpoint::Script | Endpoint::Events | Endpoint::Help | Endpoint::Live
            ),
        }
    }

    /// Endpoint a path is on an address of this kind.
    pub(crate) fn find(self, path: &str) -> Option<Endpoint> {
        self.rows().find(|row| row.path == path).map(|row| row.endpoint)
    }

    pub(crate) fn rows(self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(move |row| self.has(row.endpoint))
    }

    /// Every path with its methods, one a line.
    pub(crate) fn help(self) -> String {
        self.rows()
            .map(|Row { path, endpoint, summary }| format!("{:<16} {path:<18} {summary}\n", endpoint.allow()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_path_is_there_once() {
        let paths: HashSet<_> = ROWS.iter().map(|row| row.path).collect();
        assert_eq!(paths.len(), ROWS.len());
    }

    #[test]
    fn a_change_takes_a_post_and_nothing_else_does() {
        for row in &ROWS {
            let changes = matches!(row.endpoint, Endpoint::Change(_) | Endpoint::Logging);
            assert_eq!(row.endpoint.allows(&Method::POST), changes, "{}", row.path);
            assert_eq!(row.endpoint.allows(&Method::GET), !matches!(row.endpoint, Endpoint::Change(_)), "{}", row.path);
            assert!(!row.endpoint.allows(&Method::PUT) && !row.endpoint.allows(&Method::OPTIONS));
        }
    }

    #[test]
    fn other_addresses_serve_health_or_metrics_and_change_nothing() {
        for serves in [Serves::Health, Serves::Metrics] {
            assert!(serves.rows().all(|row| row.endpoint.is_public()), "{serves:?}");
            assert_eq!(serves.find("/"), None);
        }
    }
}
