//! What a configuration is, and what it names, before a proxy is started with it.

use std::path::Path;

use portcullis_api::{Capture, CaptureListener, Certs, Policies as PoliciesPage};
use portcullis_config::{IdentitySource, PathUse, Settings, named_paths};
use portcullis_policy::{ParsedSource, PolicySet, Source};
use portcullis_reload::ignored_files;
use portcullis_report::check::Configuration;
use portcullis_tls::{Clock, check_extra_roots};

use crate::commands::config::unusable;
use crate::config_source::ConfigSource;
use crate::daemon;
use crate::exit::{Exit, Failure};
use crate::files::Policies;
use crate::uncaptured;

/// Reads it, and what it names.
///
/// # Errors
/// If it cannot be read at all.
pub(super) fn read(path: &Path) -> Result<Configuration, Failure> {
    let source = ConfigSource::required(Some(path))?;
    let text = source.read().map_err(|error| Failure::new(Exit::BadConfig, error))?;
    let mut found = Configuration::new(source.to_string());
    let settings = match source.parse(&text) {
        Ok(settings) => settings,
        Err(problems) => {
            found.mistakes = problems.iter().map(|problem| format!("{source}:{problem}")).collect();
            return Ok(found);
        }
    };
    for named in named_paths(&text, &settings) {
        let Some(problem) = unusable(&named) else { continue };
        let problem = format!("{source}:{problem}");
        match named.usage {
            PathUse::Folder | PathUse::File => found.missing.push(problem),
            PathUse::Later | PathUse::Written => found.awaited.push(problem),
        }
    }
    found.root_namespace.clone_from(&settings.mesh.policy.root_namespace);
    found.default_mode = daemon::mode(settings.mesh.policy.default_mode);
    found.capture = capture(&settings);
    if found.capture.inbound.is_some() {
        let sockets = uncaptured::datagrams().map_err(|error| format!("/proc/net/udp: {error}"));
        found.udp = sockets.map(|sockets| sockets.iter().map(ToString::to_string).collect());
    }
    found.certificate = certificate(&settings)?;
    add_policies(&settings, &mut found)?;
    Ok(found)
}

fn capture(settings: &Settings) -> Capture {
    let listener = |listen: Option<std::net::SocketAddr>| {
        listen.map(|listen| CaptureListener { listen: listen.to_string(), captured_at: None })
    };
    let (inbound, outbound) = (listener(settings.inbound.transparent), listener(settings.outbound.transparent));
    if inbound.is_none() && outbound.is_none() {
        return Capture::default();
    }
    let (rules, detail) = daemon::capture_rules(settings);
    Capture { inbound, outbound, rules, detail }
}

/// As the proxy reads them at its start.
fn certificate(settings: &Settings) -> Result<Option<Result<Certs, String>>, Failure> {
    let Some(identity) = &settings.identity else { return Ok(None) };
    let IdentitySource::Files(files) = &identity.source else { return Ok(None) };
    let read = daemon::certificate_page(settings, files, identity.require_private_mode);
    Ok(Some(match read {
        Ok(page) => Ok(serde_json::from_value(page).map_err(anyhow::Error::from)?),
        Err(why) => Err(why),
    }))
}

fn add_policies(settings: &Settings, found: &mut Configuration) -> Result<(), Failure> {
    let Some(folder) = settings.policies.clone() else { return Ok(()) };
    found.ignored = ignored_files(&folder)
        .into_iter()
        .map(|one| (one.path.display().to_string(), one.reason.as_str().to_owned()))
        .collect();
    let Policies { sources, errors } = Policies::read(&[folder]);
    let parsed: Vec<ParsedSource> = sources.iter().map(Source::parse).collect();
    let now = Clock::system().now_unix();
    let loaded = PolicySet::assemble(parsed.iter().chain(settings.services.as_ref())).at(now);
    let roots = check_extra_roots(loaded.set.mesh(), now);
    let lines =
        |found: &mut dyn Iterator<Item = portcullis_policy::Diagnostic>| found.map(|one| one.to_string()).collect();
    let mistakes: Vec<String> = lines(&mut errors.into_iter().chain(loaded.errors).chain(roots.errors));
    found.policy_warnings = lines(&mut loaded.warnings.into_iter().chain(roots.warnings));
    let page: PoliciesPage =
        serde_json::from_value(daemon::policies_page(settings, &loaded.set)).map_err(anyhow::Error::from)?;
    found.policies = page;
    found.policy_mistakes = Some(mistakes);
    Ok(())
}
