//! Reading the CA's folder, and reading it again when it changes. Four sets, each replaced atomically and each with its own last
//! good version: the four files of the signer, the key of the tokens, the registrations with the bundles that they name, and Istio's
//! resources.

use std::io;
use std::path::Path;
use std::sync::Arc;

use portcullis_ca::rotation::{Files, Rotation};
use portcullis_ca::{DefaultLifetimes, Private, Registrations, Signer, SignerFiles, TokenKey, WriteError, write};
use portcullis_identity::TrustDomain;
use portcullis_reload::{FileContent, FileSet, Monitor, Options, Watcher};
use portcullis_tls::{Clock, TrustBundle, utc};

use crate::ca_state::{CaState, Foreign};
use crate::resources;

const REGISTRATIONS: &str = "identities.yaml";

const TOKEN_KEY: &str = "token-key.pem";

/// The files of the signer.
const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const ROOT_CERT: &str = "root-cert.pem";
/// This one may be missing, and may come or go at any time.
const CHAIN: &str = "cert-chain.pem";

/// The key of a certificate that is being put in place: see [`replace_key_and_cert`].
const NEXT_KEY: &str = "ca-key-next.pem";

/// The watchers. They stop when dropped.
pub(crate) struct Watchers {
    signer: Watcher,
    registrations: Watcher,
    token_key: Watcher,
    resources: Watcher,
}

impl Watchers {
    /// Handles that look at the files at once.
    pub(crate) fn monitors(&self) -> Vec<Monitor> {
        [&self.signer, &self.registrations, &self.token_key, &self.resources].map(Watcher::monitor).to_vec()
    }
}

fn signer_files(dir: &Path) -> FileSet {
    let required = [CA_CERT, CA_KEY, ROOT_CERT].map(|name| dir.join(name)).to_vec();
    FileSet::SomeOptional { required, optional: vec![dir.join(CHAIN)] }
}

/// The files that a CA on this folder reads, including targets of links and `trustBundles`, for a sandbox. Unreadable ones are
/// left out.
#[must_use]
pub fn reads(dir: &Path) -> Vec<FileSet> {
    let bundles = registrations(dir).map(|read| read.trust_bundles.into_values().collect()).unwrap_or_default();
    vec![signer_files(dir), FileSet::Files(vec![dir.join(REGISTRATIONS), dir.join(TOKEN_KEY)]), FileSet::Files(bundles)]
}

pub(crate) fn signer(dir: &Path, configured: Option<&TrustDomain>, clock: &Clock) -> Result<Signer, String> {
    Ok(read_signer(dir, configured, clock)?.signer)
}

/// The files of the folder and the signer that they define.
struct SignerFolder {
    signer: Signer,
    files: Vec<FileContent>,
    /// A crash interrupted [`replace_key_and_cert`], so the pending key is used.
    key_pending: bool,
}

fn read_signer(dir: &Path, configured: Option<&TrustDomain>, clock: &Clock) -> Result<SignerFolder, String> {
    let mut files = signer_files(dir).read().complete().map_err(|error| error.to_string())?;
    let refused = match parse_signer(&files, configured, clock) {
        Ok(signer) => return Ok(SignerFolder { signer, files, key_pending: false }),
        Err(error) => format!("{}: {error}", dir.display()),
    };
    let pending = FileSet::Files(vec![dir.join(NEXT_KEY)]).read().complete().ok().and_then(|mut files| files.pop());
    let key = files.iter_mut().find(|file| file.path.file_name().is_some_and(|own| own == CA_KEY));
    if let (Some(key), Some(next)) = (key, pending) {
        (key.content, key.mode) = (next.content, next.mode);
        if let Ok(signer) = parse_signer(&files, configured, clock) {
            return Ok(SignerFolder { signer, files, key_pending: true });
        }
    }
    Err(refused)
}

/// Puts key and certificate in place so that, wherever it is cut off, what is there makes a CA: the old one or the new one.
///
/// # Errors
/// If the system refuses.
pub fn replace_key_and_cert(dir: &Path, key: &str, cert: &str) -> Result<(), WriteError> {
    if !dir.join(CA_KEY).exists() {
        // Without a certificate nothing is a CA.
        write(&dir.join(CA_KEY), key.as_bytes(), Private::Yes, true)?;
        return write(&dir.join(CA_CERT), cert.as_bytes(), Private::No, true);
    }
    // The one that was cut off first: its key must not be lost while its certificate is in place. What cannot be used anyway
    // is replaced.
    let configured = registrations(dir).ok().and_then(|read| read.trust_domain);
    let _finished = finish_key_replacement(dir, configured.as_ref(), &Clock::system());
    write(&dir.join(NEXT_KEY), key.as_bytes(), Private::Yes, true)?;
    write(&dir.join(CA_CERT), cert.as_bytes(), Private::No, true)?;
    let path = dir.join(CA_KEY);
    install_pending_key(dir).map_err(|source| WriteError::Io { path, source })
}

/// Completes a [`replace_key_and_cert`] that a crash interrupted: installs the pending key if it matches the certificate.
pub(crate) fn finish_key_replacement(
    dir: &Path,
    configured: Option<&TrustDomain>,
    clock: &Clock,
) -> Result<(), String> {
    if read_signer(dir, configured, clock)?.key_pending {
        install_pending_key(dir).map_err(|error| format!("{}: {error}", dir.join(NEXT_KEY).display()))?;
    }
    Ok(())
}

fn install_pending_key(dir: &Path) -> io::Result<()> {
    match std::fs::rename(dir.join(NEXT_KEY), dir.join(CA_KEY)) {
        // A CA that has started in the meantime did it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::File::open(dir)?.sync_all()
}

/// The four files as text, after validation.
pub(crate) fn files(dir: &Path, configured: Option<&TrustDomain>, clock: &Clock) -> Result<Files, String> {
    let SignerFolder { files, .. } = read_signer(dir, configured, clock)?;
    let text = |name: &str| {
        let content = named(&files, name).map(|file| file.content.to_vec()).unwrap_or_default();
        String::from_utf8(content).map_err(|_| format!("{}: {name} is no text", dir.display()))
    };
    Ok(Files { ca_cert: text(CA_CERT)?, ca_key: text(CA_KEY)?, root_cert: text(ROOT_CERT)?, cert_chain: text(CHAIN)? })
}

fn named<'f>(files: &'f [FileContent], name: &str) -> Option<&'f FileContent> {
    files.iter().find(|file| file.path.file_name().is_some_and(|own| own == name))
}

/// The signer in force, the signer of the server certificate, and the rotation in progress.
pub(crate) fn in_force(dir: &Path, configured: Option<&TrustDomain>, clock: &Clock) -> Result<InForce, String> {
    let rotation = Rotation::load(dir).map_err(|error| error.to_string())?;
    let (signer, server) = match &rotation {
        None => {
            let signer = Arc::new(signer(dir, configured, clock)?);
            (Arc::clone(&signer), signer)
        }
        Some(rotation) => {
            let both = rotation
                .in_force(configured, clock)
                .map_err(|error| format!("{}: rotation: {error}", dir.display()))?;
            (Arc::new(both.signer), Arc::new(both.server))
        }
    };
    Ok(InForce { signer, server, rotation })
}

/// See [`in_force`].
pub(crate) struct InForce {
    pub(crate) signer: Arc<Signer>,
    pub(crate) server: Arc<Signer>,
    pub(crate) rotation: Option<Rotation>,
}

fn parse_signer(all: &[FileContent], configured: Option<&TrustDomain>, clock: &Clock) -> Result<Signer, String> {
    let (Some(cert), Some(key), Some(roots)) = (named(all, CA_CERT), named(all, CA_KEY), named(all, ROOT_CERT)) else {
        return Err(format!("{CA_CERT}, {CA_KEY} and {ROOT_CERT} are three files"));
    };
    refuse_writable(key)?;
    let files = SignerFiles {
        ca_cert: &cert.content,
        ca_key: &key.content,
        root_cert: &roots.content,
        cert_chain: named(all, CHAIN).map(|file| &*file.content),
    };
    Signer::read(files, configured, clock).map_err(|error| error.to_string())
}

/// Refuses a world-writable key file.
fn refuse_writable(key: &FileContent) -> Result<(), String> {
    let name = key.path.file_name().unwrap_or_default().display();
    if key.mode & 0o002 == 0 { Ok(()) } else { Err(format!("{name}: everybody may write it; chmod o-w")) }
}

/// The key of the tokens.
pub(crate) fn token_key(dir: &Path, trust_domain: &TrustDomain) -> Result<TokenKey, String> {
    let file = token_key_file(dir).read().complete();
    let file = file.map_err(|error| format!("{error}; `portcullis ca init` makes one"))?;
    parse_token_key(&file, trust_domain)
}

fn token_key_file(dir: &Path) -> FileSet {
    FileSet::Files(vec![dir.join(TOKEN_KEY)])
}

fn parse_token_key(files: &[FileContent], trust_domain: &TrustDomain) -> Result<TokenKey, String> {
    let [file] = files else { return Err("one file is read".to_owned()) };
    refuse_writable(file)?;
    TokenKey::read(&file.content, trust_domain).map_err(|error| format!("{}: {error}", file.path.display()))
}

pub(crate) fn registrations(dir: &Path) -> Result<Registrations, String> {
    let path = dir.join(REGISTRATIONS);
    let files = FileSet::Files(vec![path]).read().complete().map_err(|error| error.to_string())?;
    let [file] = files.as_slice() else {
        return Err("one file is read".to_owned());
    };
    parse_registrations(file, dir)
}

fn parse_registrations(file: &FileContent, dir: &Path) -> Result<Registrations, String> {
    if let Err(why) = refuse_writable(file) {
        // Not refused: where a folder of another system is mounted, everything looks like that.
        tracing::warn!("{why}. Every user who can write it can obtain certificates for any identity");
    }
    Registrations::read(&file.content, dir).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("{}:{problem}", file.path.display())).collect();
        lines.join("\n")
    })
}

/// The bundles of other domains, read once.
pub(crate) fn foreign(registrations: &Registrations, now_unix: i64) -> Result<Foreign, String> {
    let paths = registrations.trust_bundles.values().cloned().collect();
    let files = FileSet::Files(paths).read().complete().map_err(|error| error.to_string())?;
    parse_foreign(&files, registrations.trust_bundles.keys(), now_unix)
}

fn parse_foreign<'a>(
    files: &[FileContent],
    domains: impl Iterator<Item = &'a TrustDomain>,
    now_unix: i64,
) -> Result<Foreign, String> {
    domains
        .zip(files)
        .map(|(domain, file)| match TrustBundle::from_pem(&file.content, now_unix) {
            Ok(bundle) => Ok((domain.clone(), bundle)),
            Err(error) => Err(format!("{}: {error}", file.path.display())),
        })
        .collect()
}

/// Checks the registrations against the CA's trust domain.
pub(crate) fn check_consistency(registrations: &Registrations, trust_domain: &TrustDomain) -> Result<(), String> {
    if let Some(other) = registrations.trust_domain.as_ref().filter(|domain| *domain != trust_domain) {
        return Err(format!("{REGISTRATIONS}: trustDomain: {other} is not that of the CA that signs, {trust_domain}"));
    }
    if let Some((id, _)) = registrations.iter().find(|(id, _)| id.domain_str() != trust_domain.as_str()) {
        return Err(format!("{REGISTRATIONS}: {id} does not belong to this CA's trust domain {trust_domain}"));
    }
    if registrations.trust_bundles.contains_key(trust_domain) {
        return Err(format!(
            "{REGISTRATIONS}: trustBundles: {trust_domain} is this CA's own, whose roots are root-cert.pem"
        ));
    }
    Ok(())
}

/// Watches all sets. `changed` is called after the registrations or the token key have changed.
pub(crate) fn watch(
    dir: &Path,
    state: &Arc<CaState>,
    environment: DefaultLifetimes,
    changed: impl Fn() + Clone + Send + 'static,
) -> Result<Watchers, String> {
    let loader = {
        let (state, dir) = (Arc::clone(state), dir.to_owned());
        move |_: &[FileContent]| {
            let configured = state.registrations.load().trust_domain.clone();
            if !state.replace(|| signer(&dir, configured.as_ref(), &state.clock))? {
                return Ok("not used while the root is being rotated".to_owned());
            }
            Ok::<_, String>(format!("signs until {}", utc(state.ca().signer.not_after_unix())))
        }
    };
    let signer = Watcher::start(signer_files(dir), Options::default(), loader);
    let signer = signer.map_err(|error| error.to_string())?;
    let token_key = watch_token_key(dir, state, changed.clone())?;

    let resources = watch_resources(dir, state, environment)?;
    let (own_dir, state) = (dir.to_owned(), Arc::clone(state));
    let mut bundles = None;
    let loader = move |files: &[FileContent]| {
        let [file] = files else { return Err("one file is read".to_owned()) };
        let read = parse_registrations(file, &own_dir)?;
        check_consistency(&read, state.ca().signer.trust_domain())?;
        if bundles.is_none() || state.registrations.load().trust_bundles != read.trust_bundles {
            // The watcher of the files that were named before ends here.
            bundles = watch_foreign(&read, &state)?;
        }
        let count = read.iter().count();
        state.registrations.store(Arc::new(read));
        changed();
        Ok(format!("{count} identities"))
    };
    let registrations = Watcher::start(FileSet::Files(vec![dir.join(REGISTRATIONS)]), Options::default(), loader);
    let registrations = registrations.map_err(|error| error.to_string())?;
    Ok(Watchers { signer, registrations, token_key, resources })
}

/// A new key invalidates all tokens. Those of `--bootstrap` are replaced automatically.
fn watch_token_key(dir: &Path, state: &Arc<CaState>, changed: impl Fn() + Send + 'static) -> Result<Watcher, String> {
    let state = Arc::clone(state);
    let loader = move |files: &[FileContent]| {
        let key = parse_token_key(files, state.ca().signer.trust_domain())?;
        if key == **state.tokens.load() {
            return Ok::<_, String>("signs tokens");
        }
        state.tokens.store(Arc::new(key));
        changed();
        Ok("signs tokens; those of the key before it are refused from now on")
    };
    Watcher::start(token_key_file(dir), Options::default(), loader).map_err(|error| error.to_string())
}

fn watch_resources(dir: &Path, state: &Arc<CaState>, environment: DefaultLifetimes) -> Result<Watcher, String> {
    let state = Arc::clone(state);
    let loader = move |files: &[FileContent]| {
        let read = resources::parse(files, state.ca().signer.trust_domain(), environment, state.clock.now_unix())?;
        let ttl = read.default_lifetimes.ttl.map_or_else(|| "unset".to_owned(), |ttl| format!("{}s", ttl.as_secs()));
        state.resources.store(Arc::new(read));
        Ok::<_, String>(format!("default lifetime {ttl}"))
    };
    let source = resources::watched_files(dir, REGISTRATIONS);
    Watcher::start(source, Options::default(), loader).map_err(|error| error.to_string())
}

fn watch_foreign(read: &Registrations, state: &Arc<CaState>) -> Result<Option<Watcher>, String> {
    if read.trust_bundles.is_empty() {
        state.foreign.store(Arc::default());
        return Ok(None);
    }
    let (state, domains) = (Arc::clone(state), read.trust_bundles.keys().cloned().collect::<Vec<_>>());
    let loader = move |files: &[FileContent]| {
        let foreign = parse_foreign(files, domains.iter(), state.clock.now_unix())?;
        let count = foreign.len();
        state.foreign.store(Arc::new(foreign));
        Ok::<_, String>(format!("bundles of {count} other trust domains"))
    };
    let paths = read.trust_bundles.values().cloned().collect();
    Watcher::start(FileSet::Files(paths), Options::default(), loader).map(Some).map_err(|error| error.to_string())
}
