//! The arguments of `portcullis verify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;
use portcullis_config::HostPort;
use portcullis_policy::Mode;
use portcullis_verify::Attempt;

use super::report;
use crate::commands::subject::SubjectArgs;
use crate::commands::values;
use portcullis_discovery::Url;

/// Connect to a port in every wrong way and in the right one, and compare what is let in with the policy
///
/// Real connections from where this runs: plaintext, silence, mesh TLS without a certificate, with one of a wrong CA, with an expired
/// one, with a wrong identity, old versions of TLS, resumption, early data, TLS that does not announce the mesh, and the right identity
/// if there are credentials. What the policy says comes from --mode, from policies (-f and -n, or -c), or from the sidecar (--admin).
/// 0: all as expected. 1: something is let in or refused that should not be, or cannot be told. 69: no connection.
///
/// The app gets the request `GET /` with the user agent portcullis-verify. Without credentials some refusals cannot be told from an app
/// that closes: then the outcome is unclear, and the exit code 1.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis verify cart:8080 --mode STRICT
  portcullis verify cart:8080 --mode STRICT --cert web/cert.pem --key web/key.pem --ca web/ca.pem
  portcullis verify 127.0.0.1:18443 -c cart.yaml --identity spiffe://cluster.local/ns/shop/sa/cart
  portcullis verify cart:8080 -f policies -n shop -l app=cart -o junit
  portcullis verify cart:8080 --admin http://127.0.0.1:15000 -o json")]
pub(crate) struct Args {
    /// The port to connect to
    #[arg(value_name = "HOST:PORT", value_parser = values::host_port)]
    pub(super) target: HostPort,
    /// The mode that the port should have
    #[arg(long, value_name = "MODE", value_parser = values::mode(), conflicts_with_all = ["config", "file", "admin"])]
    pub(super) mode: Option<Mode>,
    /// The admin address of the sidecar, which is asked for the mode
    #[arg(long, value_name = "URL", value_parser = Url::parse, value_hint = ValueHint::Url, conflicts_with_all = ["config", "file"])]
    pub(super) admin: Option<Url>,
    #[command(flatten)]
    pub(super) subject: SubjectArgs,
    /// Port of the workload that the policy is asked about [default: as the configuration maps it, or that of HOST:PORT]
    #[arg(short, long, value_parser = values::port)]
    pub(super) port: Option<u16>,
    /// Certificate chain of a workload that is to be let in [default: `identity.files` of the configuration]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// Roots that the server's chain must lead to
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) ca: Option<PathBuf>,
    /// Certificate of the server's CA, which with --ca-key signs the expired certificate and the wrong identity. Without it their chains
    /// only name that CA
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "ca_key")]
    pub(super) ca_cert: Option<PathBuf>,
    /// Private key of the server's CA
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "ca_cert")]
    pub(super) ca_key: Option<PathBuf>,
    /// The identity that the server must have
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(super) identity: Option<String>,
    /// Whether the sidecar accepts TLS 1.2 (`tls.minVersion`) [default: as the configuration says, or no]
    #[arg(long)]
    pub(super) allow_tls12: bool,
    /// Try only these, separated by commas: right-identity, plaintext, no-certificate, wrong-ca, expired, wrong-identity, tls1.2, tls1.1,
    /// tls1.0, resumption, early-data, no-alpn, silence
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = attempt)]
    pub(super) only: Vec<Attempt>,
    /// The time that each attempt has, such as 500ms or 5s. The whole run takes at most fifteen times as long
    #[arg(long, value_parser = values::timeout, default_value = "5s")]
    pub(super) timeout: Duration,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: report::Format,
}

fn attempt(name: &str) -> Result<Attempt, String> {
    Attempt::named(name).ok_or_else(|| {
        let names: Vec<&str> = Attempt::ALL.into_iter().map(Attempt::name).collect();
        format!("there is no such attempt; write one of {}", names.join(", "))
    })
}
