//! A configuration, before a proxy is started with it.

use portcullis_api::{Capture, Certs, Mode, Policies, ProxyInfo, Timestamp};

use super::facts::Known;
use super::id::Id;
use super::model::{Check, Finding};
use super::{capture, identity, policy};

/// What was found out about a configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Where it is.
    pub source: String,
    /// Every mistake in it, as `file:line:column: ...`. If there is one, nothing else is known.
    pub mistakes: Vec<String>,
    /// Files and folders that must be there, and are not, likewise.
    pub missing: Vec<String>,
    /// Files that the proxy waits for, and are not there yet.
    pub awaited: Vec<String>,
    /// Every mistake of the policy files; none without a policy folder.
    pub policy_mistakes: Option<Vec<String>>,
    /// What is valid but probably unintended.
    pub policy_warnings: Vec<String>,
    /// The policies, if they are valid.
    pub policies: Policies,
    /// Files of the folder that are not read, and why.
    pub ignored: Vec<(String, String)>,
    /// The certificate of `identity.files`, or why it is refused; none if certificates come from elsewhere.
    pub certificate: Option<Result<Certs, String>>,
    /// The rules of this network namespace.
    pub capture: Capture,
    /// UDP sockets of this network namespace that other hosts reach, or why that is not known.
    pub udp: Result<Vec<String>, String>,
    /// `mesh.rootNamespace`.
    pub root_namespace: String,
    /// `mesh.defaultMode`.
    pub default_mode: Mode,
}

impl Configuration {
    /// One of which nothing is known yet.
    #[must_use]
    pub fn new(source: String) -> Self {
        Self {
            source,
            mistakes: Vec::new(),
            missing: Vec::new(),
            awaited: Vec::new(),
            policy_mistakes: None,
            policy_warnings: Vec::new(),
            policies: Policies::default(),
            ignored: Vec::new(),
            certificate: None,
            capture: Capture::default(),
            udp: Ok(Vec::new()),
            root_namespace: String::new(),
            default_mode: Mode::Unknown,
        }
    }
}

/// Every check of a configuration, in the order of the reference.
#[must_use]
pub fn evaluate_configuration(config: &Configuration, now: Timestamp) -> Vec<Check> {
    let mut checks = vec![Check::new(Id::ConfigValid, valid(config))];
    if !config.mistakes.is_empty() {
        return checks;
    }
    checks.push(Check::new(Id::ConfigPaths, paths(config)));
    checks.push(Check::new(Id::ConfigPolicies, policies(config)));
    checks.push(Check::new(Id::ConfigIdentity, identity(config)));
    checks.push(Check::new(Id::ConfigUdp, vec![udp(config)]));
    let rules = capture::evaluate(&config.capture, &config.source, None, now);
    let none = || Finding::skipped("it has no transparent listener: nothing is to be redirected");
    checks.push(Check::new(Id::CaptureRules, vec![rules.unwrap_or_else(none)]));
    if let Some(Ok(certs)) = &config.certificate {
        let known = as_known(certs);
        checks.push(Check::new(Id::CertificateTime, unnamed(identity::leaf_time(&[&known], now))));
        checks.push(Check::new(Id::IntermediateTime, unnamed(identity::intermediate_time(&[&known], now))));
        checks.push(Check::new(Id::RootTime, unnamed(identity::root_time(&[&known], now))));
    }
    checks.push(Check::new(Id::PolicyFolder, vec![policy::folder_of(&config.policies, &config.default_mode, None)]));
    if config.policies.folder.is_some() {
        let (root, default) = (&config.root_namespace, config.default_mode);
        checks.push(Check::new(Id::PolicyMeshWide, vec![policy::mesh_wide_of(&config.policies, root, default, None)]));
        let ignored = config.ignored.iter().map(|(file, reason)| (file.as_str(), reason.as_str()));
        checks.push(Check::new(Id::PolicyIgnoredFiles, vec![policy::ignored_of(ignored, None)]));
    }
    checks
}

/// The certificate as that of a proxy which is not there yet.
fn as_known(certs: &Certs) -> Known {
    let never = Timestamp::default();
    Known {
        label: String::new(),
        proxy: ProxyInfo::default(),
        asked_at: never,
        answered_at: never,
        policies: Policies::default(),
        certs: certs.clone(),
        chain: Ok(()),
        observations: None,
        status: None,
    }
}

fn unnamed(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.iter_mut().for_each(|finding| finding.proxies.clear());
    findings
}

fn each(problems: &[String], finding: fn(Option<&Known>, String) -> Finding, remedy: &str) -> Vec<Finding> {
    let of = |problem: &String| finding(None, problem.clone()).remedy(remedy.to_owned()).at(policy::location(problem));
    problems.iter().map(of).collect()
}

fn valid(config: &Configuration) -> Vec<Finding> {
    if config.mistakes.is_empty() {
        return vec![Finding::passed(None, config.source.clone())];
    }
    each(
        &config.mistakes,
        Finding::failed,
        "correct it as the line says; `portcullis config schema` helps an editor to",
    )
}

fn paths(config: &Configuration) -> Vec<Finding> {
    let mut findings = each(
        &config.missing,
        Finding::failed,
        "put it there, or correct the path: the proxy does not start without it",
    );
    findings.extend(each(
        &config.awaited,
        Finding::warning,
        "put it there, or correct the path: the proxy is not ready without it",
    ));
    if findings.is_empty() {
        findings.push(Finding::passed(None, "all are there".to_owned()));
    }
    findings
}

fn policies(config: &Configuration) -> Vec<Finding> {
    let Some(mistakes) = &config.policy_mistakes else {
        return vec![Finding::skipped("it names no policy folder")];
    };
    let mut findings = each(mistakes, Finding::failed, "correct it as the line says: the proxy does not start with it");
    findings.extend(each(&config.policy_warnings, Finding::warning, "see docs/reference/analyze.md"));
    if findings.is_empty() {
        findings.push(Finding::passed(None, "every file is valid".to_owned()));
    }
    findings
}

fn udp(config: &Configuration) -> Finding {
    if config.capture.inbound.is_none() {
        return Finding::skipped("it has no transparent inbound listener: nothing is to be redirected");
    }
    match &config.udp {
        Err(why) => Finding::unchecked(None, "the UDP sockets of this network namespace cannot be listed".to_owned())
            .why([why.clone()])
            .remedy("run it in the network namespace of the proxy, with /proc mounted".to_owned()),
        Ok(sockets) if sockets.is_empty() => {
            Finding::passed(None, "no socket in this network namespace receives UDP from other hosts".to_owned())
        }
        Ok(sockets) => Finding::warning(None, "UDP is never redirected, and no mode protects it".to_owned())
            .why(sockets.iter().cloned())
            .remedy(format!(
                "drop what the mesh must not get: `portcullis intercept install -c {} --drop-inbound-udp-ports PORTS`",
                config.source
            )),
    }
}

fn identity(config: &Configuration) -> Vec<Finding> {
    match &config.certificate {
        None => vec![Finding::skipped("certificates do not come from files")],
        Some(Ok(_)) => vec![Finding::passed(None, "certificate, key and roots belong together".to_owned())],
        Some(Err(why)) => {
            let finding = Finding::failed(None, "certificate, key and roots are refused".to_owned());
            vec![
                finding.why(why.lines().map(str::to_owned)).remedy(
                    "`portcullis certs show FILE --ca ROOTS` shows them; issue a certificate that fits".to_owned(),
                ),
            ]
        }
    }
}
