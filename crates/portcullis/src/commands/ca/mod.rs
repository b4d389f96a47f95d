//! `portcullis ca`: a certificate authority that runs, and what there is to do about it.

pub(super) mod folder;
mod init;
mod istiod;
mod log;
mod renew;
mod roots;
mod rotate_root;
mod run;
mod sandbox;
mod status;
mod token;

use std::io;
use std::path::Path;

use anyhow::Context as _;
use portcullis_ca::{Private, write};

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::files::not_written;

/// The files of a CA, named as Istio names them, and its root, which `run` never reads.
const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const ROOT_CERT: &str = "root-cert.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOT_FOLDER: &str = "root";
const ROOT_KEY: &str = "root-key.pem";

/// Run a certificate authority
///
/// Workloads get certificates from it over the network, with a bootstrap token first and with their own certificate from
/// then on. It speaks the protocol of Istio's agents.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca init --dir ca --id spiffe://cluster.local/ns/shop/sa/cart
  portcullis ca run --dir ca --listen 0.0.0.0:15012 --name ca.example.org
  portcullis ca token --dir ca --id spiffe://cluster.local/ns/shop/sa/cart")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::Args),
    Run(run::Args),
    Token(token::Args),
    Status(status::Args),
    Log(log::Args),
    Renew(renew::Args),
    Roots(roots::Args),
    RotateRoot(rotate_root::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Init(args) => init::run(args),
        Command::Run(args) => run::run(args),
        Command::Token(args) => token::run(args),
        Command::Status(args) => status::run(args),
        Command::Log(args) => log::run(args),
        Command::Renew(args) => renew::run(args),
        Command::Roots(args) => roots::run(args),
        Command::RotateRoot(args) => rotate_root::run(args),
    }
}

/// The failure of a question to the CA that should run on a folder.
fn unanswered(dir: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        let dir = dir.display();
        Failure::message(Exit::Unreachable, format!("no CA runs on {dir}, or it does not answer: {error}"))
    }
}

/// Refuses a folder that is for `portcullis certs`.
fn refuse_certs_folder(dir: &Path, exit: Exit) -> Result<(), Failure> {
    folder::made_by_certs_init(dir).map_or(Ok(()), |why| Err(Failure::message(exit, why)))
}

fn read(path: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(path).with_context(|| path.display().to_string())?)
}

/// Puts an intermediate in place. The certificate comes after what it needs: without it nothing is a CA, and a running CA waits
/// for the pair.
fn put(dir: &Path, intermediate: &portcullis_ca::Intermediate, roots: &str) -> Result<(), Failure> {
    let cert = intermediate.cert_pem();
    write(&dir.join(ROOT_CERT), roots.as_bytes(), Private::No, true).map_err(not_written)?;
    write(&dir.join(CHAIN), cert.as_bytes(), Private::No, true).map_err(not_written)?;
    portcullis_ca_server::put_pair(dir, &intermediate.key_pem(), cert).map_err(not_written)
}
