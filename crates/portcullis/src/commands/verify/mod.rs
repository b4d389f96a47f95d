//! `portcullis verify`: proof from outside that a port lets in what its policy says, and nothing else.

mod args;
mod policy;
mod report;

use std::path::Path;

use portcullis_config::IdentitySource;
use portcullis_identity::leaf::Compat;
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_policy::Mode;
use portcullis_tls::{Clock, TrustBundle, TrustBundles};
use portcullis_verify::{
    Attempt, CaKey, CertificateError, Identity, Probe, Prober, ServerCheck, Target, check_server, evaluate,
};

pub(crate) use self::args::Args;
use self::report::{Report, Subject};
use super::values;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output;

pub(crate) fn run(args: &Args) -> Outcome {
    let wanted = args.identity.as_deref().map(values::parse_id).transpose()?;
    let settings = settings(args)?;
    let identity = identity(args, settings.as_ref())?;
    let trust = trust(args, settings.as_ref(), identity.as_ref(), wanted.as_ref())?;
    let found = policy::find(args, settings.as_ref(), identity.as_ref().map(|identity| &identity.id))?;
    let clock = Clock::system();
    let prober = Prober {
        target: Target { host: args.target.host.clone(), port: args.target.port, deadline: args.timeout },
        ca: ca_key(args)?,
        domain: wanted.as_ref().map_or("cluster.local", SpiffeId::domain_str),
        now_unix: clock.now_unix(),
        identity,
    };
    let attempts: Vec<Attempt> = Attempt::ALL.into_iter().filter(|attempt| wants(args, *attempt)).collect();
    let mut probes: Vec<(Attempt, Probe)> = Vec::new();
    prober
        .run(&attempts, |attempt, probe| probes.push((attempt, probe)))
        .map_err(|error| Failure::new(Exit::Unreachable, error))?;
    let presented = probes.iter().find_map(|(_, probe)| match probe {
        Probe::Tried(seen) => Some(seen.presented.as_slice()).filter(|chain| !chain.is_empty()),
        Probe::Skipped(_) => None,
    });
    let check = ServerCheck { identity: wanted.as_ref(), trust: trust.as_ref(), now: clock.now() };
    let server = (wanted.is_some() || trust.is_some() && found.policy.mode != Mode::Disable)
        .then(|| check_server(presented.unwrap_or_default(), &check));
    let rows = evaluate(&probes, &found.policy, prober.identity.is_some());
    let subject = Subject { target: args.target.to_string(), mode: found.policy.mode, decided_by: found.decided_by };
    let report = Report::new(subject, rows, server, wanted.as_ref());
    output::text(&report.render(args.output)?)?;
    Ok(if report.is_as_expected() { Exit::Ok } else { Exit::Failure })
}

fn wants(args: &Args, attempt: Attempt) -> bool {
    args.only.is_empty() || args.only.contains(&attempt)
}

/// The configuration, if one is named: the sidecar's own.
fn settings(args: &Args) -> Result<Option<portcullis_config::Settings>, Failure> {
    let Some(file) = &args.subject.config else { return Ok(None) };
    if files::is_stdin(file) {
        let message = "-c is read more than once, which standard input cannot be; name a file";
        return Err(Failure::message(Exit::Usage, message));
    }
    let source = ConfigSource::find(Some(file));
    source.map(|source| source.load().map(|loaded| loaded.settings)).transpose()
}

/// The credentials that are to be let in: those of the command line, else the configuration's own.
fn identity(args: &Args, settings: Option<&portcullis_config::Settings>) -> Result<Option<Identity>, Failure> {
    let (cert, key) = match (&args.cert, &args.key, identity_files(settings)) {
        (Some(cert), Some(key), _) => (cert, key),
        (None, None, Some(files)) => (&files.certificate, &files.private_key),
        _ => return Ok(None),
    };
    let (chain, key_pem) = (read(cert)?, read(key)?);
    let named = |error: CertificateError| {
        let file = if matches!(error, CertificateError::Key(_)) { key } else { cert };
        Failure::message(Exit::BadInput, format!("{}: {error}", file.display()))
    };
    Identity::from_pem(&chain, &key_pem).map(Some).map_err(named)
}

fn identity_files(settings: Option<&portcullis_config::Settings>) -> Option<&portcullis_config::IdentityFiles> {
    match &settings?.identity.as_ref()?.source {
        IdentitySource::Files(files) => Some(files),
        IdentitySource::Ca(_) | IdentitySource::WorkloadApi(_) => None,
    }
}

/// The roots for the server's chain, for the trust domain that it is to have.
fn trust(
    args: &Args,
    settings: Option<&portcullis_config::Settings>,
    identity: Option<&Identity>,
    wanted: Option<&SpiffeId>,
) -> Result<Option<TrustBundles>, Failure> {
    let Some(file) = args.ca.as_ref().or_else(|| Some(&identity_files(settings)?.trust_bundle)) else {
        return Ok(None);
    };
    let named =
        |error: &dyn std::fmt::Display| Failure::message(Exit::BadInput, format!("{}: {error}", file.display()));
    let bundle = TrustBundle::from_pem(&read(file)?, Clock::system().now_unix()).map_err(|error| named(&error))?;
    let own = wanted.or_else(|| Some(&identity?.id)).map(SpiffeId::trust_domain);
    let cluster_local = || TrustDomain::parse("cluster.local").map_err(|error| named(&error));
    let own = match own.or_else(|| settings.map(|settings| settings.mesh.trust_domain.clone())) {
        Some(own) => own,
        None => cluster_local()?,
    };
    let (aliases, compat) =
        settings.map_or_else(|| (Vec::new(), Compat::default()), |it| (it.mesh.aliases.clone(), it.tls.compat));
    TrustBundles::new(own, aliases, bundle, [], compat).map(Some).map_err(|error| named(&error))
}

fn ca_key(args: &Args) -> Result<Option<CaKey>, Failure> {
    let (Some(cert), Some(key)) = (&args.ca_cert, &args.ca_key) else { return Ok(None) };
    let key_pem = files::read_text(key, MAX)?;
    let made = CaKey::from_pem(&read(cert)?, &key_pem);
    made.map(Some).map_err(|error| Failure::message(Exit::BadInput, format!("{}: {error}", cert.display())))
}

const MAX: u64 = portcullis_tls::MAX_FILE_LEN as u64;

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    files::read_text(file, MAX).map(String::into_bytes)
}
