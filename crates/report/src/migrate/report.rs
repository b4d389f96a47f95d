//! The migration as text of several kinds.

use std::collections::BTreeSet;

use crate::migrate::build::clients;
use crate::migrate::model::{Blocker, Namespace, Standing};
use crate::migrate::step::{Migration, Step};
use crate::render::{self, Form, RenderError};
use crate::text::{ago, count, length, list};
use crate::view::{Case, Finding, Level, Outcome, Rule, Section, Table, View};

/// How many clients a cell names.
const NAMED: usize = 3;

impl Migration {
    /// The report in a format.
    ///
    /// # Errors
    /// If JSON or YAML cannot be made of it.
    pub fn render(&self, form: Form) -> Result<String, RenderError> {
        render::render(self, form)
    }

    /// The step in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        format!("Step {} of 5: {}", self.step.number(), self.step.as_str())
    }

    /// What comes next, in one line.
    #[must_use]
    pub fn outlook(&self) -> String {
        let blocked = || {
            let names: Vec<&str> = self
                .namespaces
                .iter()
                .filter(|it| !matches!(it.standing, Standing::Done | Standing::Ready))
                .map(|it| it.namespace.as_str())
                .collect();
            list(&names, NAMED)
        };
        match (&self.next, self.step) {
            (Some(next), _) => {
                let of =
                    if next.namespace == self.root_namespace { "the mesh".to_owned() } else { next.namespace.clone() };
                let forced = next.forced.as_ref().map_or("", |_| ", FORCED");
                let command = self.command.as_deref().unwrap_or_default();
                format!("Next: {} for {of} ({}/{}{forced}): `{command}`", next.mode, next.namespace, next.name)
            }
            (None, Step::Done) => match self.namespaces.iter().map(|it| it.exceptions.len() as u64).sum() {
                0 => "Nothing is left to do.".to_owned(),
                exceptions => format!("Nothing is left to do, but for {}.", count(exceptions, "documented exception")),
            },
            (None, Step::UndocumentedExceptions) => {
                "Give each exception an owner, a reason and an end (annotations portcullis/owner, reason, expires), or remove it.".to_owned()
            }
            (None, _) if self.namespaces.is_empty() => "No sidecar was seen, so nothing can be suggested.".to_owned(),
            (None, Step::StrictMesh) if !self.unanswered.is_empty() => {
                "Nothing is suggested while a sidecar does not answer.".to_owned()
            }
            (None, _) => format!("Nothing can be switched now; see {}.", blocked()),
        }
    }
}

impl Namespace {
    fn why(&self) -> String {
        if self.standing == Standing::Blocked {
            let who: BTreeSet<String> = self.blockers.iter().map(|it| it.client.clone()).collect();
            return list(&who.into_iter().collect::<Vec<_>>(), NAMED);
        }
        match (self.standing, self.unknown.first()) {
            (Standing::Unknown, Some(first)) => first.clone(),
            (Standing::Unreachable, _) => "a sidecar did not answer".to_owned(),
            (Standing::Disabled, _) => "nobody looks at what clients speak; PERMISSIVE first".to_owned(),
            _ => "-".to_owned(),
        }
    }
}

fn since(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), length)
}

impl View for Migration {
    fn kind(&self) -> &'static str {
        "MigrationReport"
    }

    fn title(&self) -> String {
        format!("Migration to STRICT: step {} of 5", self.step.number())
    }

    fn table(&self, is_wide: bool) -> Table {
        let mut header = vec!["NAMESPACE", "NOW", "SINCE", "PORTS", "STANDING", "BLOCKED BY"];
        if is_wide {
            header.extend(["CONNECTIONS", "EXCEPTIONS", "DECIDED BY"]);
        }
        let row = |it: &Namespace| {
            let mut row = vec![
                it.namespace.clone(),
                it.mode.to_string(),
                since(it.mode_seconds),
                it.ports.to_string(),
                it.standing.as_str().to_owned(),
                it.why(),
            ];
            if is_wide {
                let kept: Vec<&String> = it.exceptions.iter().chain(&it.undocumented).collect();
                let exceptions = if kept.is_empty() { "-".to_owned() } else { list(&kept, NAMED) };
                let by = it.decided_by.clone().unwrap_or_else(|| "default".to_owned());
                row.extend([it.connections.to_string(), exceptions, by]);
            }
            row
        };
        Table { header, rows: self.namespaces.iter().map(row).collect() }
    }

    fn summary(&self) -> Vec<String> {
        let by = self.mesh_decided_by.as_deref().unwrap_or("default");
        let age = self.mesh_mode_seconds.map_or_else(String::new, |seconds| format!(" for {}", length(seconds)));
        let mut lines = vec![
            format!("{}.", self.headline()),
            format!("The mesh is {}{age}, by {by}.", self.mesh_mode),
            self.outlook(),
        ];
        if !self.redundant.is_empty() {
            let commands: Vec<String> = self
                .redundant
                .iter()
                .filter_map(|it| it.split_once('/'))
                .map(|(namespace, name)| format!("`portcullis delete pa/{name} -n {namespace}{}`", self.folder))
                .collect();
            let names = list(&self.redundant, NAMED);
            lines
                .push(format!("Redundant, since the mesh says the same: {names}; remove with {}", commands.join(", ")));
        }
        lines.extend(self.unanswered.iter().map(|it| format!("No answer from {}: {}", it.address, it.message)));
        lines
    }

    fn sections(&self) -> Vec<Section> {
        let mut blockers = Section::new("Clients that STRICT would refuse");
        let mut unknown = Section::new("Not known");
        let mut exceptions = Section::new("Exceptions that stay");
        let mut undocumented = Section::new("Exceptions that are not documented");
        for it in &self.namespaces {
            for Blocker { client, workload, port, last_seen } in &it.blockers {
                let seen = ago(*last_seen, self.as_of);
                blockers.add(format!("{client} -> {}/{workload}:{port}, last {seen}", it.namespace), Vec::new());
            }
            for why in &it.unknown {
                unknown.add(format!("{}/{why}", it.namespace), Vec::new());
            }
            for exception in &it.exceptions {
                exceptions.add(format!("{}/{exception}", it.namespace), Vec::new());
            }
            for open in &it.undocumented {
                undocumented.add(format!("{}/{open}", it.namespace), Vec::new());
            }
        }
        vec![blockers, unknown, exceptions, undocumented]
    }

    fn cases(&self) -> Vec<Case> {
        let case = |it: &Namespace| {
            let outcome = match it.standing {
                Standing::Done | Standing::Ready | Standing::Disabled => Outcome::Passed,
                Standing::Blocked => Outcome::Failed {
                    kind: "BLOCKED",
                    message: format!("{}: {} would be refused", it.namespace, clients(it.blockers.len())),
                    details: it.why(),
                },
                Standing::Unknown | Standing::Unreachable => {
                    Outcome::Error { kind: it.standing.as_str(), message: format!("{}: {}", it.namespace, it.why()) }
                }
            };
            Case { class: "migrate".to_owned(), name: it.namespace.clone(), outcome }
        };
        self.namespaces.iter().map(case).collect()
    }

    fn findings(&self) -> Vec<Finding> {
        let finding = |it: &Namespace| {
            let (rule, level) = match it.standing {
                Standing::Blocked => (Rule::PlaintextClient, Level::Error),
                Standing::Unknown => (Rule::NotObserved, Level::Warning),
                Standing::Unreachable => (Rule::Unreachable, Level::Warning),
                Standing::Done | Standing::Ready | Standing::Disabled => return None,
            };
            let message = format!("{} cannot become STRICT yet: {}", it.namespace, it.why());
            Some(Finding { rule, level, message, location: None, subject: it.namespace.clone() })
        };
        let undocumented = self.namespaces.iter().flat_map(|it| {
            it.undocumented.iter().map(|open| Finding {
                rule: Rule::ExceptionUndocumented,
                level: Level::Warning,
                message: format!("{}/{open}", it.namespace),
                location: None,
                subject: it.namespace.clone(),
            })
        });
        self.namespaces.iter().filter_map(finding).chain(undocumented).collect()
    }
}
