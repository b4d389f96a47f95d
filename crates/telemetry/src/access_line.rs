//! The kinds of lines of the access log.

use crate::outcome::{Decision, Ending, ResponseFlag};

/// What a line says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LineKind {
    Complete,
    Abandoned,
    Refused,
    Closed,
}

impl LineKind {
    pub(crate) fn of(ending: &Ending, admitted: bool) -> Self {
        match (ending.decision, admitted) {
            (Decision::Allow, _) => Self::Complete,
            (Decision::Deny, _) if ending.flag == ResponseFlag::Abandoned => Self::Abandoned,
            (Decision::Deny, false) => Self::Refused,
            (Decision::Deny, true) => Self::Closed,
        }
    }

    pub(crate) const fn is_warning(self) -> bool {
        matches!(self, Self::Refused | Self::Closed)
    }

    pub(crate) const fn message(self) -> &'static str {
        match self {
            Self::Complete => "connection complete",
            Self::Abandoned => "connection abandoned",
            Self::Refused => "connection refused",
            Self::Closed => "connection closed",
        }
    }
}
