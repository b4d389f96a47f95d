//! The report as text of several kinds.

use std::collections::BTreeSet;

use crate::render::{self, Form, RenderError};
use crate::replay::model::{Change, Decider, Drift, Replay, Row};
use crate::text::{ago, count, length, list};
use crate::view::{Case, Finding, Level, Outcome, Rule, Section, Table, View};

/// How many policies or workloads a line names.
const NAMED: usize = 3;

impl Row {
    /// `namespace/name:port`.
    fn full(&self) -> String {
        format!("{}/{}:{}", self.workload.namespace, self.workload.name, self.port)
    }

    /// With what tells it from others of its name.
    fn shown(&self) -> String {
        let address = self.address.map(|address| address.to_string());
        match (&self.identity, address) {
            (None, Some(address)) if address != self.peer => format!("{} ({address})", self.peer),
            _ => self.peer.clone(),
        }
    }

    fn decided_by(&self) -> String {
        if self.decided_by.is_empty() {
            return "-".to_owned();
        }
        list(&self.decided_by.iter().map(Decider::shown).collect::<Vec<_>>(), NAMED)
    }

    fn message(&self) -> String {
        let (peer, to) = (self.shown(), self.full());
        let (by, connections) = (self.decided_by(), count(self.connections, "connection"));
        match self.change {
            Change::Loses => format!("{peer} would lose access to {to} ({connections}): {}, {by}", self.reason),
            Change::Gains => {
                format!("{peer} would gain access to {to} ({connections}): refused now, {}, {by}", self.reason)
            }
            Change::NotDecided => {
                let note = self.note.as_deref().unwrap_or_default();
                format!("whether {peer} keeps access to {to} ({connections}) is not known: {note}; {by}")
            }
        }
    }
}

impl Replay {
    /// The report in a format.
    ///
    /// # Errors
    /// If JSON or YAML cannot be made of it.
    pub fn render(&self, form: Form) -> Result<String, RenderError> {
        render::render(self, form)
    }

    fn of(&self, change: Change) -> impl Iterator<Item = &Row> {
        self.items.iter().filter(move |row| row.change == change)
    }
}

impl View for Replay {
    fn kind(&self) -> &'static str {
        "ReplayReport"
    }

    fn title(&self) -> String {
        format!("Replay of {}", length(self.window_seconds))
    }

    fn table(&self, is_wide: bool) -> Table {
        let namespaces: BTreeSet<&str> = self.items.iter().map(|row| row.workload.namespace.as_str()).collect();
        let with_namespace = is_wide || namespaces.len() > 1;
        let mut header = vec!["CHANGE", "PEER", "WORKLOAD", "PORT", "CONNECTIONS", "LAST SEEN", "REASON", "DECIDED BY"];
        if with_namespace {
            header.insert(2, "NAMESPACE");
        }
        if is_wide {
            header.extend(["TRANSPORT", "IDENTITY", "ADDRESS"]);
        }
        let row = |row: &Row| {
            let mut cells = vec![
                row.change.as_str().to_owned(),
                row.shown(),
                row.workload.name.clone(),
                row.port.to_string(),
                row.connections.to_string(),
                ago(row.last_seen, self.as_of),
                row.reason.to_owned(),
                row.decided_by(),
            ];
            if with_namespace {
                cells.insert(2, row.workload.namespace.clone());
            }
            if is_wide {
                let dash = || "-".to_owned();
                cells.push(row.transport.as_str().to_owned());
                cells.push(row.identity.clone().unwrap_or_else(dash));
                cells.push(row.address.map_or_else(dash, |address| address.to_string()));
            }
            cells
        };
        Table { header, rows: self.items.iter().map(row).collect() }
    }

    fn summary(&self) -> Vec<String> {
        let clients = |change: Change| {
            let clients: BTreeSet<(&str, String)> =
                self.of(change).map(|row| (row.peer.as_str(), row.full())).collect();
            clients.len() as u64
        };
        let (loses, gains, open) = (clients(Change::Loses), clients(Change::Gains), clients(Change::NotDecided));
        let said = match loses {
            0 => "Nobody who was let through loses access".to_owned(),
            1 => "1 client loses access".to_owned(),
            more => format!("{more} clients lose access"),
        };
        let mut lines = vec![format!(
            "{said}; {gains} gain, {open} not decided, of {} in {}",
            count(self.connections, "connection"),
            length(self.window_seconds)
        )];
        if !self.knows_policies_in_force {
            lines.push(
                "The policies in force are not known: the new ones were compared with what was let through, so nobody can gain".to_owned(),
            );
        }
        if self.connections == 0 {
            lines.push("No connection was observed in the window".to_owned());
        }
        if !self.too_short.is_empty() {
            let short: Vec<String> = self
                .too_short
                .iter()
                .map(|it| format!("{}/{} ({})", it.workload.namespace, it.workload.name, length(it.observed_seconds)))
                .collect();
            lines.push(format!("Observed for too short a time: {}", list(&short, NAMED)));
        }
        for Drift { workload, port, observed, by_policies } in self.drift.iter().take(NAMED) {
            let port = port.map_or_else(|| "every other port".to_owned(), |port| format!("port {port}"));
            lines.push(format!(
                "{port} of {}/{} is {observed} at its sidecar and {by_policies} by the policies in force that were given: are they?",
                workload.namespace, workload.name
            ));
        }
        if self.drift.len() > NAMED {
            lines.push(format!("{} more ports differ like this", self.drift.len() - NAMED));
        }
        if self.evicted > 0 {
            lines.push(format!(
                "{} observations were given up by sidecars, so connections are missing here",
                self.evicted
            ));
        }
        lines.extend(self.unanswered.iter().map(|it| format!("No answer from {}: {}", it.address, it.message)));
        lines
    }

    fn sections(&self) -> Vec<Section> {
        let mut open = Section::new("Not decided, since it was not recorded");
        for row in self.of(Change::NotDecided) {
            open.add(row.message(), Vec::new());
        }
        vec![open]
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = self
            .items
            .iter()
            .map(|row| Case {
                class: format!("replay.{}", row.workload.namespace),
                name: format!("{} -> {}:{}", row.shown(), row.workload.name, row.port),
                outcome: match row.change {
                    Change::Loses => {
                        Outcome::Failed { kind: "LOSES", message: row.message(), details: row.decided_by() }
                    }
                    Change::NotDecided => Outcome::Error { kind: "NOT DECIDED", message: row.message() },
                    Change::Gains => Outcome::Passed,
                },
            })
            .collect();
        cases.extend(self.unanswered.iter().map(|it| Case {
            class: "replay.sidecars".to_owned(),
            name: it.address.clone(),
            outcome: Outcome::Error { kind: "UNREACHABLE", message: it.message.clone() },
        }));
        cases.extend(self.too_short.iter().map(|it| Case {
            class: format!("replay.{}", it.workload.namespace),
            name: it.workload.name.clone(),
            outcome: Outcome::Error {
                kind: "TOO LITTLE",
                message: format!("observed for {} only", length(it.observed_seconds)),
            },
        }));
        cases.push(Case {
            class: "replay".to_owned(),
            name: "connections were observed".to_owned(),
            outcome: if self.connections == 0 {
                Outcome::Error { kind: "TOO LITTLE", message: "no connection was observed in the window".to_owned() }
            } else {
                Outcome::Passed
            },
        });
        cases
    }

    fn findings(&self) -> Vec<Finding> {
        let of_row = |row: &Row| {
            let (rule, level) = match row.change {
                Change::Loses => (Rule::LosesAccess, Level::Error),
                Change::NotDecided => (Rule::NotDecided, Level::Warning),
                Change::Gains => return None,
            };
            let location = row.decided_by.first().and_then(|by| Some((by.file.clone()?, by.line?)));
            Some(Finding {
                rule,
                level,
                message: row.message(),
                location,
                subject: format!("{} -> {}", row.shown(), row.full()),
            })
        };
        let mut findings: Vec<Finding> = self.items.iter().filter_map(of_row).collect();
        findings.extend(self.unanswered.iter().map(|it| Finding {
            rule: Rule::Unreachable,
            level: Level::Warning,
            message: format!("{} did not answer: {}", it.address, it.message),
            location: None,
            subject: it.address.clone(),
        }));
        findings.extend(self.too_short.iter().map(|it| Finding {
            rule: Rule::NotObserved,
            level: Level::Warning,
            message: format!(
                "{}/{} was observed for {} only",
                it.workload.namespace,
                it.workload.name,
                length(it.observed_seconds)
            ),
            location: None,
            subject: format!("{}/{}", it.workload.namespace, it.workload.name),
        }));
        findings
    }
}
