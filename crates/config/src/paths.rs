//! Every file, folder and socket that the configuration names, with the position of the key that names it.
//!
//! This crate does no IO: the caller checks that they exist.

use std::path::PathBuf;

use portcullis_yaml::{Cursor, Position, Problem};

use crate::{GatewayCertificate, IdentitySource, Settings, checks};

/// What the proxy does with a path, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathUse {
    /// A folder that must be there when the proxy starts.
    Folder,
    /// A file that must be there when the proxy starts.
    File,
    /// A file or socket that the proxy waits for: it starts without it, and is not ready until it is there.
    Later,
    /// A folder that the proxy makes if it can, and writes to. It starts without it, too.
    Written,
}

/// A path, and the key that names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedPath {
    /// The key, such as `identity.files.certificate`.
    pub field: String,
    /// Where its value is in the text.
    pub position: Position,
    /// The path, relative to the folder that was passed to [`read`](crate::read).
    pub path: PathBuf,
    /// What it is for.
    pub usage: PathUse,
}

impl NamedPath {
    /// A problem with this path, at its key.
    #[must_use]
    pub fn problem(&self, reason: &'static str, message: impl Into<String>) -> Problem {
        Problem { position: self.position, field: self.field.clone(), reason, message: message.into() }
    }
}

/// The paths of a configuration, in the order in which the reference lists their keys. `settings` are what
/// [`read`](crate::read) made of `text`.
#[must_use]
pub fn named_paths(text: &[u8], settings: &Settings) -> Vec<NamedPath> {
    let parsed = portcullis_yaml::parse(text);
    let Some(document) = parsed.documents.first() else { return Vec::new() };
    let root = Cursor::root(document);
    let mut paths = Vec::new();
    let mut add = |field: String, path: &PathBuf, usage: PathUse| {
        let position = checks::at(&root, &field).position();
        paths.push(NamedPath { field, position, path: path.clone(), usage });
    };
    // The files of a foreign bundle are read at the start, whatever the source of the own certificate.
    if settings.identity.is_some() {
        for (domain, path) in &settings.mesh.trust_bundles {
            add(format!("mesh.trustBundles[{domain}]"), path, PathUse::File);
        }
    }
    if let Some(folder) = &settings.policies {
        let nested = checks::at(&root, "policies.folder").field() == "policies.folder";
        add(if nested { "policies.folder" } else { "policies" }.to_owned(), folder, PathUse::Folder);
    }
    if let Some(kubernetes) = &settings.kubernetes {
        add("kubernetes.serviceAccountFolder".to_owned(), &kubernetes.service_account_folder, PathUse::Later);
        if let Some(folder) = &kubernetes.copy_folder {
            add("kubernetes.copyFolder".to_owned(), folder, PathUse::Written);
        }
    }
    for (index, folder) in settings.candidates.iter().enumerate() {
        add(format!("policies.candidates[{index}]"), folder, PathUse::Folder);
    }
    if let Some(folder) = &settings.outbound.tls_folder {
        add("outbound.tlsFolder".to_owned(), folder, PathUse::Folder);
    }
    match settings.identity.as_ref().map(|identity| &identity.source) {
        Some(IdentitySource::Files(files)) => {
            add("identity.files.certificate".to_owned(), &files.certificate, PathUse::File);
            add("identity.files.privateKey".to_owned(), &files.private_key, PathUse::File);
            add("identity.files.trustBundle".to_owned(), &files.trust_bundle, PathUse::File);
        }
        Some(IdentitySource::Ca(ca)) => {
            add("identity.ca.trustBundle".to_owned(), &ca.trust_bundle, PathUse::Later);
            if let Some(token) = &ca.token_file {
                add("identity.ca.tokenFile".to_owned(), token, PathUse::Later);
            }
        }
        Some(IdentitySource::WorkloadApi(api)) => {
            add("identity.workloadApi.socket".to_owned(), &api.socket, PathUse::Later);
        }
        None => {}
    }
    for (index, listener) in settings.gateway.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        let tls_field = format!("gateway.listeners[{index}].tls");
        for (index, GatewayCertificate { certificate, private_key, .. }) in tls.certificates.iter().enumerate() {
            add(format!("{tls_field}.certificates[{index}].certificate"), certificate, PathUse::File);
            add(format!("{tls_field}.certificates[{index}].privateKey"), private_key, PathUse::File);
        }
        if let Some(ca) = &tls.client_ca {
            add(format!("{tls_field}.clientCa"), ca, PathUse::File);
        }
    }
    if let Some(folder) = &settings.ledger.folder {
        add("ledger.folder".to_owned(), folder, PathUse::Written);
    }
    if let Some(token) = &settings.admin_token {
        add("admin.tokenFile".to_owned(), token, PathUse::Later);
    }
    if let Some(certificate) = &settings.telemetry.otlp.certificate {
        add("telemetry.otlp.certificate".to_owned(), certificate, PathUse::File);
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_path_has_its_key_its_position_and_its_use() {
        let text = "workload: {name: a, namespace: b}\npolicies: p\nmesh:\n  trustBundles:\n    partner.test: roots\n\
                    identity: {ca: {address: \"ca:1\", trustBundle: b, tokenFile: t}}\n\
                    admin: {listen: \"127.0.0.1:1\", tokenFile: admin}\n";
        let settings = crate::read(text.as_bytes(), Path::new("/conf")).unwrap();
        let found: Vec<_> = named_paths(text.as_bytes(), &settings)
            .into_iter()
            .map(|named| (named.field, named.position.line, named.path, named.usage))
            .collect();
        let expected = [
            ("mesh.trustBundles[partner.test]", 5, "/conf/roots", PathUse::File),
            ("policies", 2, "/conf/p", PathUse::Folder),
            ("identity.ca.trustBundle", 6, "/conf/b", PathUse::Later),
            ("identity.ca.tokenFile", 6, "/conf/t", PathUse::Later),
            ("admin.tokenFile", 7, "/conf/admin", PathUse::Later),
        ];
        assert_eq!(found, expected.map(|(field, line, path, usage)| (field.to_owned(), line, path.into(), usage)));
    }

    #[test]
    fn no_file_of_the_settings_is_left_out() {
        let text = "workload: {name: a, namespace: b}\npolicies: p\nmesh: {trustBundles: {partner.test: roots}}\n\
                    identity: {files: {certificate: c, privateKey: k, trustBundle: b}}\n\
                    gateway: {listeners: [{listen: \"127.0.0.1:1\", routes: [{address: \"a:1\", mode: plaintext}], \
                    tls: {mode: MUTUAL, clientCa: gc, certificates: [{hosts: [a], certificate: g, privateKey: gk}]}}]}\n";
        let settings = crate::read(text.as_bytes(), Path::new("")).unwrap();
        let named: Vec<_> = named_paths(text.as_bytes(), &settings).into_iter().map(|named| named.path).collect();
        for file in
            settings.identity_files().into_iter().chain(settings.gateway.files().cloned()).chain(settings.policies)
        {
            assert!(named.contains(&file), "{} is not in {named:?}", file.display());
        }
    }
}
