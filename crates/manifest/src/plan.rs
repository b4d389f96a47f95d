//! What the files become.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::document::{Object, Place, read};
use crate::edit;
use crate::id::Id;
use crate::value::{to_json, to_yaml};

/// A file of the folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TextFile {
    /// Its path.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// It is new.
    Created,
    /// It changes.
    Configured,
    /// It is the same already.
    Unchanged,
    /// It was asked to go.
    Deleted,
    /// It is not among those applied.
    Pruned,
}

impl Action {
    /// kubectl's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::Pruned => "pruned",
        }
    }
}

/// What happens to one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Which.
    pub id: Id,
    /// What.
    pub action: Action,
    /// The resource before.
    pub before: Option<Value>,
    /// The resource after.
    pub after: Option<Value>,
}

/// What happens to one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileChange {
    /// Its text before; `None`: it is new.
    pub before: Option<String>,
    /// Its text after; `None`: it goes.
    pub after: Option<String>,
}

/// What happens, as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The resources, in the order in which they were named.
    pub effects: Vec<Effect>,
    /// The files that change, by path.
    pub files: BTreeMap<String, FileChange>,
}

/// What to do with resources that are not among those applied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Prune {
    /// Leave them.
    No,
    /// Delete those of these namespaces; `None`: of all.
    Namespaces(Option<BTreeSet<String>>),
}

/// Why there is no plan.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// It is one of several in a document.
    #[error("{id} of {} is an item of a list ({path}:{line}); write the list out as documents first", id.namespace)]
    Item {
        /// Which.
        id: Id,
        /// Its file.
        path: String,
        /// Its line.
        line: u32,
    },
    /// The same resource twice.
    #[error("{id} of {} is given twice", .id.namespace)]
    Twice {
        /// Which.
        id: Id,
    },
    /// The file that it would get has others in it.
    #[error("{path} exists and holds other resources; rename it, or put {id} of {} into a file by hand", id.namespace)]
    Taken {
        /// Which.
        id: Id,
        /// The file.
        path: String,
    },
    /// It is not there.
    #[error("{} \"{}\" not found", plural(.0), .0.name)]
    NotFound(Id),
    /// A value that cannot be written.
    #[error("{0} cannot be written: {1}")]
    Unwritable(Id, String),
}

fn plural(id: &Id) -> String {
    format!("{}.{}", id.kind.plural(), id.kind.group())
}

/// The files that resources are looked up and changed in.
struct Folder<'a> {
    path: &'a str,
    before: BTreeMap<String, String>,
    now: BTreeMap<String, String>,
}

struct Found {
    path: String,
    object: Object,
}

impl<'a> Folder<'a> {
    fn new(path: &'a str, files: &[TextFile]) -> Self {
        let before: BTreeMap<_, _> = files.iter().map(|file| (file.path.clone(), file.text.clone())).collect();
        Self { path, now: before.clone(), before }
    }

    fn objects(&self) -> impl Iterator<Item = Found> {
        self.now
            .iter()
            .flat_map(|(path, text)| read(text).into_iter().map(|object| Found { path: path.clone(), object }))
    }

    fn find(&self, id: &Id) -> Option<Found> {
        self.objects().find(|found| found.object.id == *id)
    }

    fn create(&mut self, wanted: &Object) -> Result<(), PlanError> {
        let path = format!("{}/{}", self.path.trim_end_matches('/'), wanted.id.file_name());
        if self.now.contains_key(&path) {
            return Err(PlanError::Taken { id: wanted.id.clone(), path });
        }
        let text = match wanted.place {
            Place::Document(_) => edit::alone(&wanted.text),
            Place::Item => yaml(wanted)?,
        };
        self.now.insert(path, text);
        Ok(())
    }

    fn replace(&mut self, found: &Found, wanted: &Object) -> Result<(), PlanError> {
        let Place::Document(document) = found.object.place else { return Err(item(found)) };
        let is_json = found.path.ends_with(".json");
        let content = match wanted.place {
            Place::Document(_) if !is_json => edit::content(&wanted.text),
            _ if is_json => {
                to_json(&wanted.value).map_err(|error| PlanError::Unwritable(wanted.id.clone(), error.to_string()))?
            }
            _ => yaml(wanted)?,
        };
        if let Some(text) = self.now.get_mut(&found.path)
            && let Some(new) = edit::replace(text, document, &content)
        {
            *text = new;
        }
        Ok(())
    }

    fn remove(&mut self, found: &Found) -> Result<(), PlanError> {
        let Place::Document(document) = found.object.place else { return Err(item(found)) };
        match self.now.get(&found.path).and_then(|text| edit::remove(text, document)) {
            Some(text) => self.now.insert(found.path.clone(), text),
            None => self.now.remove(&found.path),
        };
        Ok(())
    }

    fn plan(self, effects: Vec<Effect>) -> Plan {
        let paths: BTreeSet<&String> = self.before.keys().chain(self.now.keys()).collect();
        let changes = paths.into_iter().filter_map(|path| {
            let (before, after) = (self.before.get(path).cloned(), self.now.get(path).cloned());
            (before != after).then(|| (path.clone(), FileChange { before, after }))
        });
        Plan { effects, files: changes.collect() }
    }
}

fn item(found: &Found) -> PlanError {
    PlanError::Item { id: found.object.id.clone(), path: found.path.clone(), line: found.object.line }
}

fn yaml(wanted: &Object) -> Result<String, PlanError> {
    to_yaml(&wanted.value).map_err(|error| PlanError::Unwritable(wanted.id.clone(), error.to_string()))
}

/// What applying these resources does to the files of a folder.
///
/// # Errors
/// If one cannot be changed where it is.
pub fn apply(folder: &str, files: &[TextFile], wanted: &[Object], prune: &Prune) -> Result<Plan, PlanError> {
    let mut folder = Folder::new(folder, files);
    let mut seen = BTreeSet::new();
    let mut effects = Vec::new();
    for object in wanted {
        if !seen.insert(object.id.clone()) {
            return Err(PlanError::Twice { id: object.id.clone() });
        }
        let found = folder.find(&object.id);
        let action = match &found {
            None => {
                folder.create(object)?;
                Action::Created
            }
            Some(found) if found.object.value == object.value => Action::Unchanged,
            Some(found) => {
                folder.replace(found, object)?;
                Action::Configured
            }
        };
        let before = found.map(|found| found.object.value);
        effects.push(Effect { id: object.id.clone(), action, before, after: Some(object.value.clone()) });
    }
    if let Prune::Namespaces(namespaces) = prune {
        let others = folder.objects().map(|found| found.object.id).filter(|id| !seen.contains(id));
        let others: BTreeSet<Id> = others
            .filter(|id| namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(&id.namespace)))
            .collect();
        for id in others {
            effects.push(remove(&mut folder, id, Action::Pruned)?);
        }
    }
    Ok(folder.plan(effects))
}

/// What deleting these resources does to the files of a folder.
///
/// # Errors
/// If one is not there, or cannot be taken out of where it is.
pub fn delete(folder: &str, files: &[TextFile], ids: &[Id]) -> Result<Plan, PlanError> {
    let mut folder = Folder::new(folder, files);
    let mut effects = Vec::new();
    for id in ids {
        effects.push(remove(&mut folder, id.clone(), Action::Deleted)?);
    }
    Ok(folder.plan(effects))
}

fn remove(folder: &mut Folder<'_>, id: Id, action: Action) -> Result<Effect, PlanError> {
    let found = folder.find(&id).ok_or_else(|| PlanError::NotFound(id.clone()))?;
    folder.remove(&found)?;
    Ok(Effect { id, action, before: Some(found.object.value), after: None })
}

#[cfg(test)]
mod tests;
