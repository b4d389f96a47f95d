//! The data plane: what happens to one connection, from accept to its access-log line.
//!
//! `inbound`, `outbound` and `gateway` each follow one connection from top to bottom. A connection takes one snapshot of policy and
//! credentials and keeps it. Nothing falls back: an outbound connection whose handshake fails is reset, never sent as
//! plaintext, and an inbound one whose handshake fails never reaches the app.
//!
//! The data plane runs on single-threaded runtimes, one for each worker, each with its own listening sockets; see
//! [`engine`]. Why a connection ended is in one table; see [`outcome`].

mod authorization;
mod balancer;
pub mod beats;
pub mod buffers;
mod captured;
pub mod changes;
mod connect;
mod destination;
mod downgrade;
pub mod drain;
mod endpoints;
pub mod engine;
mod gateway;
mod gateway_listener;
mod inbound;
mod inbound_hbone;
pub mod limits;
mod outbound;
mod outbound_hbone;
pub mod outcome;
mod permits;
mod plaintext_response;
mod relay;
mod resolved_route;
mod routes;
mod routing_decision;
mod services;
mod state;
mod to_app;
mod trust_expiry;
mod undeclared;
mod upstream;
mod wake_gated;

pub use gateway_listener::GatewayServers;
pub use services::{Originators, ServiceTable};
pub use state::{ProxyParts, ProxyState, Snapshot};
