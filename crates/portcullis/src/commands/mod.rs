//! One file for each command: its arguments, what it does, how it answers.

pub(crate) mod age;
pub(crate) mod analyze;
pub(crate) mod auth;
pub(crate) mod ca;
pub(crate) mod can;
pub(crate) mod certs;
pub(crate) mod completion;
pub(crate) mod compose;
pub(crate) mod config;
pub(crate) mod connections;
pub(crate) mod demo;
pub(crate) mod edges;
pub(crate) mod explain;
pub(crate) mod healthcheck;
pub(crate) mod hold;
pub(crate) mod identity;
pub(crate) mod intercept;
pub(crate) mod logs;
pub(crate) mod observed;
pub(crate) mod policy;
#[allow(dead_code, reason = "the first commands of several that ask proxies")]
pub(crate) mod proxies;
pub(crate) mod proxy;
pub(crate) mod proxy_config;
pub(crate) mod proxy_status;
pub(crate) mod readiness;
pub(crate) mod replay;
pub(crate) mod resources;
pub(crate) mod run;
#[allow(dead_code, reason = "the first commands of several that ask proxies")]
pub(crate) mod selection;
pub(crate) mod subject;
pub(crate) mod validate;
pub(crate) mod values;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod why;

pub(crate) use crate::exit::Outcome;
