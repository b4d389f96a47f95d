//! The certificates and keys that DestinationRules name for TLS origination.
//!
//! They are read from `outbound.tlsFolder` only, whatever a rule names: whoever may write a rule may not make the sidecar read, and
//! use, any file. A file that cannot be used leaves what was made of it before in use; without that, connections are refused.

mod files;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_policy::directory::{Directory, OriginationMode, TlsOrigination};
use portcullis_proxy::Originators;
use portcullis_tls::{Clock, ContentDigest, MinVersion, OriginationParts, Originator, Roots, SystemRoots};

pub(super) use self::files::system_roots;
use self::files::{Content, FileDigest, Places, Reading, Source};

/// What was read, and what was made of it.
pub(super) struct OriginatorFiles {
    places: Places,
    prepared: Prepared,
    /// The files of the last originators.
    seen: HashMap<Source, FileDigest>,
}

impl OriginatorFiles {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self::of(Places::new(folder))
    }

    fn of(places: Places) -> Self {
        Self { places, prepared: Prepared::default(), seen: HashMap::new() }
    }

    /// Whether a file that was wanted for the last originators is another one now, has come or has gone.
    pub(super) fn have_changed(&self) -> bool {
        self.seen.iter().any(|(source, seen)| self.places.look(source) != *seen)
    }

    /// What each rule of the directory needs. Reads every file again; what is made of the same content as before stays.
    pub(super) fn originators(&mut self, directory: &Directory) -> Originators {
        self.of_rules(directory.originations())
    }

    fn of_rules(&mut self, rules: &[Arc<TlsOrigination>]) -> Originators {
        let mut reading = Reading::new(&self.places);
        let before = std::mem::take(&mut self.prepared.usable);
        let originators = rules.iter().map(|rule| {
            let need = Need::of(rule);
            let before = before.get(&need);
            let made = self.prepared.usable(&need, before, &mut reading).or_else(|error| {
                tracing::error!(rule = %rule.rule, error, kept = before.is_some(), "TLS origination");
                before.cloned().ok_or(error)
            });
            let made = made.map(|usable| {
                let originator = Arc::clone(&usable.originator);
                self.prepared.usable.insert(need, usable);
                originator
            });
            (Arc::clone(rule), made)
        });
        let originators = originators.collect();
        self.seen = reading.seen();
        if !self.seen.contains_key(&Source::System) {
            self.prepared.system = None;
        }
        originators
    }
}

/// What an originator is made from. Where its rule is written is not part of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Need {
    mode: OriginationMode,
    ca: Option<Arc<str>>,
    subject_alt_names: Vec<String>,
    sni: Option<Arc<str>>,
}

impl Need {
    fn of(rule: &TlsOrigination) -> Self {
        let TlsOrigination { mode, ca, subject_alt_names, sni, rule: _ } = rule;
        let (mode, subject_alt_names) = (mode.clone(), subject_alt_names.clone());
        Self { mode, ca: ca.clone(), subject_alt_names, sni: sni.clone() }
    }
}

/// An originator, and the content that it was made from.
#[derive(Clone)]
struct Usable {
    made_from: Vec<ContentDigest>,
    originator: Arc<Originator>,
}

/// What was made of the files.
#[derive(Default)]
struct Prepared {
    /// The last one for each need that could be used.
    usable: HashMap<Need, Usable>,
    /// The CAs of the system, as they were read last: all originators share them.
    system: Option<(ContentDigest, SystemRoots)>,
}

impl Prepared {
    /// The originator for a need; the one from before if the files have the same content.
    fn usable(&mut self, need: &Need, before: Option<&Usable>, files: &mut Reading<'_>) -> Result<Usable, String> {
        if let Some(usable) = self.usable.get(need) {
            return Ok(usable.clone());
        }
        let sni = need.sni.as_deref().ok_or("tls.sni must be set: the host is a wildcard")?;
        let ca = files.read(need.ca.clone().map_or(Source::System, Source::Named))?;
        let client = match &need.mode {
            OriginationMode::Simple => None,
            OriginationMode::Mutual { certificate, key } => {
                let [chain, key] = [certificate, key].map(|file| files.read(Source::Named(Arc::clone(file))));
                Some((chain?, key?))
            }
        };
        let own = client.iter().flat_map(|(chain, key)| [chain.digest, key.digest]);
        let made_from: Vec<_> = own.chain([ca.digest]).collect();
        if let Some(same) = before.filter(|before| before.made_from == made_from) {
            return Ok(same.clone());
        }
        let system;
        let roots = if need.ca.is_some() {
            Roots::Chosen(&ca.bytes)
        } else {
            system = self.system(&ca)?;
            Roots::System(&system)
        };
        let parts = OriginationParts {
            ca: roots,
            client: client.as_ref().map(|(chain, key)| (&***chain.bytes, &***key.bytes)),
            subject_alt_names: &need.subject_alt_names,
            sni,
            min_version: MinVersion::Tls12,
        };
        let originator = Originator::new(&parts, &Clock::system()).map_err(|error| error.to_string())?;
        Ok(Usable { made_from, originator: Arc::new(originator) })
    }

    fn system(&mut self, file: &Content) -> Result<SystemRoots, String> {
        if let Some((digest, roots)) = &self.system
            && *digest == file.digest
        {
            return Ok(roots.clone());
        }
        let roots = SystemRoots::from_pem(&file.bytes).map_err(|error| format!("the system's CAs: {error}"))?;
        self.system = Some((file.digest, roots.clone()));
        Ok(roots)
    }
}

#[cfg(test)]
mod tests;
