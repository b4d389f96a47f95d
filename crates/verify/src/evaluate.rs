//! From observations to outcomes and verdicts.

use std::fmt;

use portcullis_identity::leaf::{self, Role};
use rustls::AlertDescription;

use crate::attempt::Attempt;
use crate::certificates::RELAXED;
use crate::expect::{Expected, Policy};
use crate::observation::{End, Observation, Stage};
use crate::probe::Probe;
use crate::refusals;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was let in.
    Accepted,
    /// It was not.
    Refused,
    /// Its TLS reached something that is not the mesh.
    NotTerminated,
    /// No byte came, and nobody ended the connection.
    Silent,
    /// It cannot be told who ended it.
    Unclear,
    /// It was not made.
    NotTried,
}

/// Whether the outcome is the expected one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProbeVerdict {
    /// It is.
    AsExpected,
    /// It is another one.
    Different,
    /// What was seen proves neither.
    Unproven,
    /// There is nothing to compare.
    NotTried,
}

impl Outcome {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::NotTerminated => "not-terminated",
            Self::Silent => "silent",
            Self::Unclear => "unclear",
            Self::NotTried => "not-tried",
        }
    }
}

impl ProbeVerdict {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AsExpected => "ok",
            Self::Different => "WRONG",
            Self::Unproven => "UNPROVEN",
            Self::NotTried => "skipped",
        }
    }

    /// Whether it lets a run fail.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Different | Self::Unproven)
    }
}

impl fmt::Display for ProbeVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One line of the result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// What was tried.
    pub attempt: Attempt,
    /// What the policy says.
    pub expected: Expected,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether that is the same.
    pub verdict: ProbeVerdict,
    /// What was seen, in words.
    pub seen: String,
}

/// Evaluates a run.
#[must_use]
pub fn evaluate(probes: &[(Attempt, Probe)], policy: &Policy, credentials: bool) -> Vec<Row> {
    let context = Context::of(probes);
    let row = |(attempt, probe): &(Attempt, Probe)| {
        let expected = policy.expects(*attempt, credentials);
        let (Finding { outcome, seen }, terminated) = match probe {
            Probe::Tried(observation) => (context.finding(*attempt, observation), terminated(observation)),
            Probe::Skipped(why) => (Finding::new(Outcome::NotTried, why.to_string()), false),
        };
        Row { attempt: *attempt, expected, outcome, verdict: verdict(expected, outcome, terminated), seen }
    };
    probes.iter().map(row).collect()
}

fn verdict(expected: Expected, outcome: Outcome, terminated: bool) -> ProbeVerdict {
    use {Expected as E, Outcome as O, ProbeVerdict as V};
    match (expected, outcome) {
        (_, O::NotTried) => V::NotTried,
        (E::Either, _) | (E::Accepted, O::Accepted) | (E::Refused | E::NoByte, O::Refused) | (E::NoByte, O::Silent) => {
            V::AsExpected
        }
        // With a certificate of the mesh it was the mesh that answered.
        (E::NotTerminated, _) if terminated => V::Different,
        (E::NotTerminated, _) => V::AsExpected,
        (E::NoByte | E::Refused | E::Accepted, O::Unclear | O::Silent) => V::Unproven,
        (E::Accepted, O::Refused | O::NotTerminated) | (E::Refused | E::NoByte, O::Accepted | O::NotTerminated) => {
            V::Different
        }
    }
}

/// Whether the server presented an SVID: then the mesh, not the app, speaks TLS there.
fn terminated(observation: &Observation) -> bool {
    observation.presented.first().is_some_and(|der| leaf::check(der, RELAXED, Role::Server).is_ok())
}

struct Finding {
    outcome: Outcome,
    seen: String,
}

impl Finding {
    fn new(outcome: Outcome, seen: impl Into<String>) -> Self {
        Self { outcome, seen: seen.into() }
    }
}

/// What other attempts showed, as far as it tells more about one.
struct Context {
    /// The app answered the right identity.
    app_answers: bool,
    /// Something speaks TLS there.
    speaks_tls: bool,
}

impl Context {
    fn of(probes: &[(Attempt, Probe)]) -> Self {
        let tried = || {
            probes.iter().filter_map(|(attempt, probe)| match probe {
                Probe::Tried(observation) => Some((*attempt, observation.as_ref())),
                Probe::Skipped(_) => None,
            })
        };
        let answered = |(attempt, seen): (Attempt, &Observation)| {
            attempt == Attempt::RightIdentity
                && seen.handshake.is_some()
                && !seen.bytes.is_empty()
                && refusals::refusal(&seen.bytes).is_none()
        };
        Self {
            app_answers: tried().any(answered),
            speaks_tls: tried().any(|(attempt, seen)| attempt.is_tls() && !seen.presented.is_empty()),
        }
    }

    fn finding(&self, attempt: Attempt, seen: &Observation) -> Finding {
        if let End::NotConnected(why) = &seen.end {
            return Finding::new(Outcome::Unclear, why.clone());
        }
        match attempt {
            Attempt::Plaintext | Attempt::Silence => self.plaintext(attempt, seen),
            Attempt::Resumption => session(seen, Session::Resumed),
            Attempt::EarlyData => session(seen, Session::Early),
            _ => self.tls(seen),
        }
    }

    fn plaintext(&self, attempt: Attempt, seen: &Observation) -> Finding {
        if !seen.bytes.is_empty() {
            return answer(&seen.bytes);
        }
        let end = shown_end(&seen.end);
        match (attempt, &seen.end, seen.stage) {
            (Attempt::Silence, End::Silent, _) => {
                Finding::new(Outcome::Silent, "no byte and no end until the deadline")
            }
            (Attempt::Silence, ..) => Finding::new(Outcome::Refused, format!("{end} without a byte")),
            (_, End::Silent, _) if self.app_answers => {
                Finding::new(Outcome::Refused, "no byte until the deadline; the right identity is answered")
            }
            (_, End::Silent, _) => Finding::new(Outcome::Silent, "no byte until the deadline: the app may be slow"),
            (.., Stage::Opening | Stage::FirstByte) => {
                Finding::new(Outcome::Refused, format!("{end} at the first byte, before the request was whole"))
            }
            _ if self.app_answers => {
                Finding::new(Outcome::Refused, format!("{end} without a byte; the right identity is answered"))
            }
            (_, End::Closed, Stage::HalfClosed) => {
                Finding::new(Outcome::Accepted, "no byte, and closed after our direction was: the relay was complete")
            }
            _ => Finding::new(
                Outcome::Unclear,
                format!("{end} without a byte: the app may have done that; give credentials to compare with"),
            ),
        }
    }

    fn tls(&self, seen: &Observation) -> Finding {
        match (&seen.end, seen.handshake) {
            (End::NotTls, _) => Finding::new(Outcome::NotTerminated, format!("no TLS: {}", quoted(&seen.bytes))),
            (End::ServerHello(version), _) => {
                Finding::new(Outcome::Accepted, format!("ServerHello of {}", shown_version(*version)))
            }
            _ if !seen.bytes.is_empty() => answer(&seen.bytes),
            (End::Alert(alert), _) => Finding::new(Outcome::Refused, format!("alert {}", alert_name(*alert))),
            (End::Silent, None) => Finding::new(Outcome::Silent, "no answer to the hello until the deadline"),
            (end, None) if self.speaks_tls => Finding::new(
                Outcome::Refused,
                format!("{} in the handshake; other hellos are answered", shown_end(end)),
            ),
            (end, None) => Finding::new(
                Outcome::Unclear,
                format!("{} in the handshake: no hello was answered, so it may be the app's end", shown_end(end)),
            ),
            (end, Some(_)) => self.after_handshake(end, seen.stage),
        }
    }

    fn after_handshake(&self, end: &End, stage: Stage) -> Finding {
        match (end, stage) {
            (End::Silent, _) => Finding::new(
                Outcome::Accepted,
                "open until the deadline after the handshake; a refusal takes one round trip",
            ),
            (End::Closed | End::CloseNotify, Stage::HalfClosed) => {
                Finding::new(Outcome::Accepted, "no byte, and closed after our direction was: the relay was complete")
            }
            (end, _) if self.app_answers => Finding::new(
                Outcome::Refused,
                format!("{} after the handshake, without a byte; the right identity is answered", shown_end(end)),
            ),
            (end, _) => Finding::new(
                Outcome::Unclear,
                format!(
                    "{} after the handshake, without a byte: an AuthorizationPolicy, an app that is down, or the app itself",
                    shown_end(end)
                ),
            ),
        }
    }
}

#[derive(Clone, Copy)]
enum Session {
    Resumed,
    Early,
}

/// Only whether the session was continued matters here, not what came after it.
fn session(seen: &Observation, what: Session) -> Finding {
    let Some(handshake) = seen.handshake else {
        return Finding::new(Outcome::Refused, format!("{} instead of a second handshake", shown_end(&seen.end)));
    };
    match (what, handshake.resumed, handshake.early_data) {
        (Session::Resumed, true, _) => Finding::new(Outcome::Accepted, "the session was continued"),
        (Session::Resumed, false, _) => Finding::new(Outcome::Refused, "the second handshake was a whole one"),
        (Session::Early, _, Some(true)) => Finding::new(Outcome::Accepted, "data before the handshake was taken"),
        (Session::Early, _, Some(false)) => Finding::new(Outcome::Refused, "data before the handshake was not taken"),
        (Session::Early, _, None) => Finding::new(Outcome::Refused, "the server gave no ticket that allows it"),
    }
}

fn answer(bytes: &[u8]) -> Finding {
    if let Some(what) = refusals::refusal(bytes) {
        return Finding::new(Outcome::Refused, what);
    }
    match refusals::alert(bytes) {
        Some(alert) => Finding::new(Outcome::Refused, format!("alert {}", alert_name(AlertDescription::from(alert)))),
        None => Finding::new(Outcome::Accepted, format!("the app answers: {}", quoted(bytes))),
    }
}

/// How many bytes of an answer are shown.
const SHOWN: usize = 40;

/// The first line, escaped.
fn quoted(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let shown = line.get(..SHOWN).unwrap_or(line);
    let more = if bytes.len() > shown.len() { "..." } else { "" };
    format!("\"{}\"{more} ({} bytes)", shown.escape_ascii(), bytes.len())
}

fn shown_end(end: &End) -> String {
    match end {
        End::NotConnected(why) => why.clone(),
        End::Alert(alert) => format!("alert {}", alert_name(*alert)),
        End::CloseNotify | End::Closed => "closed".to_owned(),
        End::Reset => "reset".to_owned(),
        End::Silent => "no end".to_owned(),
        End::Answered => "an answer".to_owned(),
        End::ServerHello(version) => format!("ServerHello of {}", shown_version(*version)),
        End::NotTls => "no TLS".to_owned(),
        End::Broken(why) => why.clone(),
    }
}

fn shown_version(version: u16) -> String {
    match version {
        0x0301 => "TLS 1.0".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        other => format!("version {other:#06x}"),
    }
}

/// As RFC 8446 writes it.
fn alert_name(alert: AlertDescription) -> String {
    let debug = format!("{alert:?}");
    let mut name = String::new();
    let mut before_is_upper = true;
    for character in debug.chars() {
        if character.is_ascii_uppercase() && !before_is_upper {
            name.push('_');
        }
        before_is_upper = character.is_ascii_uppercase();
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests;
