//! Root rotation: the signing CA and the published roots of each phase, and the checks before the next phase.
//!
//! | phase | signs | published | may follow |
//! |---|---|---|---|
//! | none | A | A | `Started` |
//! | `Started` | A | A and B | `Promoted`, none |
//! | `Promoted` | B | A and B | `Finished`, `Started` |
//! | `Finished` | B | B | none, with B in A's place |
//!
//! Sources: SPIFFE Federation 4.1; Istio #30947. One file holds all of a rotation and is replaced in one step, so
//! that a crash leaves one phase or the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portcullis_identity::TrustDomain;
use portcullis_tls::{Clock, TrustBundle};
use serde::{Deserialize, Serialize};

use crate::fields::anchor_of;
use crate::files::{Private, write};
use crate::{Signer, SignerError, SignerFiles, WriteError};

mod decide;

pub use decide::{Assumed, BlockReason, Blocker, NotReady, RotationSnapshot, may_abort, may_finish, may_promote};

/// The file in the CA's folder that holds the state of a rotation.
pub const FILE: &str = "rotation.json";
const VERSION: u32 = 1;

/// The phase of a rotation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A signs, A and B are published.
    Started,
    /// B signs, A and B are published.
    Promoted,
    /// B signs, B is published; its files take the place of A's.
    Finished,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Promoted => "promoted",
            Self::Finished => "finished",
        }
    }
}

/// The files of one CA, as text: see [`SignerFiles`].
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// `ca-cert.pem`.
    pub ca_cert: String,
    /// `ca-key.pem`.
    pub ca_key: String,
    /// `root-cert.pem`.
    pub root_cert: String,
    /// `cert-chain.pem`, empty if there is none.
    pub cert_chain: String,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Files {
    fn signer(&self, roots: &str, configured: Option<&TrustDomain>, clock: &Clock) -> Result<Signer, SignerError> {
        let files = SignerFiles {
            ca_cert: self.ca_cert.as_bytes(),
            ca_key: self.ca_key.as_bytes(),
            root_cert: roots.as_bytes(),
            cert_chain: Some(self.cert_chain.as_bytes()).filter(|chain| !chain.is_empty()),
        };
        Signer::read(files, configured, clock)
    }
}

/// A rotation in progress.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    version: u32,
    /// The current phase.
    pub phase: Phase,
    /// When B was published, in Unix time.
    pub published_unix: i64,
    /// The phases so far with their beginnings, in Unix time. Absent in old files.
    #[serde(default)]
    history: Vec<(Phase, i64)>,
    old: Files,
    new: Files,
}

/// Why a rotation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The file is damaged.
    #[error("{}: damaged: {why}; restore it from a backup", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The error.
        error: std::io::Error,
    },
    /// It was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// One of the two CAs cannot be used.
    #[error("{0}")]
    Signer(#[from] SignerError),
    /// B is no new root.
    #[error("the new CA's root is published already; a rotation needs a different root")]
    SameRoot,
    /// B belongs to another trust domain.
    #[error("the new CA is of trust domain {new}, and this one serves {old}")]
    TrustDomain {
        /// B's.
        new: TrustDomain,
        /// A's.
        old: TrustDomain,
    },
}

/// The signers in force in a phase.
#[derive(Debug)]
pub struct InForce {
    /// Signs workloads' certificates; has the roots that are published.
    pub signer: Signer,
    /// Signs the CA's own server certificate: A for as long as A is published, so that callers with a copy of A's root
    /// reach it to the end.
    pub server: Signer,
}

impl Rotation {
    /// Begins: A signs, A and B are published.
    ///
    /// # Errors
    /// If either cannot be used, or they do not go together.
    pub fn start(old: Files, new: Files, domain: Option<&TrustDomain>, clock: &Clock) -> Result<Self, RotationError> {
        let now_unix = clock.now_unix();
        let (a, b) = (old.signer(&old.root_cert, domain, clock)?, new.signer(&new.root_cert, domain, clock)?);
        if a.trust_domain() != b.trust_domain() {
            return Err(RotationError::TrustDomain { new: b.trust_domain().clone(), old: a.trust_domain().clone() });
        }
        if !anchors(a.roots()).is_disjoint(&anchors(b.roots())) {
            return Err(RotationError::SameRoot);
        }
        let history = vec![(Phase::Started, now_unix)];
        Ok(Self { version: VERSION, phase: Phase::Started, published_unix: now_unix, history, old, new })
    }

    /// Goes to another phase.
    pub fn enter(&mut self, phase: Phase, now_unix: i64) {
        self.phase = phase;
        self.history.push((phase, now_unix));
    }

    /// The phases so far with their beginnings, in Unix time; the last one is in force.
    #[must_use]
    pub fn history(&self) -> &[(Phase, i64)] {
        &self.history
    }

    /// The rotation in progress in a folder, if any.
    ///
    /// # Errors
    /// If the file cannot be read. The phase is unknown then.
    pub fn load(dir: &Path) -> Result<Option<Self>, RotationError> {
        let path = dir.join(FILE);
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RotationError::Io { path, error }),
        };
        match serde_json::from_slice::<Self>(&content) {
            Ok(read) if read.version == VERSION => Ok(Some(read)),
            Ok(read) => Err(RotationError::Damaged { path, why: format!("version {} is not known", read.version) }),
            Err(error) => Err(RotationError::Damaged { path, why: error.to_string() }),
        }
    }

    /// Puts it on disk, in one step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), RotationError> {
        let content = serde_json::to_vec(self).map_err(std::io::Error::other);
        let content = content.map_err(|error| RotationError::Io { path: dir.join(FILE), error })?;
        Ok(write(&dir.join(FILE), &content, Private::Yes, true)?)
    }

    /// Ends it, in one step: what the four files say is in force again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn remove(dir: &Path) -> Result<(), RotationError> {
        let path = dir.join(FILE);
        let gone = std::fs::remove_file(&path).and_then(|()| std::fs::File::open(dir)?.sync_all());
        gone.map_err(|error| RotationError::Io { path, error })
    }

    /// Writes B over the four files. They are not read while the rotation is on, so it may be cut off and done again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn settle(&self, dir: &Path) -> Result<(), RotationError> {
        let Files { ca_cert, ca_key, root_cert, cert_chain } = &self.new;
        // An empty chain is no PEM; one that is the certificate itself says as much.
        let chain = if cert_chain.is_empty() { ca_cert } else { cert_chain };
        for (name, content, private) in [
            ("root-cert.pem", root_cert, Private::No),
            ("cert-chain.pem", chain, Private::No),
            ("ca-key.pem", ca_key, Private::Yes),
            ("ca-cert.pem", ca_cert, Private::No),
        ] {
            write(&dir.join(name), content.as_bytes(), private, true)?;
        }
        Ok(())
    }

    /// The signers and roots in force in this phase.
    ///
    /// # Errors
    /// If a certificate cannot be used (any more).
    pub fn in_force(&self, domain: Option<&TrustDomain>, clock: &Clock) -> Result<InForce, RotationError> {
        let both = format!("{}\n{}", self.old.root_cert, self.new.root_cert);
        let (signing, serving, roots) = match self.phase {
            Phase::Started => (&self.old, &self.old, &both),
            Phase::Promoted => (&self.new, &self.old, &both),
            Phase::Finished => (&self.new, &self.new, &self.new.root_cert),
        };
        let signer = signing.signer(roots, domain, clock)?;
        // If the old CA has expired meanwhile, its certificate is no use: the one that signs serves as well.
        let server = serving.signer(roots, domain, clock).or_else(|_| signing.signer(roots, domain, clock))?;
        Ok(InForce { signer, server })
    }

    /// The root that A leads to, as [`Signer::anchor`] names it.
    ///
    /// # Errors
    /// If A cannot be used any more.
    pub fn old_anchor(&self, domain: Option<&TrustDomain>, clock: &Clock) -> Result<String, RotationError> {
        Ok(self.old.signer(&self.old.root_cert, domain, clock)?.anchor().to_owned())
    }

    /// The roots that go when the rotation ends: those of A, as [`Signer::anchor`] names them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn old_anchors(&self, clock: &Clock) -> Result<BTreeSet<String>, RotationError> {
        let roots = TrustBundle::from_pem(self.old.root_cert.as_bytes(), clock.now_unix());
        Ok(anchors(&roots.map_err(SignerError::from)?))
    }

    /// The roots of B, as [`Signer::anchor`] names them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn new_anchors(&self, clock: &Clock) -> Result<BTreeSet<String>, RotationError> {
        let roots = TrustBundle::from_pem(self.new.root_cert.as_bytes(), clock.now_unix());
        Ok(anchors(&roots.map_err(SignerError::from)?))
    }
}

fn anchors(roots: &TrustBundle) -> BTreeSet<String> {
    roots.roots().map(|root| anchor_of(root.der())).collect()
}
