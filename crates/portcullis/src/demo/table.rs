//! The attempts, their expected and actual outcomes, and the table of them.

use std::fmt::{self, Write as _};
use std::time::Duration;

use portcullis_policy::Mode;

/// An attempt to reach the app.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Attempt {
    /// Directly to the inbound sidecar, without TLS.
    Plaintext,
    /// Through an outbound sidecar with a certificate of the mesh.
    Mesh,
    /// Through an outbound sidecar whose certificate claims the same ID but comes from another CA.
    WrongCa,
    /// Through an outbound sidecar that expects another server behind the address.
    WrongIdentity,
    /// Directly to the inbound sidecar, with the mesh's TLS but without a certificate.
    NoCertificate,
}

impl Attempt {
    pub(super) const ALL: [Self; 5] =
        [Self::Plaintext, Self::Mesh, Self::WrongCa, Self::WrongIdentity, Self::NoCertificate];

    fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Mesh => "mesh mTLS",
            Self::WrongCa => "wrong CA",
            Self::WrongIdentity => "wrong identity",
            Self::NoCertificate => "no certificate",
        }
    }

    /// What Istio's PeerAuthentication means for this attempt, to an app that speaks plaintext only.
    pub(super) fn expected(self, mode: Mode) -> Expected {
        match (self, mode) {
            (Self::Plaintext, Mode::Strict) => Expected::Refused,
            (Self::Plaintext, Mode::Permissive | Mode::Disable) => Expected::Plaintext,
            // DISABLE passes everything through uninspected: the ClientHello reaches the app, which does not understand it.
            (_, Mode::Disable) => Expected::RawTls,
            (Self::Mesh, _) => Expected::Mtls,
            (Self::WrongCa | Self::WrongIdentity | Self::NoCertificate, _) => Expected::Refused,
        }
    }
}

/// The expected outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expected {
    Refused,
    Mtls,
    Plaintext,
    RawTls,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Mtls => "mTLS",
            Self::Plaintext => "plaintext",
            Self::RawTls => "raw TLS",
        })
    }
}

/// The actual outcome.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The app was not reached; the sidecar's reason.
    Refused(String),
    /// The app answered, and the sidecar verified this identity.
    Mtls(String),
    /// The app answered, and the sidecar verified no identity.
    Plaintext,
    /// The app was handed bytes of TLS, and the client got no answer.
    RawTls,
    /// Client, app and sidecar do not agree.
    Contradiction(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Mtls(id) => write!(f, "mTLS, {id}"),
            Self::Plaintext => f.write_str("plaintext"),
            Self::RawTls => f.write_str("raw TLS"),
            Self::Contradiction(what) => write!(f, "contradiction: {what}"),
        }
    }
}

/// One field of the table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) expected: Expected,
    pub(super) outcome: Outcome,
    /// The identity that an mTLS outcome must have.
    pub(super) client: String,
}

impl Cell {
    pub(super) fn is_right(&self) -> bool {
        match (&self.expected, &self.outcome) {
            (Expected::Refused, Outcome::Refused(_))
            | (Expected::Plaintext, Outcome::Plaintext)
            | (Expected::RawTls, Outcome::RawTls) => true,
            (Expected::Mtls, Outcome::Mtls(id)) => *id == self.client,
            _ => false,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_right() {
            write!(f, "ok  {}", self.outcome)
        } else {
            write!(f, "NO  {} (expected {})", self.outcome, self.expected)
        }
    }
}

/// One mode: how long it took to be in force, and a cell for each attempt.
pub(super) struct Column {
    pub(super) mode: Mode,
    pub(super) in_force_after: Duration,
    pub(super) cells: Vec<Cell>,
}

/// The whole table, padded for a terminal.
pub(super) fn render(columns: &[Column]) -> String {
    let mut rows = vec![vec![String::new()]];
    rows.extend(Attempt::ALL.iter().map(|attempt| vec![attempt.name().to_owned()]));
    rows.push(vec!["in force after".to_owned()]);
    for column in columns {
        let head = column.mode.to_string();
        let cells = column.cells.iter().map(ToString::to_string);
        let foot = format!("{:.2} s", column.in_force_after.as_secs_f64());
        for (row, text) in rows.iter_mut().zip([head].into_iter().chain(cells).chain([foot])) {
            row.push(text);
        }
    }
    let widths: Vec<usize> = (0..=columns.len())
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|text| text.chars().count()).max().unwrap_or(0))
        .collect();
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _infallible = write!(line, "{text:<width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(expected: Expected, outcome: Outcome) -> Cell {
        Cell { expected, outcome, client: "spiffe://a/b".to_owned() }
    }

    #[test]
    fn a_cell_is_right_only_for_its_own_outcome_and_identity() {
        let outcomes = [
            Outcome::Refused("x".to_owned()),
            Outcome::Mtls("spiffe://a/b".to_owned()),
            Outcome::Plaintext,
            Outcome::RawTls,
        ];
        let all = [Expected::Refused, Expected::Mtls, Expected::Plaintext, Expected::RawTls];
        for (row, expected) in all.into_iter().enumerate() {
            for (column, outcome) in outcomes.iter().enumerate() {
                assert_eq!(cell(expected, outcome.clone()).is_right(), row == column, "{expected} {outcome}");
            }
            assert!(!cell(expected, Outcome::Contradiction(String::new())).is_right());
        }
        assert!(!cell(Expected::Mtls, Outcome::Mtls("spiffe://a/c".to_owned())).is_right());
    }

    #[test]
    fn nothing_but_the_mesh_client_ever_gets_mtls() {
        for mode in Mode::ALL {
            for attempt in Attempt::ALL {
                let mtls = attempt.expected(mode) == Expected::Mtls;
                assert_eq!(mtls, attempt == Attempt::Mesh && mode != Mode::Disable, "{attempt:?} {mode}");
            }
        }
    }

    #[test]
    fn a_wrong_cell_names_the_expected_outcome() {
        let column = Column {
            mode: Mode::Strict,
            in_force_after: Duration::from_millis(120),
            cells: vec![cell(Expected::Refused, Outcome::Plaintext)],
        };
        let table = render(&[column]);
        assert!(table.contains("plaintext       NO  plaintext (expected refused)"), "{table}");
        assert!(table.contains("STRICT"), "{table}");
    }
}
