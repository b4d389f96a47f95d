//! `identity`: where this workload's certificate, key and roots come from. Exactly one source.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_identity::{KeyType, SpiffeId};
use portcullis_istio::AgentEnvironment;
use portcullis_yaml::{Cursor, Problems};

use crate::fields::{SectionReader, section};
use crate::outbound::{HostPort, host_port, is_host};
use crate::value;

/// `identity`.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The one source.
    pub source: IdentitySource,
    /// `requirePrivateMode`: refuse a file with a secret (key, token) that others than its owner can read.
    pub require_private_mode: bool,
}

/// The source of certificate, key and roots.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// `files`: another program writes them.
    Files(IdentityFiles),
    /// `ca`: requested from a CA, with a key that never leaves this process.
    Ca(Box<CaClient>),
    /// `workloadApi`: handed out by a SPIFFE agent on this host.
    WorkloadApi(WorkloadApi),
}

/// `identity.files`.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// `certificate`: PEM, the leaf first.
    pub certificate: PathBuf,
    /// `privateKey`: PEM, PKCS#8, SEC1 or PKCS#1.
    pub private_key: PathBuf,
    /// `trustBundle`: PEM, the roots of the mesh's trust domain.
    pub trust_bundle: PathBuf,
}

/// `identity.ca`: Istio's certificate service, of istiod or of Portcullis' own authority.
#[derive(Clone, Debug)]
pub struct CaClient {
    /// `address`: host and port of the CA.
    pub address: HostPort,
    /// `trustBundle`: PEM, the roots that verify the CA itself, and the first bundle of the mesh.
    pub trust_bundle: PathBuf,
    /// `tokenFile`: authenticates the workload while it has no certificate; read anew for each use.
    pub token_file: Option<PathBuf>,
    /// `renewToken`: `token_file` is replaced by a new token after each use, and at half of its life.
    pub renew_token: bool,
    /// `serverName`: the name or IP address that its certificate must be for; the host of `address` unless given.
    pub server_name: String,
    /// `keyType`, if set: the type of the key that is generated for every certificate.
    pub key_type: Option<KeyType>,
    /// `ttl`, if set: the lifetime to request; the CA may grant less.
    pub ttl: Option<Duration>,
    /// Istio's variables, which apply where a key is not set. The caller reads them.
    pub environment: AgentEnvironment,
}

/// `identity.workloadApi`: the SPIFFE Workload API, as a SPIRE agent serves it.
#[derive(Clone, Debug)]
pub struct WorkloadApi {
    /// `socket`: the Unix socket.
    pub socket: PathBuf,
    /// `spiffeId`: which SVID to take of several; it is then this workload's identity.
    pub spiffe_id: Option<SpiffeId>,
}

/// The sources, of which exactly one belongs there.
const SOURCES: [&str; 3] = ["files", "ca", "workloadApi"];

impl SectionReader<'_> {
    pub(crate) fn identity(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<Identity> {
        let fields = at.fields(&["files", "ca", "workloadApi", "requirePrivateMode"], problems)?;
        let require_private_mode =
            section(&fields, "requirePrivateMode", false, problems, |at, problems| at.boolean(problems));
        let named: Vec<&str> = SOURCES.into_iter().filter(|name| fields.get(name).is_some()).collect();
        // Each that is there is read, so that all mistakes show in one run.
        let [files, ca, api] = SOURCES.map(|name| fields.get(name));
        let files = files.and_then(|at| self.files(&at, problems)).map(IdentitySource::Files);
        let ca = ca.and_then(|at| self.ca(&at, problems)).map(|ca| IdentitySource::Ca(Box::new(ca)));
        let api = api.and_then(|at| self.workload_api(&at, problems)).map(IdentitySource::WorkloadApi);
        match named.as_slice() {
            [_] => {}
            [] => at.report("missing-field", "has no source; write exactly one of files, ca and workloadApi", problems),
            many => {
                let message = format!("has {} sources ({}); write exactly one", many.len(), many.join(", "));
                at.report("conflict", message, problems);
                return None;
            }
        }
        Some(Identity { source: files.or(ca).or(api)?, require_private_mode: require_private_mode? })
    }

    fn files(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<IdentityFiles> {
        let fields = at.fields(&["certificate", "privateKey", "trustBundle"], problems)?;
        let mut path = |name| fields.require(name, problems).and_then(|at| self.path(&at, problems));
        let (certificate, private_key, trust_bundle) = (path("certificate"), path("privateKey"), path("trustBundle"));
        Some(IdentityFiles { certificate: certificate?, private_key: private_key?, trust_bundle: trust_bundle? })
    }

    fn ca(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<CaClient> {
        let known = ["address", "trustBundle", "tokenFile", "renewToken", "serverName", "keyType", "ttl"];
        let fields = at.fields(&known, problems)?;
        let address = fields.require("address", problems).and_then(|at| host_port(&at, problems));
        let trust_bundle = fields.require("trustBundle", problems).and_then(|at| self.path(&at, problems));
        let token_file = section(&fields, "tokenFile", None, problems, |at, p| self.path(at, p).map(Some));
        let renew_token = section(&fields, "renewToken", false, problems, |at, p| at.boolean(p));
        if let Some(at) = fields.get("renewToken").filter(|_| renew_token == Some(true) && token_file == Some(None)) {
            value::invalid(&at, "needs tokenFile: the file that is replaced".to_owned(), problems);
        }
        let server_name = section(&fields, "serverName", None, problems, |at, p| server_name(at, p).map(Some));
        let key_type = section(&fields, "keyType", None, problems, |at, p| value::word(at, &KeyType::ALL, p).map(Some));
        let ttl = section(&fields, "ttl", None, problems, |at, p| ttl(at, p).map(Some));
        let address = address?;
        Some(CaClient {
            server_name: server_name?.unwrap_or_else(|| address.host.clone()),
            address,
            trust_bundle: trust_bundle?,
            token_file: token_file?,
            renew_token: renew_token?,
            key_type: key_type?,
            ttl: ttl?,
            environment: AgentEnvironment::default(),
        })
    }

    fn workload_api(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<WorkloadApi> {
        let fields = at.fields(&["socket", "spiffeId"], problems)?;
        let socket = fields.require("socket", problems).and_then(|at| {
            if at.string(&mut Problems::new()).is_some_and(|text| text.starts_with("unix:")) {
                value::invalid(&at, "is the path of the socket alone, without unix:", problems);
                return None;
            }
            self.path(&at, problems)
        });
        let spiffe_id = section(&fields, "spiffeId", None, problems, |at, p| value::spiffe_id(at, p).map(Some));
        Some(WorkloadApi { socket: socket?, spiffe_id: spiffe_id? })
    }
}

/// A host name or an IP address: what a server's certificate is for.
fn server_name(at: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.string(problems)?;
    if text.parse::<std::net::IpAddr>().is_err() && !is_host(text) {
        value::invalid(at, format!("\"{text}\" is neither a host name nor an IP address"), problems);
        return None;
    }
    Some(text.to_owned())
}

/// The protocol has whole seconds.
fn ttl(at: &Cursor<'_>, problems: &mut Problems) -> Option<Duration> {
    let ttl = value::positive_duration(at, problems)?;
    if ttl.subsec_nanos() != 0 {
        value::invalid(at, "must be whole seconds", problems);
        return None;
    }
    Some(ttl)
}
