//! `portcullis ca run`: the daemon.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use portcullis_ca::ServerName;
use portcullis_ca_server::{CaServer, Config, StartError};
use portcullis_telemetry::{log, panics};
use rustix::process::Signal;

use super::folder::refuse_certs_folder;
use super::{istiod, sandbox};
use crate::commands::Outcome;
use crate::exit::{Exit, Failure};
use crate::signals::{Signals, reap};
use crate::systemd::ServiceManager;

/// Run a certificate authority until SIGTERM
///
/// Registrations, the CA's certificates and key, the roots, the token key and IstioOperator documents in the folder are read again
/// when they change, and on SIGHUP; on SIGHUP the audit goes on in a new file if the old one was moved away. The root's key is
/// never read. $DEFAULT_WORKLOAD_CERT_TTL and $MAX_WORKLOAD_CERT_TTL apply where no file sets a lifetime.
///
/// A sandbox restricts it to its folder, the --bootstrap folder, the targets of links and trustBundles, and its ports.
/// Changing these needs a restart.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca run --dir ca --listen 127.0.0.1:15012
  portcullis ca run --dir ca --listen 0.0.0.0:15012 --name ca.example.org --metrics 127.0.0.1:15014
  portcullis ca run --dir ca --listen 0.0.0.0:15012 --name ca --bootstrap bootstrap")]
pub(super) struct Args {
    /// Folder that `ca init` wrote, or that an external CA's files were put into
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Address to listen on; Istio's CA has port 15012
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// DNS name or IP address that callers use, for the server certificate; may be repeated. localhost, the loopback
    /// addresses and the address of --listen are always in it
    #[arg(long, value_name = "NAME", value_parser = ServerName::parse)]
    name: Vec<ServerName>,
    /// Folder that keeps a fresh token and the roots for each identity: DIR/NAMESPACE/ACCOUNT/token and root-cert.pem
    #[arg(long, value_name = "DIR")]
    bootstrap: Option<PathBuf>,
    /// Address for /metrics and /healthz/ready over HTTP
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Do not restrict files and ports to what the CA needs (Landlock)
    #[arg(long)]
    no_landlock: bool,
    /// Do not block the system calls that the CA never needs (seccomp)
    #[arg(long)]
    no_seccomp: bool,
    /// Format of the log lines on standard output
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `target=level,...`; otherwise $PORTCULLIS_LOG, or `info`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    /// `key=value`
    #[default]
    Text,
    /// One object per line
    Json,
}

pub(super) fn run(args: &Args) -> Outcome {
    portcullis_sandbox::dumps::forbid().context("cannot forbid core dumps")?;
    refuse_certs_folder(&args.dir, Exit::BadConfig)?;
    let format = match args.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    // Before the sandbox, which hides the number of CPUs.
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let access = sandbox::access(&args.dir, args.bootstrap.as_deref(), [Some(args.listen), args.metrics])?;
    let manager = Arc::new(ServiceManager::from_environment());
    let sandbox = crate::sandbox::enter((!args.no_landlock).then_some(&access), !args.no_seccomp);
    let named = std::env::var("PORTCULLIS_LOG").ok().filter(|level| !level.is_empty());
    let level = args.log_level.clone().or(named).unwrap_or_else(|| "info".to_owned());
    let _log = log::init(format, &level).map_err(|error| Failure::message(Exit::Usage, error))?;
    panics::log();
    sandbox.log();
    manager.log();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let config = Config {
        dir: args.dir.clone(),
        listen: args.listen,
        names: args.name.clone(),
        bootstrap: args.bootstrap.clone(),
        metrics: args.metrics,
        default_lifetimes: istiod::default_lifetimes()?,
        clock: portcullis_tls::Clock::system(),
    };
    runtime.block_on(async {
        let mut signals = Signals::listen(&[Signal::TERM, Signal::INT, Signal::HUP, Signal::CHILD])?;
        let authority = CaServer::start(config).await.map_err(not_started)?;
        let (address, reload) = (authority.address()?, authority.reload());
        tracing::info!(listen = %address, metrics = authority.metrics_address().map(tracing::field::display), "serving");
        let told = Arc::clone(&manager);
        // On the workers, so that a ping says that they run tasks.
        tokio::spawn(async move { told.follow(|| Ok(()), || None).await });
        let end = async {
            loop {
                match signals.next().await {
                    Signal::CHILD => reap(),
                    // What has changed in the folder is found without it.
                    Signal::HUP => reload.now(),
                    _ => return manager.stopping().await,
                }
            }
        };
        authority.serve(end).await;
        Ok(Exit::Ok)
    })
}

fn not_started(error: StartError) -> Failure {
    let exit = match &error {
        StartError::Folder(_) | StartError::State(_) => Exit::BadConfig,
        StartError::Io { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => Exit::NoPermission,
        StartError::Io { .. } => Exit::Failure,
    };
    Failure::new(exit, error)
}
