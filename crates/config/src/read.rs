//! Parses the whole file into [`Settings`], or reports every problem.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_identity::leaf::Compat;
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_policy::{MeshSettings, Mode, ParsedSource, Workload};
use portcullis_yaml::{Content, Cursor, Position, Problem, Problems};

use crate::admin::Admin;
use crate::fields::{SectionReader, section};
use crate::model::{Limits, Mesh, Sandbox, Settings, Timeouts, Tls};
use crate::{
    Gateway, Identity, IdentitySource, Inbound, LedgerSettings, Outbound, Telemetry, checks, defaults, inbound,
    outbound, telemetry, value,
};

const TOP: &[&str] = &[
    "workload",
    "mesh",
    "policies",
    "kubernetes",
    "services",
    "rescanInterval",
    "identity",
    "tls",
    "inbound",
    "outbound",
    "gateway",
    "admin",
    "health",
    "metrics",
    "ledger",
    "telemetry",
    "limits",
    "timeouts",
    "drain",
    "sandbox",
    "workers",
];

/// Reads the configuration. Relative paths in it are taken from `folder`, the one that holds the file.
///
/// # Errors
/// Every problem of the file, each with its position, its field and what would be right.
pub fn read(text: &[u8], folder: &Path) -> Result<Settings, Vec<Problem>> {
    let mut problems = Problems::new();
    let parsed = portcullis_yaml::parse(text);
    for problem in parsed.problems {
        problems.push(problem);
    }
    let settings = match parsed.documents.as_slice() {
        [document] => SectionReader::new(folder).settings(&Cursor::root(document), &mut problems),
        documents => {
            if problems.is_empty() {
                problems.push(Problem {
                    position: Position { line: 1, column: 1 },
                    field: String::new(),
                    reason: "wrong-type",
                    message: match documents.len() {
                        0 => "the file is empty; a configuration has at least workload: {name, namespace}".to_owned(),
                        count => format!("the configuration is one YAML document, and this file has {count}"),
                    },
                });
            }
            None
        }
    };
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems.into_vec()),
    }
}

impl SectionReader<'_> {
    fn settings(&self, root: &Cursor<'_>, problems: &mut Problems) -> Option<Settings> {
        let fields = root.fields(TOP, problems)?;
        let mesh = match fields.get("mesh") {
            None => default_mesh(),
            Some(at) => self.mesh(&at, problems),
        };
        let workload = fields.require("workload", problems).and_then(|at| workload(&at, problems));
        let policies = section(&fields, "policies", PolicyFolders::default(), problems, |at, p| self.policies(at, p));
        let kubernetes = section(&fields, "kubernetes", None, problems, |at, p| self.kubernetes(at, p).map(Some));
        let services = section(&fields, "services", None, problems, |at, p| services(at, p).map(Some));
        let rescan = section(&fields, "rescanInterval", defaults::RESCAN, problems, value::positive_duration);
        let identity = section(&fields, "identity", None, problems, |at, p| self.identity(at, p).map(Some));
        let tls = section(&fields, "tls", default_tls(), problems, tls);
        let inbound = section(&fields, "inbound", Inbound::default(), problems, inbound::read);
        let outbound = section(&fields, "outbound", Outbound::default(), problems, |at, p| outbound::read(self, at, p));
        let gateway = section(&fields, "gateway", Gateway::default(), problems, |at, p| self.gateway(at, p));
        let admin = section(&fields, "admin", Admin::default(), problems, |at, p| self.admin(at, p));
        let [health, metrics] =
            ["health", "metrics"].map(|name| section(&fields, name, None, problems, |at, p| listen(at, p).map(Some)));
        let ledger = section(&fields, "ledger", LedgerSettings::default(), problems, |at, p| self.ledger(at, p));
        let telemetry =
            section(&fields, "telemetry", Telemetry::default(), problems, |at, p| telemetry::read(self, at, p));
        let limits = section(&fields, "limits", default_limits(), problems, limits);
        let timeouts = section(&fields, "timeouts", default_timeouts(), problems, timeouts);
        let drain_grace = section(&fields, "drain", defaults::DRAIN_GRACE, problems, drain);
        let sandbox = section(&fields, "sandbox", Sandbox { landlock: true, seccomp: true }, problems, sandbox);
        let workers = section(&fields, "workers", None, problems, |at, p| count(at, 1024, p).map(Some));
        let (workload, mesh) = (workload?, mesh?);
        let Admin { listen: admin, socket: admin_socket, token_file: admin_token } = admin?;
        let PolicyFolders { folder, candidates } = policies?;
        let own_id = own_id(&workload, &mesh, identity.as_ref().and_then(Option::as_ref), root, problems);
        let settings = Settings {
            own_id: own_id?,
            service: workload.service.unwrap_or_else(|| workload.model.name.clone()),
            locality: workload.locality,
            workload: workload.model,
            mesh,
            policies: folder,
            kubernetes: kubernetes?,
            services: services?,
            candidates,
            rescan: rescan?,
            identity: identity?,
            tls: tls?,
            inbound: inbound?,
            outbound: outbound?,
            gateway: gateway?,
            admin,
            admin_socket,
            admin_token,
            health: health?,
            metrics: metrics?,
            ledger: ledger?,
            telemetry: telemetry?,
            limits: limits?,
            timeouts: timeouts?,
            drain_grace: drain_grace?,
            sandbox: sandbox?,
            workers: workers?,
        };
        checks::listeners(&settings, root, problems);
        checks::upstreams(&settings, root, problems);
        checks::ledger(&settings, root, problems);
        Some(settings)
    }

    /// The folder by itself, or with candidates.
    fn policies(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<PolicyFolders> {
        if !matches!(at.node().content, Content::Mapping(_)) {
            return Some(PolicyFolders { folder: Some(self.path(at, problems)?), candidates: Vec::new() });
        }
        let fields = at.fields(&["folder", "candidates"], problems)?;
        let folder = fields.get("folder").map(|at| self.path(&at, problems));
        let candidates = fields.get("candidates").map_or(Some(Vec::new()), |at| at.items(problems));
        let candidates = candidates?.iter().filter_map(|item| self.path(item, problems)).collect();
        Some(PolicyFolders { folder: folder.flatten(), candidates })
    }

    fn mesh(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<Mesh> {
        let known = ["trustDomain", "trustDomainAliases", "trustBundles", "rootNamespace", "defaultMode"];
        let fields = at.fields(&known, problems)?;
        let mut mesh = default_mesh()?;
        if let Some(at) = fields.get("trustDomain") {
            mesh.trust_domain = value::trust_domain(&at, problems)?;
        }
        if let Some(at) = fields.get("trustDomainAliases") {
            mesh.aliases = at.items(problems)?.iter().filter_map(|item| value::trust_domain(item, problems)).collect();
        }
        mesh.policy.trust_domains =
            [&mesh.trust_domain].into_iter().chain(&mesh.aliases).map(ToString::to_string).collect();
        if let Some(at) = fields.get("trustBundles") {
            for (key, file) in at.entries(problems)? {
                let domain = match TrustDomain::parse(key.text()) {
                    Ok(domain) => domain,
                    Err(error) => {
                        file.report(error.class(), format!("the key is not a trust domain: {error}"), problems);
                        continue;
                    }
                };
                if domain == mesh.trust_domain || mesh.aliases.contains(&domain) {
                    let message = "is the mesh's own domain or an alias of it, which share its bundle";
                    value::invalid(&file, message, problems);
                    continue;
                }
                mesh.trust_bundles.extend(self.path(&file, problems).map(|path| (domain, path)));
            }
        }
        if let Some(at) = fields.get("rootNamespace") {
            mesh.policy.root_namespace = name(&at, problems)?;
        }
        if let Some(at) = fields.get("defaultMode") {
            let words = [("STRICT", Mode::Strict), ("PERMISSIVE", Mode::Permissive), ("DISABLE", Mode::Disable)];
            mesh.policy.default_mode = value::word(&at, &words, problems)?;
        }
        Some(mesh)
    }
}

struct WorkloadFields {
    model: Workload,
    service: Option<String>,
    spiffe_id: Option<SpiffeId>,
    locality: Option<String>,
}

fn workload(at: &Cursor<'_>, problems: &mut Problems) -> Option<WorkloadFields> {
    let known = ["name", "namespace", "serviceAccount", "labels", "service", "spiffeId", "locality"];
    let fields = at.fields(&known, problems)?;
    let workload_name = fields.require("name", problems).and_then(|at| name(&at, problems));
    let namespace = fields.require("namespace", problems).and_then(|at| name(&at, problems));
    let service_account = section(&fields, "serviceAccount", "default".to_owned(), problems, name);
    let mut labels = BTreeMap::new();
    if let Some(at) = fields.get("labels") {
        for (key, label) in at.entries(problems)? {
            labels.extend(label.string(problems).map(|text| (key.text().to_owned(), text.to_owned())));
        }
    }
    let service = section(&fields, "service", None, problems, |at, problems| name(at, problems).map(Some));
    let spiffe_id =
        section(&fields, "spiffeId", None, problems, |at, problems| value::spiffe_id(at, problems).map(Some));
    let locality = section(&fields, "locality", None, problems, |at, problems| locality(at, problems).map(Some));
    let model = Workload { name: workload_name?, namespace: namespace?, service_account: service_account?, labels };
    Some(WorkloadFields { model, service: service?, spiffe_id: spiffe_id?, locality: locality? })
}

/// `region`, `region/zone` or `region/zone/subzone`, as ServiceEntry has them.
fn locality(at: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.string(problems)?;
    if text.split('/').count() > 3 || text.split('/').any(str::is_empty) {
        value::invalid(
            at,
            format!("\"{text}\" is not a locality; write region, region/zone or region/zone/subzone"),
            problems,
        );
        return None;
    }
    Some(text.to_owned())
}

/// A name of a Kubernetes object: it becomes part of a SPIFFE ID and of host names.
fn name(at: &Cursor<'_>, problems: &mut Problems) -> Option<String> {
    let text = at.string(problems)?;
    if !is_name(text) {
        at.report("invalid-name", format!("\"{text}\" is not a name: {NAME_RULE}"), problems);
        return None;
    }
    Some(text.to_owned())
}

/// The rule of [`is_name`], in words.
pub const NAME_RULE: &str = "lower-case letters, digits, '-' and '.', at most 253, no '-' at the ends";

/// Whether a text can be the name of a namespace, workload, service account or service, as Kubernetes has them.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    text.len() <= 253 && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}

/// The most explicit setting wins: `workload.spiffeId`, else `identity.workloadApi.spiffeId`, else Istio's form.
fn own_id(
    workload: &WorkloadFields,
    mesh: &Mesh,
    identity: Option<&Identity>,
    root: &Cursor<'_>,
    problems: &mut Problems,
) -> Option<SpiffeId> {
    let taken = match identity.map(|identity| &identity.source) {
        Some(IdentitySource::WorkloadApi(api)) => api.spiffe_id.as_ref(),
        _ => None,
    };
    if let (Some(own), Some(taken)) = (&workload.spiffe_id, taken)
        && own != taken
    {
        let message = format!("workload.spiffeId is {own}, but identity.workloadApi.spiffeId is {taken}; write one");
        checks::at(root, "identity.workloadApi.spiffeId").report("conflict", message, problems);
        return None;
    }
    if let Some(id) = workload.spiffe_id.as_ref().or(taken) {
        return Some(id.clone());
    }
    let model = &workload.model;
    let text = format!("spiffe://{}/ns/{}/sa/{}", mesh.trust_domain, model.namespace, model.service_account);
    match SpiffeId::parse(&text) {
        Ok(id) => Some(id),
        Err(error) => {
            root.report(
                error.class(),
                format!("the fields of workload make the SPIFFE ID {text}, which is invalid: {error}"),
                problems,
            );
            None
        }
    }
}

/// ServiceEntries, as they would stand in a policy folder.
fn services(at: &Cursor<'_>, problems: &mut Problems) -> Option<ParsedSource> {
    let items = at.items(problems)?;
    let parsed = ParsedSource::embedded("services of the configuration", &items);
    for error in parsed.errors() {
        let position = Position { line: error.line, column: error.column };
        let (field, message) = (format!("services: {}", error.field), error.message.clone());
        problems.push(Problem { position, field, reason: error.reason, message });
    }
    if let Some((kind, namespace, name)) = parsed.names().find(|(kind, ..)| *kind != "ServiceEntry") {
        let message = format!(
            "{kind} {namespace}/{name} does not belong here; only ServiceEntry does: put it into the policy folder"
        );
        at.report("unsupported-kind", message, problems);
    }
    Some(parsed)
}

/// `policies`.
#[derive(Clone, Default)]
struct PolicyFolders {
    folder: Option<PathBuf>,
    candidates: Vec<PathBuf>,
}

/// `None` only if the built-in trust domain were not one, which a test rules out.
fn default_mesh() -> Option<Mesh> {
    Some(Mesh {
        trust_domain: TrustDomain::parse(defaults::TRUST_DOMAIN).ok()?,
        aliases: Vec::new(),
        trust_bundles: Vec::new(),
        policy: MeshSettings {
            root_namespace: defaults::ROOT_NAMESPACE.to_owned(),
            default_mode: Mode::Permissive,
            trust_domains: vec![defaults::TRUST_DOMAIN.to_owned()],
        },
    })
}

fn default_tls() -> Tls {
    Tls { allow_tls12: false, compat: Compat::default() }
}

fn default_limits() -> Limits {
    Limits { connections: None, per_identity: None, handshakes: defaults::HANDSHAKES, buffers: defaults::BUFFERS }
}

fn default_timeouts() -> Timeouts {
    Timeouts {
        handshake: defaults::HANDSHAKE,
        connect: defaults::CONNECT,
        idle: Some(defaults::IDLE),
        half_close: defaults::HALF_CLOSE,
    }
}

#[derive(Clone, Copy)]
enum CompatWord {
    Eku,
    KuCritical,
}

fn tls(at: &Cursor<'_>, problems: &mut Problems) -> Option<Tls> {
    let fields = at.fields(&["minVersion", "compat"], problems)?;
    let mut tls = default_tls();
    if let Some(at) = fields.get("minVersion") {
        tls.allow_tls12 = value::word(&at, &[("1.3", false), ("1.2", true)], problems)?;
    }
    if let Some(at) = fields.get("compat") {
        for item in at.items(problems)? {
            let words = [("eku", CompatWord::Eku), ("ku-critical", CompatWord::KuCritical)];
            match value::word(&item, &words, problems) {
                Some(CompatWord::Eku) => tls.compat.eku = true,
                Some(CompatWord::KuCritical) => tls.compat.ku_critical = true,
                None => {}
            }
        }
    }
    Some(tls)
}

fn listen(at: &Cursor<'_>, problems: &mut Problems) -> Option<SocketAddr> {
    let fields = at.fields(&["listen"], problems)?;
    value::socket_addr(&fields.require("listen", problems)?, problems)
}

fn count(at: &Cursor<'_>, max: i64, problems: &mut Problems) -> Option<usize> {
    at.integer(1, max, problems).and_then(|number| usize::try_from(number).ok())
}

fn limits(at: &Cursor<'_>, problems: &mut Problems) -> Option<Limits> {
    let fields = at.fields(&["connections", "perIdentity", "handshakes", "buffers"], problems)?;
    let [connections, per_identity] = ["connections", "perIdentity"]
        .map(|name| section(&fields, name, None, problems, |at, p| value::limit(at, p).map(Some)));
    let handshakes = section(&fields, "handshakes", defaults::HANDSHAKES, problems, |at, p| count(at, 1_000_000, p));
    let buffers = section(&fields, "buffers", defaults::BUFFERS, problems, value::size);
    Some(Limits { connections: connections?, per_identity: per_identity?, handshakes: handshakes?, buffers: buffers? })
}

fn timeouts(at: &Cursor<'_>, problems: &mut Problems) -> Option<Timeouts> {
    let fields = at.fields(&["handshake", "connect", "idle", "halfClose"], problems)?;
    let handshake = section(&fields, "handshake", defaults::HANDSHAKE, problems, value::positive_duration);
    let connect = section(&fields, "connect", defaults::CONNECT, problems, value::positive_duration);
    let idle = section(&fields, "idle", defaults::IDLE, problems, value::duration);
    let half_close = section(&fields, "halfClose", defaults::HALF_CLOSE, problems, value::positive_duration);
    let idle = idle?;
    Some(Timeouts {
        handshake: handshake?,
        connect: connect?,
        idle: (!idle.is_zero()).then_some(idle),
        half_close: half_close?,
    })
}

fn drain(at: &Cursor<'_>, problems: &mut Problems) -> Option<std::time::Duration> {
    let fields = at.fields(&["grace"], problems)?;
    section(&fields, "grace", defaults::DRAIN_GRACE, problems, value::duration)
}

fn sandbox(at: &Cursor<'_>, problems: &mut Problems) -> Option<Sandbox> {
    let fields = at.fields(&["landlock", "seccomp"], problems)?;
    let [landlock, seccomp] =
        ["landlock", "seccomp"].map(|name| section(&fields, name, true, problems, |at, p| at.boolean(p)));
    Some(Sandbox { landlock: landlock?, seccomp: seccomp? })
}
