//! One file: its documents, lists, and every error in it. Problems between files are found in [`crate::load`].

use std::sync::Arc;

use portcullis_istio::{MeshConfig, Operator};
use portcullis_yaml::{Cursor, Diagnostic, Position, Problem, Problems};

use crate::authorization::{self, AuthorizationPolicy};
use crate::break_glass::BreakGlass;
use crate::directory::{self, DestinationRule, PortList, ServiceEntry, WorkloadEntry};
use crate::kind::{self, DocumentKind};
use crate::read_peer_authentication::{self as peer_authentication, AnyPeerAuthentication};
use crate::resource::PeerAuthentication;
use crate::resource::ReadResource;

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, for diagnostics.
    pub file: String,
    /// Its content.
    pub text: Vec<u8>,
}

/// One file, parsed: its resources and all problems that do not depend on other files. Parsing is costly, adding it to a set is cheap.
#[derive(Clone, Debug)]
pub struct ParsedSource {
    pub(crate) file: String,
    pub(crate) documents: usize,
    pub(crate) resources: Vec<Resource>,
    /// One for each IstioOperator without a mistake.
    pub(crate) operators: Vec<MeshConfig>,
    pub(crate) errors: Vec<Diagnostic>,
    /// By position.
    pub(crate) warnings: Vec<Diagnostic>,
    /// A resource of a source before it, with the same kind and name, replaces one of this source.
    pub(crate) yields: bool,
}

/// A resource that has a name. Its other fields may be wrong: a duplicate is then found in the same run.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) position: Position,
    /// The kind: two kinds may share a name.
    pub(crate) kind: &'static str,
    /// Its content, if nothing is wrong with it.
    pub(crate) policy: Option<Policy>,
}

/// A valid resource of any kind. Cheap to clone where it can be large.
#[derive(Clone, Debug)]
pub(crate) enum Policy {
    PeerAuthentication(PeerAuthentication),
    BreakGlass(Arc<BreakGlass>),
    Authorization(AuthorizationPolicy),
    ServiceEntry(Arc<ServiceEntry>),
    WorkloadEntry(Arc<WorkloadEntry>),
    DestinationRule(Arc<DestinationRule>),
}

/// Whether a document is an item of a list.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Nesting {
    Document,
    Item,
}

impl Source {
    /// Parses the file. It never stops at an error.
    #[must_use]
    pub fn parse(&self) -> ParsedSource {
        ParsedSource::new(&self.file, &self.text)
    }
}

impl ParsedSource {
    /// Parses the text of a file. It never stops at an error.
    #[must_use]
    pub fn new(file: &str, text: &[u8]) -> Self {
        let mut parsed = Self {
            file: file.to_owned(),
            documents: 0,
            resources: Vec::new(),
            operators: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            yields: false,
        };
        let tree = portcullis_yaml::parse(text);
        parsed.add_errors(tree.problems);
        for document in &tree.documents {
            parsed.document(&Cursor::root(document), Nesting::Document);
        }
        parsed.warnings.sort_by_key(|found| (found.line, found.column));
        parsed
    }

    /// Reads documents that stand in another file. Those of files that come before it in a set replace them.
    #[must_use]
    pub fn embedded(file: &str, documents: &[Cursor<'_>]) -> Self {
        let mut parsed = Self { yields: true, ..Self::new(file, b"") };
        for document in documents {
            parsed.document(&document.as_root(), Nesting::Item);
        }
        parsed
    }

    /// What is wrong with it, by itself.
    #[must_use]
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// The kind, namespace and name of each resource.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        self.resources.iter().map(|resource| (resource.kind, resource.namespace.as_str(), resource.name.as_str()))
    }

    fn document(&mut self, root: &Cursor<'_>, nesting: Nesting) {
        let kind = kind::of(root);
        if kind == DocumentKind::List && nesting == Nesting::Document {
            return self.list(root);
        }
        self.documents += 1;
        match kind {
            DocumentKind::PeerAuthentication => {
                let make = |policy| match policy {
                    AnyPeerAuthentication::Lasting(policy) => Policy::PeerAuthentication(policy),
                    AnyPeerAuthentication::BreakGlass(policy) => Policy::BreakGlass(Arc::new(policy)),
                };
                self.policy("PeerAuthentication", root, peer_authentication::read(root, &self.file), make)
            }
            DocumentKind::AuthorizationPolicy => {
                self.policy("AuthorizationPolicy", root, authorization::read(root, &self.file), Policy::Authorization)
            }
            DocumentKind::ServiceEntry => {
                let make = |entry| Policy::ServiceEntry(Arc::new(entry));
                let ports = if self.yields { PortList::Optional } else { PortList::Required };
                self.policy("ServiceEntry", root, directory::read_service_entry(root, &self.file, ports), make)
            }
            DocumentKind::WorkloadEntry => {
                let make = |entry| Policy::WorkloadEntry(Arc::new(entry));
                self.policy("WorkloadEntry", root, directory::read_workload_entry(root, &self.file), make)
            }
            DocumentKind::DestinationRule => {
                let make = |rule| Policy::DestinationRule(Arc::new(rule));
                self.policy("DestinationRule", root, directory::read_destination_rule(root, &self.file), make)
            }
            DocumentKind::IstioOperator => self.istio_operator(root),
            DocumentKind::List => {
                self.error(root, "unknown-kind", "a list in a list is not opened; write its items out".to_owned())
            }
            DocumentKind::Ignored(message) => {
                let warning = Diagnostic::at(&self.file, root.position(), "ignored-kind", message);
                self.warnings.push(warning);
            }
            DocumentKind::Refused(reason, message) => self.error(root, reason, message),
            DocumentKind::Reported => {}
        }
    }

    fn list(&mut self, root: &Cursor<'_>) {
        let mut problems = Problems::new();
        let fields = root.fields(&["apiVersion", "kind", "metadata", "items"], &mut problems);
        let items = fields.and_then(|fields| fields.require("items", &mut problems));
        let items = items.and_then(|at| at.items(&mut problems)).unwrap_or_default();
        self.add_errors(problems.into_vec());
        for item in items {
            self.document(&item.as_root(), Nesting::Item);
        }
    }

    fn policy<P>(&mut self, kind: &'static str, root: &Cursor<'_>, read: ReadResource<P>, make: fn(P) -> Policy) {
        let ReadResource { identity, policy, problems, warnings } = read;
        self.warnings(warnings.into_vec());
        self.add_errors(problems.into_vec());
        if let Some((namespace, name)) = identity {
            let policy = policy.map(make);
            self.resources.push(Resource { namespace, name, position: root.position(), kind, policy });
        }
    }

    fn istio_operator(&mut self, root: &Cursor<'_>) {
        let Operator { mesh, problems, warnings } = Operator::read(&self.file, root);
        if problems.is_empty() {
            self.operators.push(mesh);
        }
        self.warnings(warnings.into_vec());
        self.add_errors(problems.into_vec());
    }

    fn warnings(&mut self, problems: Vec<Problem>) {
        let warnings = problems.into_iter().map(|problem| Diagnostic::new(&self.file, problem));
        self.warnings.extend(warnings);
    }

    fn add_errors(&mut self, problems: Vec<Problem>) {
        let errors = problems.into_iter().map(|problem| Diagnostic::new(&self.file, problem));
        self.errors.extend(errors);
    }

    fn error(&mut self, root: &Cursor<'_>, reason: &'static str, message: String) {
        self.errors.push(Diagnostic::at(&self.file, root.position(), reason, message));
    }
}
