//! All files of a folder to one set: kinds, lists, duplicates, and every error in one run.

use std::collections::HashMap;

use portcullis_yaml::{Cursor, Problems};

use crate::resource::{self, text_of};
use crate::{Diagnostic, PeerAuthentication};

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, for diagnostics.
    pub file: String,
    /// Its content.
    pub text: Vec<u8>,
}

/// Every PeerAuthentication of a mesh, in any order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicySet {
    policies: Vec<PeerAuthentication>,
}

/// What loading came to. With any error the set is not to be used.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The policies that are valid.
    pub set: PolicySet,
    /// How many documents there were.
    pub documents: usize,
    /// What is wrong.
    pub errors: Vec<Diagnostic>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Kinds that change who is let in, which this version does not read: never skipped in silence.
const UNSUPPORTED: &[&str] =
    &["AuthorizationPolicy", "RequestAuthentication", "DestinationRule", "Sidecar", "EnvoyFilter", "WasmPlugin"];

impl PolicySet {
    /// Reads all files. Linear in their size.
    #[must_use]
    pub fn load(sources: &[Source]) -> Loaded {
        let mut loaded = Loaded::default();
        let mut seen: HashMap<(String, String), (String, u32)> = HashMap::new();
        for source in sources {
            File { name: &source.file, loaded: &mut loaded, seen: &mut seen }.read(&source.text);
        }
        loaded
    }

    /// The policies, in the order they were read.
    #[must_use]
    pub fn policies(&self) -> &[PeerAuthentication] {
        &self.policies
    }
}

impl FromIterator<PeerAuthentication> for PolicySet {
    fn from_iter<I: IntoIterator<Item = PeerAuthentication>>(policies: I) -> Self {
        Self { policies: policies.into_iter().collect() }
    }
}

struct File<'a> {
    name: &'a str,
    loaded: &'a mut Loaded,
    seen: &'a mut HashMap<(String, String), (String, u32)>,
}

impl File<'_> {
    fn read(&mut self, text: &[u8]) {
        let parsed = portcullis_yaml::parse(text);
        self.loaded.errors.extend(parsed.problems.into_iter().map(|problem| Diagnostic::new(self.name, problem)));
        for document in &parsed.documents {
            self.document(&Cursor::root(document), 0);
        }
    }

    fn document(&mut self, root: &Cursor<'_>, depth: usize) {
        let version = text_of(root, "apiVersion").map(|(text, _)| text);
        let kind = text_of(root, "kind").map(|(text, _)| text);
        let (Some(version), Some(kind)) = (version, kind) else {
            self.loaded.documents += 1;
            let message = "a document needs apiVersion and kind; write apiVersion: security.istio.io/v1 and \
                           kind: PeerAuthentication";
            return self.error(root, "unknown-kind", message.to_owned());
        };
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let ours = matches!(version, "security.istio.io/v1" | "security.istio.io/v1beta1");
        if kind == "List" || (ours && kind == "PeerAuthenticationList") {
            return self.list(root, depth);
        }
        self.loaded.documents += 1;
        if ours && kind == "PeerAuthentication" {
            self.peer_authentication(root);
        } else if kind.eq_ignore_ascii_case("PeerAuthentication") {
            let message = format!(
                "kind {kind} of {version} is not known; write kind: PeerAuthentication and apiVersion: security.istio.io/v1"
            );
            self.error(root, "unknown-kind", message);
        } else if UNSUPPORTED.contains(&kind) && group.ends_with("istio.io") {
            let message = format!("{kind} is not supported by this version; remove it from the policy folder");
            self.error(root, "unsupported-kind", message);
        } else if group == "security.istio.io" {
            self.error(root, "unknown-kind", format!("{group} has no kind {kind} that is known here"));
        } else {
            let message = format!("kind {kind} of {version} has no meaning here and is ignored");
            let at = root.position();
            self.loaded.warnings.push(Diagnostic::at(self.name, at, "ignored-kind", message));
        }
    }

    fn list(&mut self, root: &Cursor<'_>, depth: usize) {
        if depth > 0 {
            return self.error(root, "unknown-kind", "a list inside a list is not opened".to_owned());
        }
        let mut problems = Problems::new();
        let fields = root.fields(&["apiVersion", "kind", "metadata", "items"], &mut problems);
        let items = fields.and_then(|fields| fields.require("items", &mut problems));
        let items = items.and_then(|at| at.items(&mut problems)).unwrap_or_default();
        self.take(problems, false);
        for item in items {
            self.document(&item.as_root(), depth + 1);
        }
    }

    fn peer_authentication(&mut self, root: &Cursor<'_>) {
        let (mut warnings, mut problems) = (Problems::new(), Problems::new());
        let policy = resource::read(root, self.name, &mut warnings, &mut problems);
        self.take(warnings, true);
        self.take(problems, false);
        let Some(policy) = policy else { return };
        let key = (policy.namespace.clone(), policy.name.clone());
        if let Some((file, line)) = self.seen.get(&key) {
            let message = format!(
                "PeerAuthentication {}/{} is also at {file}:{line}; remove one, or give it another name",
                key.0, key.1
            );
            return self.error(root, "duplicate-resource", message);
        }
        self.seen.insert(key, (self.name.to_owned(), policy.line));
        self.loaded.set.policies.push(policy);
    }

    fn take(&mut self, problems: Problems, warnings: bool) {
        let all = problems.into_vec().into_iter().map(|problem| Diagnostic::new(self.name, problem));
        if warnings { self.loaded.warnings.extend(all) } else { self.loaded.errors.extend(all) }
    }

    fn error(&mut self, root: &Cursor<'_>, reason: &'static str, message: String) {
        self.loaded.errors.push(Diagnostic::at(self.name, root.position(), reason, message));
    }
}
