//! Which policies of a set count.

/// Which policies of a set count: those in force, or as if those with `istio.io/dry-run: "true"` were in force too.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Evaluation {
    /// What is enforced: policies with the annotation do not count.
    #[default]
    Enforced,
    /// Policies with the annotation count as well. A PeerAuthentication with it takes the place of those of its scope.
    DryRun,
}

impl Evaluation {
    /// Whether a policy counts.
    pub(crate) const fn includes(self, dry_run: bool) -> bool {
        match self {
            Self::Enforced => !dry_run,
            Self::DryRun => true,
        }
    }
}
