//! The audit as text of several kinds.

use portcullis_api::Timestamp;

use crate::audit::model::{Audit, Change, Drift, Exception, Problem};
use crate::paste::{Fix, Paste};
use crate::render::{self, Form, RenderError};
use crate::text::{ago, count, length, list};
use crate::view::{Case, Finding, Level, Outcome, Rule, Section, Table, View};

impl Audit {
    /// The report in a format.
    ///
    /// # Errors
    /// If JSON or YAML cannot be made of it.
    pub fn render(&self, form: Form) -> Result<String, RenderError> {
        render::render(self, form)
    }

    fn with(&self, problem: Problem) -> u64 {
        self.items.iter().filter(|item| item.problems.contains(&problem)).count() as u64
    }
}

impl Exception {
    /// `namespace/name`.
    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn location(&self) -> String {
        match (self.file.as_str(), self.line) {
            ("", _) => "-".to_owned(),
            (file, 0) => file.to_owned(),
            (file, line) => format!("{file}:{line}"),
        }
    }

    /// As it is written, and how long that is from now.
    fn end(&self, now: Timestamp) -> String {
        let Some(text) = &self.expires else { return "-".to_owned() };
        match self.expires_at {
            None => format!("{text} (no date)"),
            Some(at) if at <= now => format!("{text} (EXPIRED)"),
            Some(at) => format!("{text} ({})", length(at.seconds_since(now))),
        }
    }

    fn age(&self, now: Timestamp) -> String {
        self.created
            .or(self.written)
            .map_or_else(|| "<unknown>".to_owned(), |created| length(now.seconds_since(created)))
    }

    fn used(&self, now: Timestamp) -> String {
        let Some(used) = self.used else { return "-".to_owned() };
        match used.last_seen {
            None => "0".to_owned(),
            Some(last) => format!("{} by {}, {}", used.connections, count(used.clients, "client"), ago(last, now)),
        }
    }

    fn problems(&self) -> String {
        self.problems.iter().map(|problem| problem.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What is wrong, in a sentence.
    fn message(&self) -> String {
        format!("{} {} ({}, {}): {}", self.kind, self.label(), self.scope, self.mode, self.problems())
    }

    fn fix(&self, now: Timestamp) -> Vec<Fix> {
        if self.kind == "Configuration" {
            return vec![Fix {
                what:
                    "say which mode holds for the whole mesh (`portcullis readiness` says who would break under STRICT)"
                        .to_owned(),
                paste: Paste::Yaml(format!(
                    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n  namespace: {}\nspec:\n  mtls:\n    mode: STRICT\n",
                    self.namespace
                )),
            }];
        }
        if self.problems.contains(&Problem::Expired) {
            let what = format!("remove it from {}, or decide anew and set another end", self.location());
            let short = match self.kind {
                "PeerAuthentication" => "pa",
                "AuthorizationPolicy" => "ap",
                "DestinationRule" => "dr",
                "ServiceEntry" => "se",
                _ => "we",
            };
            let command = format!("portcullis delete {short} {} -n {}", self.name, self.namespace);
            return vec![Fix { what, paste: Paste::Command(command) }];
        }
        let day = Timestamp::from_unix(now.unix().saturating_add(30 * Timestamp::SECONDS_A_DAY)).to_string();
        let day = day.split('T').next().unwrap_or_default().to_owned();
        let lines: String = self
            .problems
            .iter()
            .map(|problem| match problem {
                Problem::NoOwner => "    portcullis/owner: TEAM\n".to_owned(),
                Problem::NoReason => "    portcullis/reason: WHY\n".to_owned(),
                Problem::NoEnd | Problem::NoDate | Problem::Expired => format!("    portcullis/expires: \"{day}\"\n"),
            })
            .collect();
        let what = format!("document it at {}", self.location());
        vec![Fix { what, paste: Paste::Yaml(format!("metadata:\n  annotations:\n{lines}")) }]
    }
}

impl Drift {
    fn message(&self) -> String {
        let changes: Vec<String> = self.changes.iter().map(Change::shown).collect();
        let by = self.owner.as_ref().map_or_else(|| "no owner".to_owned(), |owner| format!("owner {owner}"));
        let changes = if changes.is_empty() { String::new() } else { format!(": {}", changes.join(", ")) };
        format!(
            "{} {} {}/{} ({}), {by}, {}{changes}",
            self.kind.as_str(),
            self.resource,
            self.namespace,
            self.name,
            self.scope,
            self.location
        )
    }

    /// File and line.
    fn place(&self) -> Option<(String, u32)> {
        match self.location.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
            Some((file, Ok(line))) => Some((file.to_owned(), line)),
            _ if self.location.is_empty() => None,
            _ => Some((self.location.clone(), 0)),
        }
    }
}

impl Change {
    fn shown(&self) -> String {
        match (&self.before, &self.after) {
            (None, Some(after)) => format!("{} {after}", self.field),
            (before, after) => {
                let [before, after] = [before, after].map(|value| value.as_deref().unwrap_or("none"));
                format!("{} {before} -> {after}", self.field)
            }
        }
    }
}

impl View for Audit {
    fn kind(&self) -> &'static str {
        "AuditReport"
    }

    fn title(&self) -> String {
        "Exceptions from mTLS".to_owned()
    }

    fn table(&self, is_wide: bool) -> Table {
        let mut header = vec!["NAMESPACE", "NAME", "SCOPE", "MODE", "OWNER", "REASON", "EXPIRES", "AGE", "FILE:LINE"];
        if self.is_observed {
            header.push("USED");
        }
        if is_wide {
            header.extend(["KIND", "SELECTOR", "PROBLEMS"]);
        }
        let row = |item: &Exception| {
            let none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let mut row = vec![
                item.namespace.clone(),
                item.name.clone(),
                item.scope.clone(),
                item.mode.clone(),
                none(&item.owner),
                none(&item.reason),
                item.end(self.as_of),
                item.age(self.as_of),
                item.location(),
            ];
            if self.is_observed {
                row.push(item.used(self.as_of));
            }
            if is_wide {
                let labels: Vec<String> = item.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
                row.extend([item.kind.to_owned(), or_none(labels.join(",")), or_none(item.problems())]);
            }
            row
        };
        Table { header, rows: self.items.iter().map(row).collect() }
    }

    fn summary(&self) -> Vec<String> {
        let bad = self.items.iter().filter(|item| !item.problems.is_empty()).count();
        let mut lines = vec![match (self.items.len(), bad) {
            (0, _) => "No exceptions: mTLS only, everywhere.".to_owned(),
            (all, 0) => format!("{}, each with owner, reason and end", count(all as u64, "exception")),
            (all, bad) => {
                let kinds = [Problem::Expired, Problem::NoDate, Problem::NoOwner, Problem::NoReason, Problem::NoEnd];
                let parts = kinds.map(|problem| (self.with(problem), problem));
                let parts = parts.into_iter().filter(|(number, _)| *number > 0);
                let parts: Vec<String> =
                    parts.map(|(number, problem)| format!("{}: {number}", problem.as_str())).collect();
                format!("{}, {bad} of them with a problem ({})", count(all as u64, "exception"), parts.join(", "))
            }
        }];
        if let Some(drift) = &self.drift {
            lines.push(match drift.len() {
                0 => "No drift from the baseline.".to_owned(),
                number => format!("{} from the baseline", count(number as u64, "difference")),
            });
        }
        if !self.unanswered.is_empty() {
            let who: Vec<&str> = self.unanswered.iter().map(|one| one.address.as_str()).collect();
            lines.push(format!("USED is not complete: no answer from {}", list(&who, 5)));
        }
        lines
    }

    fn sections(&self) -> Vec<Section> {
        let mut drift = Section::new("Drift from the baseline");
        for one in self.drift.iter().flatten() {
            drift.add(one.message(), Vec::new());
        }
        let mut findings = Section::new("To correct");
        for item in self.items.iter().filter(|item| !item.problems.is_empty()) {
            findings.add(item.message(), item.fix(self.as_of));
        }
        vec![drift, findings]
    }

    fn cases(&self) -> Vec<Case> {
        let of = |item: &Exception| Case {
            class: item.namespace.clone(),
            name: format!("{} {} {} {}", item.kind, item.label(), item.scope, item.mode),
            outcome: if item.problems.is_empty() {
                Outcome::Passed
            } else {
                Outcome::Failed { kind: "exception", message: item.message(), details: item.location() }
            },
        };
        let drift = self.drift.iter().flatten().map(|one| Case {
            class: one.namespace.clone(),
            name: format!("drift {} {}/{} {}", one.resource, one.namespace, one.name, one.scope),
            outcome: Outcome::Failed { kind: "drift", message: one.message(), details: one.location.clone() },
        });
        let silent = self.unanswered.iter().map(|one| Case {
            class: "sidecars".to_owned(),
            name: one.address.clone(),
            outcome: Outcome::Error { kind: "unreachable", message: one.message.clone() },
        });
        self.items.iter().map(of).chain(drift).chain(silent).collect()
    }

    fn findings(&self) -> Vec<Finding> {
        let of = |item: &Exception| {
            let worst = *item.problems.first()?;
            let (rule, level) = match worst {
                Problem::Expired => (Rule::ExceptionExpired, Level::Error),
                _ => (Rule::ExceptionUndocumented, Level::Warning),
            };
            let location = (!item.file.is_empty()).then(|| (item.file.clone(), item.line));
            let subject = format!("{}/{}/{}", item.kind, item.label(), item.scope);
            Some(Finding { rule, level, message: item.message(), location, subject })
        };
        let drift = self.drift.iter().flatten().map(|one| Finding {
            rule: Rule::ExceptionDrift,
            level: Level::Error,
            message: one.message(),
            location: one.place(),
            subject: format!("{}/{}/{}/{}", one.resource, one.namespace, one.name, one.scope),
        });
        self.items.iter().filter_map(of).chain(drift).collect()
    }
}
