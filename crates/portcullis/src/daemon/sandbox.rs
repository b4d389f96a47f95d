//! The files and ports that a serving sidecar needs. It enters the sandbox after every listener is bound.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portcullis_config::{IdentitySource, RouteMode, Settings, UpstreamMode, UpstreamTarget};
use portcullis_reload::FileSet;
use portcullis_sandbox::access::Access;

use super::originators::system_roots;
use crate::sandbox::{self, PROC, Sandbox, is_deep};

/// Files that a name lookup reads. Missing ones are left out.
const NAME_LOOKUP: &[&str] =
    &["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];
/// Some systems have their CAs beside a folder with private keys.
const HOLDS_KEYS: &str = "/etc/ssl";
/// An answer that is too long for one datagram is fetched over TCP.
const DNS: u16 = 53;

/// Enters the sandbox. `config` is the configuration file, which stays readable so that a change can be reported.
pub(super) fn enter(settings: &Settings, config: Option<&Path>) -> Sandbox {
    let access = Access {
        read: readable(settings, config),
        write: settings
            .ledger
            .folder
            .iter()
            .cloned()
            .chain(token_folder(settings))
            .chain(copy_folder(settings))
            .collect(),
        remove: socket_folder(settings),
        connect: dialled(settings),
        ..Access::default()
    };
    sandbox::enter(settings.sandbox.landlock.then_some(&access), settings.sandbox.seccomp)
}

/// The folder of the admin socket, which is removed at the end. One that holds much else stays closed: there the socket is left
/// behind, and the next start replaces it.
fn socket_folder(settings: &Settings) -> BTreeSet<PathBuf> {
    let folder = settings.admin_socket.as_ref().and_then(|socket| socket.path.parent());
    folder.and_then(|folder| fs::canonicalize(folder).ok()).into_iter().filter(|folder| is_deep(folder)).collect()
}

/// The folder in which `renewToken` replaces the token.
fn token_folder(settings: &Settings) -> Option<PathBuf> {
    let Some(IdentitySource::Ca(ca)) = settings.identity.as_ref().map(|identity| &identity.source) else { return None };
    let file = ca.token_file.as_ref().filter(|_| ca.renew_token)?;
    file.parent().map(Path::to_owned).filter(|folder| is_deep(folder))
}

/// The folder of the copy of the API server's objects.
fn copy_folder(settings: &Settings) -> Option<PathBuf> {
    settings.kubernetes.as_ref()?.copy_folder.clone()
}

/// Token and root of the API server: read again and again, and replaced while the pod runs.
fn service_account(settings: &Settings) -> impl Iterator<Item = PathBuf> {
    let folder = settings.kubernetes.as_ref().map(|kubernetes| &kubernetes.service_account_folder);
    folder.into_iter().flat_map(|folder| ["token", "ca.crt"].map(|file| folder.join(file)))
}

fn readable(settings: &Settings, config: Option<&Path>) -> BTreeSet<PathBuf> {
    let mut read = BTreeSet::from([PathBuf::from(PROC)]);
    let folders = settings.policies.iter().chain(&settings.candidates).chain(&settings.outbound.tls_folder);
    let mut sources: Vec<FileSet> = folders.cloned().map(FileSet::Folder).collect();
    let files = settings.identity_files().into_iter().chain(settings.gateway.files().cloned());
    let files = files.chain(settings.admin_token.clone()).chain(service_account(settings));
    let export = settings.telemetry.export.as_ref();
    let files = files.chain(export.and_then(|export| export.certificate.clone()));
    sources.push(FileSet::Files(files.collect()));
    read.extend(config.map(config_file).unwrap_or_default());
    for paths in sources.iter().map(FileSet::read_paths) {
        read.extend(paths.within);
        read.extend(paths.around.into_iter().filter(|folder| is_deep(folder)));
    }
    read.extend(system_roots().flat_map(|bundle| bundle_file(&bundle)));
    for file in NAME_LOOKUP.iter().map(PathBuf::from) {
        // A link leads to the folder in which a resolver replaces the file by rename.
        let holder = fs::canonicalize(&file).ok().and_then(|end| end.parent().map(Path::to_owned));
        read.extend(holder.filter(|holder| is_deep(holder)));
        read.insert(file);
    }
    read
}

/// A file with the CAs of the system, and the folders in which it, or the file to which it leads, is replaced by rename.
fn bundle_file(bundle: &Path) -> BTreeSet<PathBuf> {
    let end = fs::canonicalize(bundle).ok();
    let end = end.as_deref().and_then(Path::parent).map(Path::to_owned);
    // Also where the file itself is yet to come.
    let holder = bundle.parent().and_then(|holder| fs::canonicalize(holder).ok());
    let holders = holder.into_iter().chain(end).filter(|holder| is_deep(holder) && holder != Path::new(HOLDS_KEYS));
    holders.chain([bundle.to_owned()]).collect()
}

/// The configuration file, and the folder in which it would be replaced. In a folder such as `/etc`, which holds much that
/// the proxy must not read, only the file that is there now.
fn config_file(config: &Path) -> BTreeSet<PathBuf> {
    let folder = config.parent().map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
    let mut read: BTreeSet<PathBuf> = folder.and_then(|folder| fs::canonicalize(folder).ok()).into_iter().collect();
    read.extend(FileSet::Files(vec![config.to_owned()]).read_paths().within);
    read.retain(|folder| is_deep(folder));
    read.extend(fs::canonicalize(config));
    read
}

/// The ports of the app, of the upstreams, of a CA and of a collector, or `None` if a captured connection may go to any port.
fn dialled(settings: &Settings) -> Option<BTreeSet<u16>> {
    let (inbound, outbound) = (&settings.inbound, &settings.outbound);
    // The ports of endpoints come from the service directory, which may change.
    let is_auto = |target: &UpstreamTarget| matches!(target.mode, UpstreamMode::Auto { .. });
    if inbound.transparent.or(inbound.hbone).or(outbound.transparent).is_some()
        || settings.upstream_targets().any(is_auto)
    {
        return None;
    }
    let mut ports: BTreeSet<u16> = inbound.ports.iter().map(|port| port.app.port()).collect();
    let authority = match settings.identity.as_ref().map(|identity| &identity.source) {
        Some(IdentitySource::Ca(ca)) => Some(&ca.address),
        _ => None,
    };
    let collector = settings.telemetry.export.as_ref().map(|export| &export.endpoint.address);
    let api_server = settings.kubernetes.as_ref().and_then(|kubernetes| kubernetes.address.as_ref());
    let ours = authority.into_iter().chain(collector).chain(api_server);
    for address in settings.upstream_targets().map(|target| &target.address).chain(ours) {
        ports.insert(address.port);
        if address.host.parse::<IpAddr>().is_err() {
            ports.insert(DNS);
        }
    }
    if settings.upstream_targets().any(|target| matches!(target.mode, UpstreamMode::Fixed(RouteMode::Hbone(_)))) {
        ports.insert(outbound.hbone_port);
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let text = format!("workload: {{name: a, namespace: b}}\n{text}");
        portcullis_config::read(text.as_bytes(), Path::new("/srv/app/conf")).unwrap()
    }

    #[test]
    fn only_fixed_destinations_restrict_what_is_dialled() {
        let ports = "ports: [{listen: \"127.0.0.1:1\", port: 80, app: \"127.0.0.1:8080\"}]";
        let upstream = |address: &str| {
            format!("outbound: {{upstreams: [{{listen: \"127.0.0.1:2\", address: \"{address}\", mode: plaintext}}]}}")
        };
        let of = |text: &str| dialled(&settings(text)).map(Vec::from_iter);
        assert_eq!(of(""), Some(vec![]));
        assert_eq!(of(&format!("inbound: {{{ports}}}")), Some(vec![8080]));
        assert_eq!(of(&upstream("10.0.0.1:9000")), Some(vec![9000]));
        assert_eq!(of(&upstream("[::1]:9000")), Some(vec![9000]));
        assert_eq!(of(&upstream("cart:9000")), Some(vec![DNS, 9000]));
        assert_eq!(of(&format!("inbound: {{{ports}, transparent: \"127.0.0.1:3\"}}")), None);
        let ca = |address: &str| format!("identity: {{ca: {{address: \"{address}\", trustBundle: r}}}}");
        assert_eq!(of(&ca("10.0.0.1:15012")), Some(vec![15012]));
        assert_eq!(of(&ca("ca:15012")), Some(vec![DNS, 15012]));
        assert_eq!(of("outbound: {transparent: \"127.0.0.1:3\"}"), None);
        let otlp = |endpoint: &str| format!("telemetry: {{otlp: {{endpoint: \"{endpoint}\"}}}}");
        assert_eq!(of(&otlp("http://10.0.0.1:4318")), Some(vec![4318]));
        assert_eq!(of(&otlp("https://collector")), Some(vec![DNS, 443]));
        let kubernetes = |address: &str| format!("kubernetes: {{address: \"{address}\"}}");
        assert_eq!(of(&kubernetes("10.96.0.1:443")), Some(vec![443]));
        assert_eq!(of(&kubernetes("kubernetes.default.svc:6443")), Some(vec![DNS, 6443]));
        let route = "{address: \"10.0.0.1:9001\", mode: plaintext}";
        assert_eq!(
            of(&format!("gateway: {{listeners: [{{listen: \"127.0.0.1:4\", routes: [{route}]}}]}}")),
            Some(vec![9001])
        );
    }

    #[test]
    fn the_configuration_does_not_open_what_lies_around_it() {
        let of = |path: &str| config_file(Path::new(path));
        assert_eq!(of("/etc/hosts"), BTreeSet::from([fs::canonicalize("/etc/hosts").unwrap()]));
        assert_eq!(of("/srv/app/conf/cart.yaml"), BTreeSet::from(["/srv/app/conf".into()]));
    }

    #[test]
    fn the_folder_of_a_token_is_writable_only_where_the_token_is_renewed() {
        let of = |rest: &str| {
            let ca =
                format!("identity: {{ca: {{address: \"ca:1\", trustBundle: r, tokenFile: /srv/a/me/token{rest}}}}}");
            token_folder(&settings(&ca))
        };
        assert_eq!(of(", renewToken: true"), Some("/srv/a/me".into()));
        assert_eq!([of(", renewToken: false"), of("")], [None, None]);
    }

    #[test]
    fn the_service_account_is_readable_and_only_the_folder_of_the_copy_is_writable() {
        let of = |more: &str| settings(&format!("kubernetes: {{serviceAccountFolder: /srv/account/mine{more}}}"));
        let read = readable(&of(""), None);
        assert!(read.contains(Path::new("/srv/account/mine")) && !read.contains(Path::new("/srv")), "{read:?}");
        assert_eq!(copy_folder(&of("")), None);
        assert_eq!(copy_folder(&of(", copyFolder: /srv/copy")), Some("/srv/copy".into()));
    }

    #[test]
    fn a_bundle_of_roots_may_be_replaced() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let [links, files] = ["links", "files"].map(|name| root.join(name));
        [&links, &files].iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(files.join("ca.pem"), "x").unwrap();
        std::os::unix::fs::symlink("../files/ca.pem", links.join("ca.pem")).unwrap();
        let link = links.join("ca.pem");
        assert_eq!(bundle_file(&link), BTreeSet::from([links.clone(), files.clone(), link]));
        // It may come later.
        let none = files.join("none.pem");
        assert_eq!(bundle_file(&none), BTreeSet::from([files, none]));
        for alone in ["/etc/hostname", "/etc/ssl/cert.pem", "/nowhere/at/all.pem"].map(PathBuf::from) {
            assert_eq!(bundle_file(&alone), BTreeSet::from([alone.clone()]), "{}", alone.display());
        }
    }

    #[test]
    fn what_holds_more_than_ours_is_not_readable() {
        let files = |folder: &str| {
            format!(
                "identity: {{files: {{certificate: {folder}/c, privateKey: {folder}/k, trustBundle: {folder}/b}}}}\n\
                 mesh: {{trustBundles: {{partner.test: /srv/partner/roots/p}}}}\npolicies: policies\n"
            )
        };
        let read = readable(&settings(&files("/etc/certs")), Some(Path::new("/srv/app/conf/cart.yaml")));
        for yes in ["/srv/app/conf", "/srv/app/conf/policies", "/etc/certs", "/srv/partner/roots", "/srv/partner"] {
            assert!(read.contains(Path::new(yes)), "{yes} in {read:?}");
        }
        for no in ["/", "/etc", "/srv", "/srv/app", "/etc/shadow", "/etc/ssl", "/usr"] {
            assert!(!read.contains(Path::new(no)), "{no} in {read:?}");
        }
        let certificate = "{hosts: [a], certificate: /srv/g/tls/c, privateKey: /srv/g/key/k}";
        let gateway = format!(
            "gateway: {{listeners: [{{listen: \"127.0.0.1:4\", routes: [{{address: \"a:1\", mode: plaintext}}], \
             tls: {{mode: MUTUAL, clientCa: /srv/g/ca/b, certificates: [{certificate}]}}}}]}}\n"
        );
        let read = readable(&settings(&gateway), None);
        assert!(
            ["/srv/g/tls", "/srv/g/key", "/srv/g/ca"].iter().all(|folder| read.contains(Path::new(folder))),
            "{read:?}"
        );
        let ca = "identity: {ca: {address: \"ca:1\", trustBundle: /srv/b/ca/roots, tokenFile: /srv/b/me/token}}\n";
        let read = readable(&settings(ca), None);
        assert!(["/srv/b/ca", "/srv/b/me"].iter().all(|folder| read.contains(Path::new(folder))), "{read:?}");
        // Files in the root itself: they alone, and no renames.
        let read = readable(&settings(&files("")), Some(Path::new("/srv/app/conf/cart.yaml")));
        assert!(read.contains(Path::new("/k")) && !read.contains(Path::new("/")), "{read:?}");
    }
}
