//! `portcullis certs show`: what certificates are, whether they are fit for the mesh, and how long they are valid.

mod report;
mod shown;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueHint;
use portcullis_config::HostPort;
use portcullis_identity::leaf::{self, Compat, Role};
use portcullis_identity::{details, signer};
use portcullis_tls::{Clock, TrustBundle, TrustBundles, certificates};
use portcullis_verify::{Target, presented};
use rustls_pki_types::CertificateDer;

use self::report::{ChainLine, Report};
use self::shown::{CertKind, Expiry, Shown};
use crate::commands::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output;

/// Show every certificate of a file or of a server: names, key, uses, time left, and what makes it unfit as an SVID
///
/// 0: fine. 82: one has expired, or is about to. 1: the chain does not lead to a root of --ca. A leaf is about to expire when a third of its
/// lifetime is left, since issuers renew at half of it; a CA, when a tenth is left. --warn-before replaces both.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis certs show certs/cart/cert.pem --ca certs/cart/ca.pem
  portcullis certs show cart:8080 --ca ca/root-cert.pem -o wide
  openssl s_client -connect cart:8080 -showcerts </dev/null | portcullis certs show -
  portcullis certs show ca/root-cert.pem --warn-before 180d -o json")]
pub(super) struct Args {
    /// A file in PEM or DER, `-` for standard input, or the address of a server, which is asked for its chain
    #[arg(value_name = "FILE|HOST:PORT", value_hint = ValueHint::AnyPath)]
    source: PathBuf,
    /// Roots that the chain must lead to
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// How long before its end a certificate counts as about to expire, such as 8h or 30d
    #[arg(long, value_parser = values::ttl)]
    warn_before: Option<Duration>,
    /// The time that a server has to answer
    #[arg(long, value_parser = values::timeout, default_value = "5s")]
    timeout: Duration,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: report::Format,
}

/// Of a leaf, issuers renew at half; of a CA, replacing it takes planning.
const LEAF_FRACTION: i64 = 3;
const CA_FRACTION: i64 = 10;

pub(super) fn run(args: &Args) -> Outcome {
    let chain = read(args)?;
    let clock = Clock::system();
    let now = clock.now_unix();
    let warn = args.warn_before.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let shown: Vec<Shown> = chain.iter().map(|der| show(der, now, warn)).collect();
    let verified = match &args.ca {
        Some(ca) => Some(verify(&chain, ca, &clock)?),
        None => None,
    };
    let is_broken = verified.as_ref().is_some_and(|line| line.error.is_some());
    let expires = shown.iter().any(|shown| matches!(shown.expiry, Expiry::AboutToExpire | Expiry::Expired));
    let report = Report::new(args.source.display().to_string(), &shown, verified, now);
    output::text(&report.render(args.output)?)?;
    Ok(match (expires, is_broken) {
        (true, _) => Exit::Expired,
        (false, true) => Exit::Failure,
        (false, false) => Exit::Ok,
    })
}

/// The certificates, leaf first as they come.
fn read(args: &Args) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let (path, shown) = (&args.source, args.source.display());
    let address = path.to_str().and_then(HostPort::parse).filter(|_| !path.exists());
    if let Some(HostPort { host, port }) = address {
        let target = Target { host, port, deadline: args.timeout };
        let chain = presented(&target).map_err(|error| Failure::new(Exit::Unreachable, error))?;
        if chain.is_empty() {
            let message = format!(
                "{shown} presents no certificate: it speaks no TLS, or refuses this client before it shows one"
            );
            return Err(Failure::message(Exit::Failure, message));
        }
        return Ok(chain);
    }
    let bytes = files::read_bytes(path, portcullis_tls::MAX_FILE_LEN as u64)?;
    parse(&bytes).map_err(|error| Failure::message(Exit::BadInput, format!("{shown}: {error}")))
}

/// PEM with anything between the blocks, as `openssl s_client -showcerts` prints it, or certificates in DER after each other.
fn parse(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if bytes.first() == Some(&0x30) {
        let split = portcullis_der::certificates(bytes).map_err(str::to_owned)?;
        return Ok(split.into_iter().map(CertificateDer::from).collect());
    }
    certificates(bytes).map_err(|error| error.to_string())
}

fn show(der: &CertificateDer<'_>, now: i64, warn: Option<i64>) -> Shown {
    let details = details(der);
    let Ok(known) = &details else {
        return Shown { details, kind: CertKind::Unreadable, unfit: None, expiry: Expiry::Valid };
    };
    let is_ca = known.basic_constraints.is_some_and(|basic| basic.ca);
    let kind = match (is_ca, known.summary.self_issued) {
        (false, _) => CertKind::Leaf,
        (true, false) => CertKind::Intermediate,
        (true, true) => CertKind::Root,
    };
    let unfit = match kind {
        CertKind::Intermediate => signer::check(der).err(),
        CertKind::Root => signer::check_root(der).err(),
        CertKind::Leaf | CertKind::Unreadable => leaf::check(der, Compat::default(), Role::Server).err(),
    };
    let (from, until) = (known.summary.not_before_unix, known.summary.not_after_unix);
    let fraction = if is_ca { CA_FRACTION } else { LEAF_FRACTION };
    let warn = warn.unwrap_or_else(|| until.saturating_sub(from) / fraction);
    let expiry = match now {
        now if now > until => Expiry::Expired,
        now if now < from => Expiry::NotYetValid,
        now if until.saturating_sub(now) <= warn => Expiry::AboutToExpire,
        _ => Expiry::Valid,
    };
    Shown { details, kind, unfit, expiry }
}

/// Verifies the chain as a handshake does; a file of CAs alone has no leaf to verify.
fn verify(chain: &[CertificateDer<'_>], ca: &Path, clock: &Clock) -> Result<ChainLine, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::message(Exit::BadInput, format!("{}: {error}", ca.display()));
    let bytes = files::read_bytes(ca, portcullis_tls::MAX_FILE_LEN as u64)?;
    let bundle = TrustBundle::from_pem(&bytes, clock.now_unix()).map_err(|error| named(&error))?;
    let roots: Vec<(String, String)> = bundle
        .roots()
        .filter_map(|root| Some((root.fingerprint().to_string(), details(root.der()).ok()?.summary.subject)))
        .collect();
    let first = chain.first().map(|der| leaf::check(der, Compat::default(), Role::Server));
    let own = match first {
        Some(Ok(leaf)) => leaf.id.trust_domain(),
        Some(Err(error)) => return Ok(ChainLine::refused(error.class(), &error)),
        None => return Ok(ChainLine::refused("no-cert", &"there is no certificate")),
    };
    let trust = TrustBundles::new(own, [], bundle, [], Compat::default()).map_err(|error| named(&error))?;
    Ok(match trust.verify(chain, Role::Server, clock.now()) {
        Ok((_, path)) => {
            let fingerprint = path.root_fingerprint().to_string();
            let root = roots.into_iter().find(|(known, _)| *known == fingerprint).map(|(_, subject)| subject);
            ChainLine::verified(fingerprint, root.unwrap_or_default())
        }
        Err(error) => ChainLine::refused(error.class(), &error),
    })
}
