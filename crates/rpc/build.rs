//! Compiles the protocols to Rust; protox, so that no protoc has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let authority = protox::compile(["istio_ca.proto", "portcullis_ca.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(authority)?;
    let workload = protox::compile(["workload.proto"], ["proto"])?;
    let server = std::env::var_os("CARGO_FEATURE_WORKLOAD_SERVER").is_some();
    tonic_prost_build::configure().build_transport(false).build_server(server).compile_fds(workload)?;
    let logs = protox::compile(["otlp_logs.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(logs)?;
    Ok(())
}
