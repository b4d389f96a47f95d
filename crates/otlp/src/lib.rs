//! Sends the access log to an OpenTelemetry collector: OTLP logs over HTTP/1.1, as protobuf or JSON.
//!
//! A connection that ends puts its line into a bounded queue and goes on ([`QueueSink`]). A thread with a runtime of its own, away from
//! the data plane, takes lines from it, encodes and sends them in batches, and retries. What the queue has no room for, and what a
//! collector does not take in time, is dropped and counted. Without an endpoint there is neither queue nor thread.
//!
//! The crate reads no files: the caller passes the roots of an https endpoint.

mod answer;
mod client;
mod encode;
mod exporter;
mod json;
mod message;
mod protobuf;
mod queue;
mod record;
mod report;
mod resource;
mod worker;

pub use client::SetupError;
pub use exporter::{Exporter, ExporterParts};
pub use queue::{LogQueue, QueueSink, queue};
pub use resource::ResourceParts;
