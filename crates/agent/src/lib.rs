//! Sources of credentials other than files.
//!
//! What comes from them is judged by [`Credentials::validate`](portcullis_tls::Credentials::validate), as a peer would judge
//! it, before anything is in force; what is refused leaves the old ones there. When to ask is decided by a state machine
//! that is told the time, so that it can be proven without waiting; see [`schedule`].
//!
//! It refuses to know files and metrics: whoever starts a source passes in what is read, and asks for its [`Status`].

pub mod alarm;
pub mod pause;
pub mod schedule;
