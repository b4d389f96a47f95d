//! One file for each command: its arguments, what it does, how it answers.

pub(crate) mod certs;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod healthcheck;
pub(crate) mod identity;
pub(crate) mod intercept;
pub(crate) mod proxy;
pub(crate) mod validate;
pub(crate) mod version;

use crate::exit::{Exit, Failure};

/// How a command ends: with an answer, or with a reason why there is none.
pub(crate) type Outcome = Result<Exit, Failure>;
