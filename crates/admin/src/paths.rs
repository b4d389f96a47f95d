//! The table of paths. Methods, help, index and the answer to an unknown path are all made from it.

use hyper::Method;

use crate::state::{Change, Page};

/// What a path is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    Ready,
    Live,
    Metrics,
    Index,
    Help,
    Page(Page),
    Explain,
    Logging,
    Change(Change),
}

/// One path.
pub(crate) struct Row {
    pub(crate) path: &'static str,
    pub(crate) what: What,
    /// A short description.
    pub(crate) says: &'static str,
}

const fn row(path: &'static str, what: What, says: &'static str) -> Row {
    Row { path, what, says }
}

pub(crate) const ROWS: [Row; 17] = [
    row("/", What::Index, "this page, with links and buttons"),
    row("/help", What::Help, "every path, as text"),
    row("/config_dump", What::Page(Page::ConfigDump), "everything in force but secrets"),
    row("/certs", What::Page(Page::Certs), "own certificate and the roots that peers are verified against"),
    row("/listeners", What::Page(Page::Listeners), "addresses that are listened on"),
    row("/policies", What::Page(Page::Policies), "policies in force, and what is wrong with newer files"),
    row("/connections", What::Page(Page::Connections), "connections that are open now"),
    row("/explain", What::Explain, "?port=N: which policy holds for a port, and why not the others"),
    row("/server_info", What::Page(Page::ServerInfo), "version, state and age of the process"),
    row("/logging", What::Logging, "the log level; POST ?level=debug or ?level=access=off changes it"),
    row("/healthz/ready", What::Ready, "200 when ready, otherwise what is pending"),
    row("/ready", What::Ready, "the same"),
    row("/healthz/live", What::Live, "200 while the process lives"),
    row("/stats/prometheus", What::Metrics, "metrics"),
    row("/metrics", What::Metrics, "the same"),
    row(
        "/drain_listeners",
        What::Change(Change::DrainListeners),
        "stop accepting inbound connections; the process stays",
    ),
    row("/quitquitquit", What::Change(Change::Quit), "drain and end, as SIGTERM does"),
];

impl What {
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
}

impl Serves {
    const fn has(self, what: What) -> bool {
        match self {
            Self::All => true,
            Self::Health => matches!(what, What::Ready | What::Live),
            Self::Metrics => matches!(what, What::Metrics),
        }
    }

    /// What a path is on an address of this kind.
    pub(crate) fn find(self, path: &str) -> Option<What> {
        self.rows().find(|row| row.path == path).map(|row| row.what)
    }

    pub(crate) fn rows(self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(move |row| self.has(row.what))
    }

    /// Every path with its methods, one a line.
    pub(crate) fn help(self) -> String {
        self.rows().map(|Row { path, what, says }| format!("{:<16} {path:<18} {says}\n", what.allow())).collect()
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
            let changes = matches!(row.what, What::Change(_) | What::Logging);
            assert_eq!(row.what.allows(&Method::POST), changes, "{}", row.path);
            assert_eq!(row.what.allows(&Method::GET), !matches!(row.what, What::Change(_)), "{}", row.path);
            assert!(!row.what.allows(&Method::PUT) && !row.what.allows(&Method::OPTIONS));
        }
    }

    #[test]
    fn other_addresses_serve_health_or_metrics_and_change_nothing() {
        for serves in [Serves::Health, Serves::Metrics] {
            assert!(serves.rows().all(|row| row.what.is_public()), "{serves:?}");
            assert_eq!(serves.find("/"), None);
        }
    }
}
