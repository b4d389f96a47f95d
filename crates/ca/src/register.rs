//! Adds identities to `identities.yaml` and keeps its comments, order and formatting.

use std::path::Path;

use portcullis_identity::SpiffeId;
use portcullis_yaml::Problem;

use crate::registrations::Registrations;

/// Why a file cannot be added to.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// It cannot be read as it is.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
    /// It is written in a form in which there is no safe place for another line.
    #[error("there is no place in it for another identity; add by hand: {0}")]
    Form(String),
}

/// A file with more in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registered {
    /// The whole file.
    pub text: String,
    /// Who was not in it before.
    pub added: Vec<SpiffeId>,
}

/// The file with those of `ids` in it that it lacks, or `None` if it has all of them. Relative paths in it are taken from
/// `folder`.
///
/// # Errors
/// If it has a mistake, or is not written as a list with one `- id:` below the other.
pub fn register(text: &str, folder: &Path, ids: &[SpiffeId]) -> Result<Option<Registered>, RegisterError> {
    let old = Registrations::read(text.as_bytes(), folder).map_err(RegisterError::Wrong)?;
    let mut lacking: Vec<&SpiffeId> = Vec::new();
    for id in ids {
        if old.get(id).is_none() && !lacking.contains(&id) {
            lacking.push(id);
        }
    }
    if lacking.is_empty() {
        return Ok(None);
    }
    // Parse the result: it must hold the old entries unchanged and the new ones.
    let is_right = |new: &String| {
        Registrations::read(new.as_bytes(), folder)
            .is_ok_and(|new| lacking.iter().all(|id| new.get(id).is_some()) && new.without(&lacking) == old)
    };
    let text = added(text, &lacking).filter(is_right);
    let by_hand = || lacking.iter().map(|id| format!("`- id: {id}`")).collect::<Vec<_>>().join(", ");
    let text = text.ok_or_else(|| RegisterError::Form(by_hand()))?;
    Ok(Some(Registered { text, added: lacking.into_iter().cloned().collect() }))
}

/// Appends items to the end of the list.
fn added(text: &str, ids: &[&SpiffeId]) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let head = lines.iter().position(|line| line.starts_with("identities:"))?;
    let is_item = |line: &str| line.trim_start().starts_with("- ");
    let below = lines.get(head.checked_add(1)?..)?;
    let belongs = |line: &&str| line.is_empty() || line.starts_with([' ', '#', '-']);
    let length = below.iter().take_while(|line| belongs(line)).count();
    let own = below.get(..length)?;
    let indent = own.iter().find(|line| is_item(line)).map_or("", |line| line.split('-').next().unwrap_or_default());
    let is_content = |line: &&str| !line.trim_start().is_empty() && !line.trim_start().starts_with('#');
    let end = own.iter().rposition(is_content).map_or(head, |last| head.saturating_add(last).saturating_add(1));
    let mut new = String::new();
    for (at, line) in lines.iter().enumerate() {
        // An empty list is written in brackets.
        let line =
            if at == head && line.split('#').next()?.trim_end() == "identities: []" { "identities:" } else { line };
        new.push_str(line);
        new.push('\n');
        if at == end {
            new.extend(ids.iter().map(|id| format!("{indent}- id: {id}\n")));
        }
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<SpiffeId> {
        names.iter().map(|name| SpiffeId::parse(&format!("spiffe://a.test/{name}")).unwrap()).collect()
    }

    fn with(text: &str, names: &[&str]) -> Result<Option<String>, RegisterError> {
        register(text, Path::new("/"), &ids(names)).map(|done| done.map(|done| done.text))
    }

    #[test]
    fn only_what_is_lacking_is_added_and_all_else_stays() {
        let text = "# mine\nidentities: []\n";
        let one = with(text, &["x", "x"]).unwrap().unwrap();
        assert_eq!(one, "# mine\nidentities:\n- id: spiffe://a.test/x\n");
        assert_eq!(with(&one, &["x"]).unwrap(), None);
        assert_eq!(with(&one, &["x", "y"]).unwrap().unwrap(), format!("{one}- id: spiffe://a.test/y\n"));
        let text = "identities:\n  # first\n  - id: spiffe://a.test/x\n    ttl: 1h # short\n\n# all\nlimits: {totalPerSecond: 5}";
        let lines = "identities:\n  # first\n  - id: spiffe://a.test/x\n    ttl: 1h # short\n  - id: spiffe://a.test/y\n\n# all\nlimits: {totalPerSecond: 5}\n";
        assert_eq!(with(text, &["y"]).unwrap().unwrap(), lines);
    }

    #[test]
    fn a_form_that_is_not_understood_is_left_alone() {
        let flow = "identities: [{id: spiffe://a.test/x}]\n";
        assert_eq!(with(flow, &["x"]).unwrap(), None);
        let error = with(flow, &["y"]).unwrap_err().to_string();
        assert!(error.contains("by hand: `- id: spiffe://a.test/y`"), "{error}");
        assert!(matches!(with("{identities: []}\n", &["y"]), Err(RegisterError::Form(_))));
        let error = with("identities:\n- idd: spiffe://a.test/x\n", &["y"]).unwrap_err().to_string();
        assert!(error.contains("idd"), "{error}");
    }
}
