//! Messages and gRPC services, compiled from the files in `proto/`.
//!
//! Nothing in here decides anything: who may ask for what is the business of whoever serves it.

// All but this page is written by the compiler of protocols, whose style is not ours to lint.
#![allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    clippy::nursery,
    reason = "generated"
)]

/// `istio.v1.auth`: how Istio's agents get their certificates.
pub mod istio {
    tonic::include_proto!("istio.v1.auth");
}

/// `portcullis.ca.v1`: the trust bundles of a mesh.
pub mod bundles {
    tonic::include_proto!("portcullis.ca.v1");
}

/// The OpenTelemetry protocol for logs: messages, which HTTP carries without gRPC.
pub mod otlp {
    tonic::include_proto!("portcullis.otlp.v1");
}

/// The SPIFFE Workload API: messages, and with the feature `workload-server` the service.
pub mod workload {
    tonic::include_proto!("_");
}
