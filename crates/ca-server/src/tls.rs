//! The server's certificate, which the CA signs itself, and the TLS with it.

use std::sync::Arc;
use std::time::Duration;

use portcullis_ca::{ServerName, Signer, Validity};
use portcullis_tls::{Clock, ca_channel};
use rustls::ServerConfig;

/// Lifetime of the CA's own server certificate; it is renewed at half of it.
pub(crate) const SERVER_TTL: Duration = Duration::from_secs(24 * 3600);

/// Makes a new server certificate, and returns the TLS configuration that uses it and its validity.
pub(crate) fn configuration(
    signer: &Signer,
    names: &[ServerName],
    clock: &Clock,
) -> Result<(Arc<ServerConfig>, Validity), String> {
    let server = signer.server_certificate(names, SERVER_TTL).map_err(|error| error.to_string())?;
    let config = ca_channel::server_config(server.chain, server.key, clock).map_err(|error| error.to_string())?;
    Ok((Arc::new(config), server.validity))
}
