//! Reading the CA's folder, and reading it again when it changes. Two sets, each whole or not at all, each with its own last
//! good one: the four files of the signer, and the registrations with the bundles that they name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_ca::rotation::{Files, Rotation};
use portcullis_ca::{Private, Registrations, Signer, SignerFiles, WriteError, write};
use portcullis_identity::TrustDomain;
use portcullis_tls::{Clock, TrustBundle, utc};
use portcullis_watch::{FileContent, Options, Source, Watcher};

use crate::live::{Foreign, Live};

const REGISTRATIONS: &str = "identities.yaml";

/// The files of the signer; the last one may be missing.
const SIGNER: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"];

/// The key of a certificate that is being put in place: see [`put_pair`].
const NEXT_KEY: &str = "ca-key-next.pem";

/// What keeps watching until it is dropped.
pub(crate) struct Watchers {
    _signer: Watcher,
    _registrations: Watcher,
}

fn signer_files(dir: &Path) -> Vec<PathBuf> {
    let [required @ .., chain] = SIGNER.map(|name| dir.join(name));
    required.into_iter().chain(Some(chain).filter(|chain| chain.exists())).collect()
}

pub(crate) fn signer(dir: &Path, configured: Option<&TrustDomain>) -> Result<Signer, String> {
    Ok(judged(dir, configured)?.0)
}

/// The files with what they make. If a crash has cut off [`put_pair`], the key is the one that waits.
fn judged(dir: &Path, configured: Option<&TrustDomain>) -> Result<(Signer, Vec<FileContent>), String> {
    let read = |paths| Source::Files(paths).read().complete().map_err(|error| error.to_string());
    let mut files = read(signer_files(dir))?;
    let refused = match parse_signer(&files, configured) {
        Ok(signer) => return Ok((signer, files)),
        Err(error) => format!("{}: {error}", dir.display()),
    };
    let waiting = read(vec![dir.join(NEXT_KEY)]).ok().and_then(|mut files| files.pop());
    if let (Some(key), Some(next)) = (files.get_mut(1), waiting) {
        *key = next;
        if let Ok(signer) = parse_signer(&files, configured) {
            return Ok((signer, files));
        }
    }
    Err(refused)
}

/// Puts key and certificate in place so that, wherever it is cut off, what is there makes a CA: the old one or the new one.
///
/// # Errors
/// If the system refuses.
pub fn put_pair(dir: &Path, key: &str, cert: &str) -> Result<(), WriteError> {
    let [cert_name, key_name, ..] = SIGNER;
    if !dir.join(key_name).exists() {
        // Without a certificate nothing is a CA.
        write(&dir.join(key_name), key.as_bytes(), Private::Yes, true)?;
        return write(&dir.join(cert_name), cert.as_bytes(), Private::No, true);
    }
    // The one that was cut off first: its key must not be lost while its certificate is in place. What cannot be used anyway
    // is replaced.
    let configured = registrations(dir).ok().and_then(|read| read.trust_domain);
    let _finished = finish_pair(dir, configured.as_ref());
    write(&dir.join(NEXT_KEY), key.as_bytes(), Private::Yes, true)?;
    write(&dir.join(cert_name), cert.as_bytes(), Private::No, true)?;
    let path = dir.join(key_name);
    take_key(dir).map_err(|source| WriteError::Io { path, source })
}

/// What a crash has cut off of [`put_pair`]: the key that waits takes its place. Only if it is the certificate's.
pub(crate) fn finish_pair(dir: &Path, configured: Option<&TrustDomain>) -> Result<(), String> {
    let waits = dir.join(NEXT_KEY).exists();
    let (_, files) = judged(dir, configured)?;
    if waits && files.get(1).is_some_and(|key| key.path.ends_with(NEXT_KEY)) {
        take_key(dir).map_err(|error| format!("{}: {error}", dir.join(NEXT_KEY).display()))?;
    }
    Ok(())
}

fn take_key(dir: &Path) -> io::Result<()> {
    match std::fs::rename(dir.join(NEXT_KEY), dir.join("ca-key.pem")) {
        // A CA that has started in the meantime did it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::File::open(dir)?.sync_all()
}

/// The four files as text, after they were judged.
pub(crate) fn files(dir: &Path, configured: Option<&TrustDomain>) -> Result<Files, String> {
    let (_, read) = judged(dir, configured)?;
    let text = |at: usize| {
        let content = read.get(at).map(|file| file.content.to_vec()).unwrap_or_default();
        String::from_utf8(content).map_err(|_| format!("{}: a file is no text", dir.display()))
    };
    Ok(Files { ca_cert: text(0)?, ca_key: text(1)?, root_cert: text(2)?, cert_chain: text(3)? })
}

/// What is in force: what signs, what the CA's server certificate comes from, and the rotation that says so.
pub(crate) fn in_force(dir: &Path, configured: Option<&TrustDomain>) -> Result<InForce, String> {
    let rotation = Rotation::load(dir).map_err(|error| error.to_string())?;
    let (signer, server) = match &rotation {
        None => {
            let signer = Arc::new(signer(dir, configured)?);
            (Arc::clone(&signer), signer)
        }
        Some(rotation) => {
            let both =
                rotation.in_force(configured).map_err(|error| format!("{}: rotation: {error}", dir.display()))?;
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

/// Refuses a key that anybody may have put there: who chooses it can name anybody.
pub(crate) fn private(key: &FileContent) -> Result<(), String> {
    let name = key.path.file_name().unwrap_or_default().to_string_lossy();
    if key.mode & 0o002 != 0 { Err(format!("{name}: everybody may write it; chmod 0600")) } else { Ok(()) }
}

fn parse_signer(files: &[FileContent], configured: Option<&TrustDomain>) -> Result<Signer, String> {
    let [cert, key, roots, chain @ ..] = files else {
        return Err("ca-cert.pem, ca-key.pem and root-cert.pem are three files".to_owned());
    };
    private(key)?;
    let files = SignerFiles {
        ca_cert: &cert.content,
        ca_key: &key.content,
        root_cert: &roots.content,
        cert_chain: chain.first().map(|file| &*file.content),
    };
    Signer::read(files, configured).map_err(|error| error.to_string())
}

pub(crate) fn registrations(dir: &Path) -> Result<Registrations, String> {
    let path = dir.join(REGISTRATIONS);
    let files = Source::Files(vec![path]).read().complete().map_err(|error| error.to_string())?;
    let [file] = files.as_slice() else {
        return Err("one file is read".to_owned());
    };
    parse_registrations(file, dir)
}

fn parse_registrations(file: &FileContent, dir: &Path) -> Result<Registrations, String> {
    Registrations::read(&file.content, dir).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| format!("{}:{problem}", file.path.display())).collect();
        lines.join("\n")
    })
}

/// The bundles of other domains, read once.
pub(crate) fn foreign(registrations: &Registrations) -> Result<Foreign, String> {
    let paths = registrations.trust_bundles.values().cloned().collect();
    let files = Source::Files(paths).read().complete().map_err(|error| error.to_string())?;
    parse_foreign(&files, registrations.trust_bundles.keys())
}

fn parse_foreign<'a>(files: &[FileContent], domains: impl Iterator<Item = &'a TrustDomain>) -> Result<Foreign, String> {
    let now = Clock::system().now_unix();
    domains
        .zip(files)
        .map(|(domain, file)| match TrustBundle::from_pem(&file.content, now) {
            Ok(bundle) => Ok((domain.clone(), bundle)),
            Err(error) => Err(format!("{}: {error}", file.path.display())),
        })
        .collect()
}

/// Checks what only both together can be wrong about.
pub(crate) fn fit(registrations: &Registrations, trust_domain: &TrustDomain) -> Result<(), String> {
    if let Some(other) = registrations.trust_domain.as_ref().filter(|domain| *domain != trust_domain) {
        return Err(format!("{REGISTRATIONS}: trustDomain: {other} is not that of the CA that signs, {trust_domain}"));
    }
    if let Some((id, _)) = registrations.iter().find(|(id, _)| id.domain_str() != trust_domain.as_str()) {
        return Err(format!("{REGISTRATIONS}: {id} is not of this CA's trust domain {trust_domain}"));
    }
    if registrations.trust_bundles.contains_key(trust_domain) {
        return Err(format!(
            "{REGISTRATIONS}: trustBundles: {trust_domain} is this CA's own, whose roots are root-cert.pem"
        ));
    }
    Ok(())
}

/// Watches both sets. Whoever is told of `changed` registrations may have something to do.
pub(crate) fn watch(dir: &Path, live: &Arc<Live>, changed: impl Fn() + Send + 'static) -> Result<Watchers, String> {
    let loader = {
        let (live, dir) = (Arc::clone(live), dir.to_owned());
        move |_: &[FileContent]| {
            let configured = live.registrations.load().trust_domain.clone();
            if !live.replace(|| signer(&dir, configured.as_ref()))? {
                return Ok("not used while the root is being rotated".to_owned());
            }
            Ok::<_, String>(format!("signs until {}", utc(live.ca().signer.not_after_unix())))
        }
    };
    let signers = Watcher::start(Source::Files(signer_files(dir)), Options::default(), loader);
    let signers = signers.map_err(|error| error.to_string())?;

    let (own_dir, live) = (dir.to_owned(), Arc::clone(live));
    let mut bundles = None;
    let loader = move |files: &[FileContent]| {
        let [file] = files else { return Err("one file is read".to_owned()) };
        let read = parse_registrations(file, &own_dir)?;
        fit(&read, live.ca().signer.trust_domain())?;
        if bundles.is_none() || live.registrations.load().trust_bundles != read.trust_bundles {
            // The watcher of the files that were named before ends here.
            bundles = watch_foreign(&read, &live)?;
        }
        let count = read.iter().count();
        live.registrations.store(Arc::new(read));
        changed();
        Ok(format!("{count} identities"))
    };
    let registrations = Watcher::start(Source::Files(vec![dir.join(REGISTRATIONS)]), Options::default(), loader);
    let registrations = registrations.map_err(|error| error.to_string())?;
    Ok(Watchers { _signer: signers, _registrations: registrations })
}

fn watch_foreign(read: &Registrations, live: &Arc<Live>) -> Result<Option<Watcher>, String> {
    if read.trust_bundles.is_empty() {
        live.foreign.store(Arc::default());
        return Ok(None);
    }
    let (live, domains) = (Arc::clone(live), read.trust_bundles.keys().cloned().collect::<Vec<_>>());
    let loader = move |files: &[FileContent]| {
        let foreign = parse_foreign(files, domains.iter())?;
        let count = foreign.len();
        live.foreign.store(Arc::new(foreign));
        Ok::<_, String>(format!("bundles of {count} other trust domains"))
    };
    let paths = read.trust_bundles.values().cloned().collect();
    Watcher::start(Source::Files(paths), Options::default(), loader).map(Some).map_err(|error| error.to_string())
}
