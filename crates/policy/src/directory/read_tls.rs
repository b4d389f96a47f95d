//! Reads `tls` of a DestinationRule: each mode with the fields that belong to it, and no other.

use std::sync::Arc;

use portcullis_yaml::{Cursor, Fields, Problems, printable};

use crate::directory::destination_rule::{ClientTls, ServerCheck};
use crate::directory::host;
use crate::directory::read;

#[derive(Clone, Copy, Eq, PartialEq)]
enum TlsMode {
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

const MODES: &[(&str, TlsMode)] = &[
    ("DISABLE", TlsMode::Disable),
    ("SIMPLE", TlsMode::Simple),
    ("MUTUAL", TlsMode::Mutual),
    ("ISTIO_MUTUAL", TlsMode::IstioMutual),
];

const CERTIFICATE: &str = "clientCertificate";
const KEY: &str = "privateKey";
const CA: &str = "caCertificates";
const NAMES: &str = "subjectAltNames";
const SNI: &str = "sni";

/// The fields that go with a mode.
const fn fields_of(mode: TlsMode) -> &'static [&'static str] {
    match mode {
        TlsMode::Disable => &[],
        TlsMode::Simple => &[CA, NAMES, SNI],
        TlsMode::Mutual => &[CERTIFICATE, KEY, CA, NAMES, SNI],
        TlsMode::IstioMutual => &[NAMES, SNI],
    }
}

const UNSUPPORTED: &[(&str, &str)] = &[
    ("credentialName", "there are no secrets to read; name files in clientCertificate, privateKey and caCertificates"),
    ("caCrl", "revocation lists are not read; remove it"),
];

/// Reads it.
pub(super) fn read(at: &Cursor<'_>, problems: &mut Problems, warnings: &mut Problems) -> Option<ClientTls> {
    let known = ["mode", CERTIFICATE, KEY, CA, NAMES, SNI, "insecureSkipVerify"];
    let fields = read::fields(at, &known, UNSUPPORTED, problems)?;
    if let Some(at) = fields.get("insecureSkipVerify")
        && at.boolean(problems) == Some(true)
    {
        let message = "is not supported: a server whose certificate is not verified can be anybody; remove it, or name \
                       its CA in caCertificates";
        at.report(read::UNSUPPORTED_FIELD, message, problems);
    }
    // Istio takes DISABLE where none is written, which nobody who writes `tls` means.
    let mode = fields.require("mode", problems);
    let mode = mode.and_then(|at| read::choice(&at, "TLS mode", MODES, "unsupported-tls-mode", problems));
    let ca = path(&fields, CA, problems);
    let certificate = path(&fields, CERTIFICATE, problems);
    let key = path(&fields, KEY, problems);
    let sni = fields.get(SNI).and_then(|at| read_sni(&at, problems));
    let names = fields.get(NAMES);
    let names = names.map(|at| read::strings(&at, problems)).unwrap_or_default();
    let subject_alt_names: Vec<String> = names.iter().map(|(_, text)| (*text).to_owned()).collect();
    let mode = mode?;
    for name in [CERTIFICATE, KEY, CA, NAMES, SNI] {
        if let Some(at) = fields.get(name)
            && !fields_of(mode).contains(&name)
        {
            let mode = MODES.iter().find(|(_, of)| *of == mode).map_or("", |(name, _)| name);
            let message = format!("has no effect with mode {mode}; remove it, or change the mode");
            at.report("tls-field-of-other-mode", message, problems);
        }
    }
    match mode {
        TlsMode::Disable => Some(ClientTls::Disable),
        TlsMode::Simple => Some(ClientTls::Simple(ServerCheck { ca, subject_alt_names, sni })),
        TlsMode::Mutual => {
            for name in [CERTIFICATE, KEY] {
                fields.require(name, problems);
            }
            let server = ServerCheck { ca, subject_alt_names, sni };
            Some(ClientTls::Mutual { certificate: certificate?, key: key?, server })
        }
        TlsMode::IstioMutual => {
            for (item, text) in &names {
                read::warn_unless_spiffe_id(item, text, warnings);
            }
            Some(ClientTls::IstioMutual { subject_alt_names, sni })
        }
    }
}

/// The path of a file; where it may lie is for the proxy to say, which reads it.
fn path(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<Arc<str>> {
    let at = fields.get(name)?;
    let text = read::text(&at, problems)?;
    if text.chars().any(char::is_control) {
        at.report("invalid-path", format!("\"{}\" is not the path of a file", printable(text)), problems);
    }
    Some(text.into())
}

fn read_sni(at: &Cursor<'_>, problems: &mut Problems) -> Option<Arc<str>> {
    let text = read::text(at, problems)?;
    // Server names of the mesh have underscores: `outbound_.80_._.cart.shop.svc.cluster.local`.
    let name = host::name(&text.replace('_', "x")).map(|_| text);
    if name.is_none() {
        at.report("invalid-sni", format!("\"{}\" is not a server name", printable(text)), problems);
    }
    name.map(Arc::from)
}
