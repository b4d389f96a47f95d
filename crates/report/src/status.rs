//! What a report comes to.

use serde::Serialize;

/// What a report comes to, from best to worst: where several are true, the worst counts.
///
/// A proven no comes before everything that is unknown. A sidecar that is silent comes before too little observation, since no time of
/// waiting corrects it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Nobody loses access.
    Ready,
    /// Nobody that was seen loses access, but too little was seen.
    TooLittle,
    /// A sidecar did not answer, so it is not known whom it serves.
    Unreachable,
    /// Somebody loses access.
    NotReady,
}

impl Status {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::TooLittle => "TOO LITTLE",
            Self::Unreachable => "UNREACHABLE",
            Self::NotReady => "NOT READY",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn what_is_proven_comes_before_what_is_unknown() {
        let worst = |found: &[Status]| found.iter().max().copied();
        let (ready, little) = (Status::Ready, Status::TooLittle);
        assert_eq!(worst(&[Status::Unreachable, Status::NotReady, little]), Some(Status::NotReady));
        assert_eq!(worst(&[little, Status::Unreachable, ready]), Some(Status::Unreachable));
        assert_eq!(worst(&[ready, little]), Some(little));
    }
}
