//! Proof from outside: connects to a port in every wrong way and in the right one, and compares what was let in with what the policy
//! says.
//!
//! [`Prober::run`] does the IO, one connection after the other, since a server may serve one at a time; each attempt has a deadline.
//! [`evaluate`] is pure: it turns observations into outcomes. What counts as proof:
//!
//! - *Let in*: bytes of the app, a relay that ended cleanly after we ended our direction, or a connection that stayed open after the
//!   handshake although a refusal takes one round trip. In TLS 1.3 a client believes the handshake complete before the server has
//!   seen its certificate, so a completed handshake alone proves nothing.
//! - *Refused*: an alert; an end at the first byte of plaintext, which no app that waits for a request causes; or an end without a
//!   byte where the same request with the right identity was answered.
//! - Else the app may have ended the connection itself, and the outcome is [`Outcome::Unclear`].
//!
//! The client here accepts any certificate of the server, since it sends no secret and wants to see how far it comes.

mod attempt;
mod certificates;
mod connection;
mod evaluate;
mod expect;
mod hello;
mod observation;
mod plaintext;
mod probe;
mod refusals;
mod server;
mod tls;

pub use attempt::Attempt;
pub use certificates::{CaKey, CertificateError, Identity};
pub use connection::{ConnectError, Target};
pub use evaluate::{Outcome, ProbeVerdict, Row, evaluate};
pub use expect::{Expected, Policy};
pub use observation::{End, Handshake, Observation, Stage};
pub use probe::{Probe, Prober, Skipped, presented};
pub use server::{ServerCheck, ServerOutcome, check_server};
