//! The report as text of several kinds.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use portcullis_api::{DecidingPolicy, Transport};

use crate::paste::{Fix, Paste};
use crate::readiness::confidence::Level;
use crate::readiness::exception::Exception;
use crate::readiness::model::{Client, Port, PortReadiness, Readiness, What};
use crate::render::{self, Form, RenderError};
use crate::text::{ago, count, length, list, percent};
use crate::view::{Case, Finding, Level as FindingLevel, Outcome, Rule, Section, Table, View};

/// How many clients or workloads a line names.
const NAMED: usize = 5;

impl Readiness {
    /// The report in a format.
    ///
    /// # Errors
    /// If JSON or YAML cannot be made of it.
    pub fn render(&self, form: Form) -> Result<String, RenderError> {
        render::render(self, form)
    }
}

impl Port {
    /// `name:port`.
    fn label(&self) -> String {
        format!("{}:{}", self.workload.name, self.port)
    }

    /// `namespace/name:port`.
    fn full(&self) -> String {
        format!("{}/{}", self.workload.namespace, self.label())
    }

    fn now(&self) -> String {
        let modes: BTreeSet<&str> = self.modes.iter().map(|mode| mode.mode.as_str()).collect();
        modes.into_iter().collect::<Vec<_>>().join("/")
    }

    fn share(&self) -> String {
        match self.mtls_connections.saturating_add(self.other_connections) {
            0 => "-".to_owned(),
            all => percent(self.mtls_connections, all),
        }
    }

    fn clients(&self) -> String {
        let clients: Vec<String> = self.clients.iter().map(Client::shown).collect();
        let clients = if clients.is_empty() { "-".to_owned() } else { list(&clients, NAMED) };
        match self.notes.first() {
            Some(note) => format!("{clients} ({note})"),
            None => clients,
        }
    }

    fn policies(&self) -> String {
        let policies: BTreeSet<String> = self.modes.iter().map(|mode| written(&mode.decided_by)).collect();
        list(&policies.into_iter().collect::<Vec<_>>(), NAMED)
    }

    /// Whose exception it is, why, and what it lets in.
    fn excepted(&self, exception: &Exception, readiness: &Readiness) -> String {
        let clients: Vec<String> = self.clients.iter().map(Client::shown).collect();
        let used = match clients.as_slice() {
            [] => "no client without mTLS was seen, so it may not be needed".to_owned(),
            clients => format!("used by {}", list(clients, NAMED)),
        };
        let Exception { policy, reason, .. } = exception;
        let terms = exception.terms(readiness.as_of);
        format!("{} {} by {policy}: {reason}; {terms}; {used}", self.label(), self.now())
    }

    /// What is wrong, in a sentence.
    fn message(&self) -> String {
        let full = self.full();
        match self.verdict {
            PortReadiness::Enforced => format!("{full} is STRICT already"),
            PortReadiness::Exception => format!("{full} is a documented exception"),
            PortReadiness::Ready => format!("{full}: every connection was mTLS"),
            PortReadiness::NoData => format!("{full}: no connection was let through in the window"),
            PortReadiness::NotReady => {
                let who: Vec<String> = self.clients.iter().map(Client::shown).collect();
                format!(
                    "{full}: STRICT would refuse {}: {}",
                    count(self.clients.len() as u64, "client"),
                    list(&who, NAMED)
                )
            }
        }
    }
}

impl Client {
    /// With its address if it has a name, and what it speaks if it is not plaintext.
    pub(crate) fn shown(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut details = Vec::new();
        if addresses.first() != Some(&self.client) && !addresses.is_empty() {
            details.push(list(&addresses, 2));
        }
        if self.what == What::OwnTls {
            details.push("TLS".to_owned());
        }
        if details.is_empty() { self.client.clone() } else { format!("{} ({})", self.client, details.join(", ")) }
    }

    fn details(&self, port: &Port, readiness: &Readiness) -> String {
        let mut text = format!("{} -> {}: {}", self.shown(), port.label(), self.what.as_str());
        if let Some(sidecar) = self.sidecar.as_ref().filter(|sidecar| **sidecar != self.client) {
            let _infallible = write!(text, " ({sidecar})");
        }
        let _infallible = write!(
            text,
            "; {}, first {}, last {}",
            count(self.connections, "connection"),
            ago(self.first_seen, readiness.as_of),
            ago(self.last_seen, readiness.as_of)
        );
        if let Some(interval) = self.interval_seconds.filter(|interval| *interval > 0) {
            let _infallible = write!(text, ", about every {}", length(interval));
        }
        text
    }
}

/// `namespace/name (file:line)`, or `default`.
fn written(by: &DecidingPolicy) -> String {
    match (&by.file, by.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", by.label()),
        _ => by.label(),
    }
}

impl View for Readiness {
    fn kind(&self) -> &'static str {
        "ReadinessReport"
    }

    fn title(&self) -> String {
        format!("Readiness for STRICT over {}", length(self.window_seconds))
    }

    fn table(&self, is_wide: bool) -> Table {
        let namespaces: BTreeSet<&str> = self.items.iter().map(|port| port.workload.namespace.as_str()).collect();
        let with_namespace = is_wide || namespaces.len() > 1;
        let mut header = vec!["WORKLOAD", "PORT", "NOW", "MTLS", "PLAINTEXT CLIENTS", "LAST SEEN", "VERDICT"];
        if with_namespace {
            header.insert(0, "NAMESPACE");
        }
        if is_wide {
            header.extend(["CONFIDENCE", "CONNECTIONS", "REFUSED", "OBSERVED", "DECIDED BY"]);
        }
        let row = |port: &Port| {
            let last = port.last_seen.map_or_else(|| "-".to_owned(), |last| ago(last, self.as_of));
            let verdict = port.verdict.as_str().to_owned();
            let (name, number) = (port.workload.name.clone(), port.port.to_string());
            let mut row = vec![name, number, port.now(), port.share(), port.clients(), last, verdict];
            if with_namespace {
                row.insert(0, port.workload.namespace.clone());
            }
            if is_wide {
                row.extend([
                    port.confidence.level.as_str().to_owned(),
                    port.mtls_connections.saturating_add(port.other_connections).to_string(),
                    port.refused_connections.to_string(),
                    length(port.observed_seconds),
                    port.policies(),
                ]);
            }
            row
        };
        Table { header, rows: self.items.iter().map(row).collect() }
    }

    fn summary(&self) -> Vec<String> {
        let is = |verdict: PortReadiness| move |port: &&Port| port.verdict == verdict;
        let ready = self
            .items
            .iter()
            .filter(|port| matches!(port.verdict, PortReadiness::Ready | PortReadiness::Enforced))
            .count();
        let mut summary = format!("{ready} of {} ready.", self.items.len());
        let at = summary.len();
        for (verdict, words) in [(PortReadiness::NotReady, "Not ready"), (PortReadiness::NoData, "No connection seen")]
        {
            let labels: Vec<String> = self.items.iter().filter(is(verdict)).map(Port::label).collect();
            if !labels.is_empty() {
                let _infallible = write!(summary, " {words}: {}.", list(&labels, NAMED));
            }
        }
        let is_open = |port: &&Port| !matches!(port.verdict, PortReadiness::Enforced | PortReadiness::Exception);
        let open = || self.items.iter().filter(is_open);
        if let Some(shortest) = open().map(|port| port.observed_seconds).min() {
            let level = open().map(|port| port.confidence.level).min().unwrap_or(Level::Low);
            let _infallible = write!(
                summary,
                " Shortest observation {} (window {}, required {}): confidence {}",
                length(shortest),
                length(self.window_seconds),
                length(self.min_observation_seconds),
                level.as_str()
            );
        }
        let exceptions = self.items.iter().filter(is(PortReadiness::Exception)).count();
        if exceptions > 0 {
            summary.insert_str(at, &format!(" {}.", count(exceptions as u64, "exception")));
        }
        let mut lines = vec![summary];
        let reasons: BTreeSet<&String> = open().flat_map(|port| port.confidence.reasons.iter().take(1)).collect();
        lines.extend(reasons.into_iter().take(NAMED).map(|reason| format!("Confidence: {reason}")));
        lines.extend(self.unanswered.iter().map(|it| format!("No answer from {}: {}", it.address, it.message)));
        if !self.without_sidecar.is_empty() {
            let names: Vec<String> = self
                .without_sidecar
                .iter()
                .map(|it| format!("{}/{} ({})", it.namespace, it.name, it.written))
                .collect();
            lines.push(format!("Without a sidecar, by the service directory: {}", list(&names, NAMED)));
        }
        if self.items.is_empty() {
            lines.push("No port was observed. Is the namespace right, and does a sidecar answer?".to_owned());
        }
        lines
    }

    fn sections(&self) -> Vec<Section> {
        let mut clients = Section::new("Clients that STRICT would refuse");
        let mut exceptions = Section::new("Exceptions");
        let mut refused = Section::new("Refused already");
        for port in &self.items {
            if port.verdict == PortReadiness::NotReady {
                for client in &port.clients {
                    clients.add(client.details(port, self), client.fixes.clone());
                }
            }
            if let Some(exception) = &port.exception {
                exceptions.add(port.excepted(exception, self), Vec::new());
            }
            for it in &port.refused {
                let why = it.last.as_ref().map_or_else(String::new, |last| {
                    format!(", last {} ({}, policy {})", ago(last.at, self.as_of), last.reason, last.policy)
                });
                let times = count(it.connections, "connection");
                let spoken = match it.transport {
                    Transport::Unknown => String::new(),
                    known => format!(" ({})", known.as_str()),
                };
                refused.add(format!("{} -> {}: {times}{spoken}{why}", it.client, port.label()), Vec::new());
            }
        }
        vec![clients, exceptions, refused]
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = self
            .items
            .iter()
            .map(|port| {
                let details: Vec<String> = port.clients.iter().map(|client| client.details(port, self)).collect();
                let mut details = details.join("\n");
                for Fix { what, paste } in port.clients.iter().filter_map(|client| client.fixes.first()) {
                    let (Paste::Command(text) | Paste::Yaml(text)) = paste;
                    let _infallible = write!(details, "\nFix: {what}:\n{text}");
                }
                let too_short = port.observed_seconds < self.min_observation_seconds;
                let outcome = match port.verdict {
                    PortReadiness::NotReady => Outcome::Failed { kind: "NOT READY", message: port.message(), details },
                    PortReadiness::NoData => Outcome::Error { kind: "NO DATA", message: port.message() },
                    PortReadiness::Ready if too_short => {
                        let message = format!("{}: observed for {} only", port.full(), length(port.observed_seconds));
                        Outcome::Error { kind: "TOO LITTLE", message }
                    }
                    PortReadiness::Ready | PortReadiness::Exception | PortReadiness::Enforced => Outcome::Passed,
                };
                Case { class: format!("readiness.{}", port.workload.namespace), name: port.label(), outcome }
            })
            .collect();
        cases.extend(self.unanswered.iter().map(|it| Case {
            class: "readiness.sidecars".to_owned(),
            name: it.address.clone(),
            outcome: Outcome::Error { kind: "UNREACHABLE", message: it.message.clone() },
        }));
        cases
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for port in &self.items {
            let (rule, level) = match port.verdict {
                PortReadiness::NotReady if port.clients.iter().all(|client| client.what == What::OwnTls) => {
                    (Rule::TlsClient, FindingLevel::Error)
                }
                PortReadiness::NotReady => (Rule::PlaintextClient, FindingLevel::Error),
                PortReadiness::NoData => (Rule::NotObserved, FindingLevel::Warning),
                PortReadiness::Ready if port.observed_seconds < self.min_observation_seconds => {
                    (Rule::NotObserved, FindingLevel::Warning)
                }
                PortReadiness::Ready | PortReadiness::Exception | PortReadiness::Enforced => continue,
            };
            let by = port.modes.first().map(|mode| &mode.decided_by);
            let location = by.and_then(|by| Some((by.file.clone()?, by.line?)));
            findings.push(Finding { rule, level, message: port.message(), location, subject: port.full() });
        }
        findings.extend(self.unanswered.iter().map(|it| Finding {
            rule: Rule::Unreachable,
            level: FindingLevel::Warning,
            message: format!("{} did not answer: {}", it.address, it.message),
            location: None,
            subject: it.address.clone(),
        }));
        findings
    }
}
