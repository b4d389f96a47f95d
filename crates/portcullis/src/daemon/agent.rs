//! Starts the agent that requests certificates, from a CA or over the Workload API, in a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use portcullis_ca::{Private, write};
use portcullis_ca_client::CredentialSink;
use portcullis_ca_client::ca::{CaAgent, Foreign, Inputs, KeepRoots, KeepToken, ReadFile};
use portcullis_ca_client::workload_api::WorkloadApiAgent;
use portcullis_config::{CaClient, Settings, WorkloadApi};
use portcullis_policy::PolicySet;
use portcullis_proxy::changes::ChangeNotifier;
use portcullis_reload::{FileContent, FileSet, Watcher};
use portcullis_telemetry::Metrics;
use portcullis_tls::{Clock, TrustBundle, certificates};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::file_mode::SecretFileMode;
use super::identity_files::{identity_rules, watch_files};
use super::source_status::SourceStatus;
use crate::exit::Failure;

/// The longest token that is accepted, in bytes: those of Kubernetes have about one thousand.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The status of a started agent, and the watcher of the files that it needs.
type Started = (SourceStatus, Option<Watcher>);

/// The dependencies of every agent.
pub(super) struct AgentStart<'a> {
    pub(super) settings: &'a Settings,
    pub(super) sink: CredentialSink,
    pub(super) changed: ChangeNotifier,
}

/// Requests certificates from a CA.
pub(super) fn from_ca(
    start: AgentStart<'_>,
    ca: &CaClient,
    set: &Arc<ArcSwap<PolicySet>>,
    require_private: bool,
    metrics: &Metrics,
) -> Result<Started, Failure> {
    let AgentStart { settings, sink, changed } = start;
    let metrics = metrics.clone();
    let (ttl, ttl_from) = ca.ttl_in_force();
    let (kind, kind_from) = ca.key_in_force(set.load().mesh().key_type());
    let ttl = ttl.map(|ttl| format!("{}s", ttl.as_secs()));
    tracing::info!(key_type = %kind, %kind_from, ttl, %ttl_from, "certificates are asked for");
    if let Some(warning) = kind.warning() {
        tracing::warn!(key_type = %kind, "{warning}");
    }
    let (key_config, key_policies) = (ca.clone(), Arc::clone(set));
    let (foreign, watcher) = foreign(settings)?;
    let roots = ca.trust_bundle.clone();
    let inputs = Inputs {
        roots: Box::new(move || read(&roots).map(|file| file.content.to_vec())),
        key_type: Box::new(move || key_config.key_in_force(key_policies.load().mesh().key_type()).0),
        token: ca.token_file.clone().map(|path| token(path, require_private)),
        keep_token: ca.token_file.clone().filter(|_| ca.renew_token).map(keep_token),
        keep_roots: roots_beside_token(ca).then(|| keep_roots(ca.trust_bundle.clone())),
        foreign,
        connections: Box::new(move || metrics.connections_by_root()),
    };
    let (rules, announce) = (identity_rules(settings), move || changed.notify());
    let (agent, monitor) = CaAgent::new(ca.clone(), rules, Clock::system(), inputs, sink, announce);
    spawn_thread(agent.run())?;
    Ok((SourceStatus::agent("ca", monitor, watcher.as_ref()), watcher))
}

/// Receives certificates from a SPIFFE agent.
pub(super) fn from_workload_api(start: AgentStart<'_>, api: &WorkloadApi) -> Result<Started, Failure> {
    let AgentStart { settings, sink, changed } = start;
    let (foreign, watcher) = foreign(settings)?;
    let (socket, rules, announce) = (api.socket.clone(), identity_rules(settings), move || changed.notify());
    let (agent, monitor) = WorkloadApiAgent::new(socket, rules, Clock::system(), foreign, sink, announce);
    spawn_thread(agent.run())?;
    Ok((SourceStatus::agent("workloadApi", monitor, watcher.as_ref()), watcher))
}

/// Runs an agent with a runtime of its own: making a key delays no connection, and load delays no renewal. It ends with the
/// process.
fn spawn_thread(work: impl Future<Output = ()> + Send + 'static) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a thread")?;
    let thread = thread::Builder::new().name("identity".to_owned());
    thread.spawn(move || runtime.block_on(work)).context("cannot start a thread")?;
    Ok(())
}

/// The current `mesh.trustBundles`; files that turn bad leave the last good ones in force.
fn foreign(settings: &Settings) -> Result<(watch::Receiver<Foreign>, Option<Watcher>), Failure> {
    let (sender, receiver) = watch::channel(Foreign::new());
    let paths: Vec<PathBuf> = settings.foreign_bundles().cloned().collect();
    if paths.is_empty() {
        return Ok((receiver, None));
    }
    let domains: Vec<_> = settings.mesh.trust_bundles.iter().map(|(domain, _)| domain.clone()).collect();
    let loader = move |files: &[FileContent]| {
        let mut all = Foreign::new();
        for (domain, file) in domains.iter().zip(files) {
            let roots =
                roots(file).map_err(|why| format!("mesh.trustBundles[{domain}]: {why}\n  {}", file.path.display()))?;
            all.push((domain.clone(), roots));
        }
        let summary = format!("bundles of {} foreign trust domains", all.len());
        sender.send_replace(all);
        Ok::<_, String>(summary)
    };
    watch_files("mesh.trustBundles", settings, paths, loader).map(|watcher| (receiver, Some(watcher)))
}

fn roots(file: &FileContent) -> Result<Vec<CertificateDer<'static>>, String> {
    let bundle = TrustBundle::from_pem(&file.content, Clock::system().now_unix());
    bundle.map_err(|error| error.to_string())?;
    certificates(&file.content).map_err(|error| error.to_string())
}

/// The token, read anew each time it is needed.
fn token(path: PathBuf, require_private: bool) -> ReadFile<zeroize::Zeroizing<String>> {
    let mut mode = SecretFileMode::new("token", require_private);
    Box::new(move || {
        let file = read(&path)?;
        mode.check(&file)?;
        let text = std::str::from_utf8(&file.content).unwrap_or_default().trim();
        let is_token =
            !text.is_empty() && text.len() <= MAX_TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        let shown = path.display();
        if is_token { Ok(text.to_owned().into()) } else { Err(format!("{shown}: its content is not a token")) }
    })
}

/// Replaces the token by one for the next start.
fn keep_token(path: PathBuf) -> KeepToken {
    Box::new(move |token| write(&path, token.as_bytes(), Private::Yes, true).map_err(|error| error.to_string()))
}

/// Whether the roots are in the folder of the token, which a joined host has for itself and the sandbox leaves open.
fn roots_beside_token(ca: &CaClient) -> bool {
    let token = ca.token_file.as_ref().filter(|_| ca.renew_token);
    token.is_some_and(|token| token.parent() == ca.trust_bundle.parent())
}

/// Replaces the roots by those of now.
fn keep_roots(path: PathBuf) -> KeepRoots {
    Box::new(move |roots| {
        let text: String = roots.iter().map(|root| portcullis_ca::pem(root)).collect();
        write(&path, text.as_bytes(), Private::No, true).map_err(|error| error.to_string())
    })
}

fn read(path: &std::path::Path) -> Result<FileContent, String> {
    let files = FileSet::Files(vec![path.to_owned()]).read().complete().map_err(|errors| errors.to_string())?;
    files.into_iter().next().ok_or_else(|| format!("{}: there is no such file", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_read_anew_each_time_and_must_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mut strict = token(path.clone(), true);
        assert!(strict().is_err(), "not there yet");
        let mut write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            strict().map(|token| token.to_string())
        };
        assert_eq!(write("a.b.c\n").as_deref(), Ok("a.b.c"));
        assert_eq!(write("d.e.f").as_deref(), Ok("d.e.f"));
        for wrong in ["", " \n", "two words", "a\u{7}", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert!(write(wrong).is_err(), "{wrong:?}");
        }
        fs::write(&path, "a.b.c").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(strict().is_err(), "others may read it");
        assert!(token(path, false)().is_ok());
    }
}
