//! All files to one set: duplicates across files, conflicts, and every error in one run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use portcullis_yaml::Diagnostic;

use crate::conflict;
use crate::directory;
use crate::set::PolicySet;
use crate::source::{ParsedSource, Policy, Resource, Source};

/// The result of loading. With any error the set is not to be used.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The policies that are valid.
    pub set: PolicySet,
    /// How many documents there were, items of lists counted one by one.
    pub documents: usize,
    /// What is wrong, by file and position.
    pub errors: Vec<Diagnostic>,
    /// What is allowed but probably not intended.
    pub warnings: Vec<Diagnostic>,
}

impl PolicySet {
    /// Reads all files. The time it takes grows with their size, not faster.
    ///
    /// It never stops at an error: what is wrong in any file is in [`Loaded::errors`].
    #[must_use]
    pub fn load(sources: &[Source]) -> Loaded {
        Self::assemble(&sources.iter().map(Source::parse).collect::<Vec<_>>())
    }

    /// The same at a time: break-glass documents that have not ended then are in force, and one whose end is too far ahead is an error.
    /// Without a time none of them is in force.
    #[must_use]
    pub fn load_at(sources: &[Source], now_unix: i64) -> Loaded {
        Self::load(sources).at(now_unix)
    }

    /// Combines files that are parsed already; one that has not changed since need not be parsed again.
    #[must_use]
    pub fn assemble<'s>(sources: impl IntoIterator<Item = &'s ParsedSource>) -> Loaded {
        let mut loaded = Loaded::default();
        let mut seen: HashMap<_, String> = HashMap::new();
        for source in sources {
            loaded.documents += source.documents;
            loaded.warnings.extend_from_slice(&source.warnings);
            let start = loaded.errors.len();
            loaded.errors.extend_from_slice(&source.errors);
            for resource in &source.resources {
                match seen.entry((resource.kind, &resource.namespace, &resource.name)) {
                    Entry::Occupied(_) if source.yields => {}
                    Entry::Occupied(first) => loaded.errors.push(duplicate(source, resource, first.get())),
                    Entry::Vacant(free) => {
                        free.insert(format!("{}:{}", source.file, resource.position.line));
                        match resource.policy.clone() {
                            Some(Policy::PeerAuthentication(policy)) => loaded.set.policies.push(policy),
                            Some(Policy::BreakGlass(policy)) => loaded.set.break_glass.push(policy),
                            Some(Policy::Authorization(policy)) => loaded.set.authorization.push(Arc::new(policy)),
                            Some(Policy::ServiceEntry(entry)) => loaded.set.service_entries.push(entry),
                            Some(Policy::WorkloadEntry(entry)) => loaded.set.workload_entries.push(entry),
                            Some(Policy::DestinationRule(rule)) => loaded.set.destination_rules.push(rule),
                            None => {}
                        }
                    }
                }
            }
            for operator in &source.operators {
                loaded.set.mesh.merge(operator.clone(), &mut loaded.errors);
            }
            // By position within the file; files stay in the order in which they were given.
            if let Some(of_file) = loaded.errors.get_mut(start..) {
                of_file.sort_by_key(|found| (found.line, found.column));
            }
        }
        loaded.warnings.extend(conflict::in_set(&loaded.set.policies));
        let found = directory::check(&loaded.set);
        loaded.errors.extend(found.errors);
        loaded.warnings.extend(found.warnings);
        loaded
    }
}

impl Loaded {
    /// The same at a time, as [`PolicySet::load_at`].
    #[must_use]
    pub fn at(mut self, now_unix: i64) -> Self {
        self.errors.extend(self.set.break_glass.iter().filter_map(|it| it.check(now_unix)));
        self.set = self.set.at(now_unix);
        self
    }
}

fn duplicate(source: &ParsedSource, resource: &Resource, first: &str) -> Diagnostic {
    let message = format!(
        "{} {}/{} is at {first} already; remove one of them, or give it another name",
        resource.kind,
        portcullis_yaml::printable(&resource.namespace),
        portcullis_yaml::printable(&resource.name)
    );
    Diagnostic::at(&source.file, resource.position, "duplicate-resource", message)
}
