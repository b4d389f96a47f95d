//! What to do about a client: a command or a YAML document to paste.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_api::{Mode, PortMode};

use crate::input::WorkloadName;
use crate::merge::Workload;
use crate::paste::{Fix, Paste};
use crate::readiness::model::What;

/// The namespace that `compose add` gives to services where nobody names one.
const COMPOSE_NAMESPACE: &str = "default";

/// The port that a client calls.
pub(super) struct Scene<'a> {
    pub(super) name: &'a WorkloadName,
    pub(super) workload: &'a Workload,
    pub(super) port: u16,
    pub(super) modes: &'a [PortMode],
}

/// The client.
pub(super) struct Subject<'a> {
    pub(super) what: What,
    pub(super) client: &'a str,
    /// The service of a compose file that it is. Plain characters only.
    pub(super) service: Option<&'a str>,
    /// The address that it dialled.
    pub(super) dialled: Option<IpAddr>,
}

/// What can be done, the best first.
pub(super) fn of(subject: &Subject<'_>, scene: &Scene<'_>) -> Vec<Fix> {
    let mut fixes = match (subject.what, subject.service) {
        (What::NoSidecar, Some(service)) => vec![scene.add_sidecar(service)],
        (What::BesideSidecar, _) => scene.route(subject).into_iter().collect(),
        (What::HostGateway, _) => scene.gateway().into_iter().collect(),
        (What::OwnTls, _) => scene.certificate(subject.client).into_iter().collect(),
        // It is done.
        (What::SidecarNow, _) => return Vec::new(),
        (What::NotInspected, _) => return scene.permissive().into_iter().collect(),
        (What::NoSidecar | What::HealthCheck | What::ThisHost, _) => Vec::new(),
    };
    fixes.extend(scene.exception(subject));
    fixes
}

impl Scene<'_> {
    fn add_sidecar(&self, service: &str) -> Fix {
        let namespace = match self.name.namespace.as_str() {
            COMPOSE_NAMESPACE => String::new(),
            other => format!(" -n {}", plain(other)),
        };
        Fix {
            what: format!(
                "{service} is a service of the compose file without a sidecar: add one, in the folder of that file"
            ),
            paste: Paste::Command(format!("portcullis compose add {service}{namespace} --apply")),
        }
    }

    /// The client's own sidecar does not know that the workload has one.
    fn route(&self, subject: &Subject<'_>) -> Option<Fix> {
        let address = subject.dialled.filter(|_| !self.workload.identity.is_empty())?;
        let port = self.port;
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let yaml = format!(
            "outbound:\n  routes:\n  - {{cidrs: [{}], ports: [{port}], mode: mtls, identities: [{}]}}\n",
            quoted(&format!("{address}/{prefix}")),
            quoted(&self.workload.identity)
        );
        let what = format!(
            "the sidecar of {} does not know that {} has one: name it in its configuration, or in a ServiceEntry; `portcullis explain --to \
             {address}:{port}` beside it shows what it does now",
            subject.client, self.name.name
        );
        Some(Fix { what, paste: Paste::Yaml(yaml) })
    }

    fn gateway(&self) -> Option<Fix> {
        if self.workload.identity.is_empty() {
            return None;
        }
        let port = self.port;
        let yaml = format!(
            "gateway:\n  listeners:\n  - listen: \"0.0.0.0:{port}\"\n    routes:\n    - {{address: {}, mode: mtls, identities: [{}]}}\n",
            quoted(&format!("{}:{port}", self.name.name)),
            quoted(&self.workload.identity)
        );
        let what = "clients outside of the mesh come through a gateway listener: publish the port of a sidecar with this configuration instead";
        Some(Fix { what: what.to_owned(), paste: Paste::Yaml(yaml) })
    }

    /// Under STRICT any TLS with a certificate of the mesh is accepted.
    fn certificate(&self, client: &str) -> Option<Fix> {
        let identity = self.workload.identity.strip_prefix("spiffe://")?;
        let (domain, _) = identity.split_once('/')?;
        let account = label(client.split('.').next().unwrap_or(client));
        let namespace = label(&self.name.namespace);
        let command = format!(
            "portcullis certs issue --ca ca --id spiffe://{}/ns/{namespace}/sa/{account} --out certs/{account}",
            plain(domain)
        );
        let what = format!(
            "{client} speaks TLS: STRICT lets it in if it presents a certificate of the mesh; issue one, and configure the client with it"
        );
        Some(Fix { what, paste: Paste::Command(command) })
    }

    /// One port keeps what the workload has now.
    fn exception(&self, subject: &Subject<'_>) -> Option<Fix> {
        let what = match subject.what {
            What::HealthCheck => {
                "a check can run beside the app, over its loopback, which no sidecar sees; one that must come from outside keeps plaintext on this port"
            }
            _ => {
                "for a client that cannot have a sidecar, leave this port PERMISSIVE: everybody may send it plaintext then"
            }
        };
        let yaml = self.policy("plaintext", &format!("  portLevelMtls:\n    {}: {{mode: PERMISSIVE}}\n", self.port))?;
        Some(Fix {
            what: format!("{what}. If a policy selects the workload already, add the port to that one"),
            paste: Paste::Yaml(yaml),
        })
    }

    fn permissive(&self) -> Option<Fix> {
        self.modes.iter().any(|mode| mode.mode == Mode::Disable).then_some(())?;
        let yaml =
            self.policy("permissive", &format!("  portLevelMtls:\n    {}: {{mode: PERMISSIVE}}\n", self.port))?;
        let what = "nobody looks at the bytes of a DISABLE port: make it PERMISSIVE, which admits the same clients, and observe again";
        Some(Fix { what: what.to_owned(), paste: Paste::Yaml(yaml) })
    }

    /// A policy for the workload; it must have labels to be selected by.
    fn policy(&self, suffix: &str, spec: &str) -> Option<String> {
        let Self { name, workload, port, .. } = self;
        let selector = selector(&workload.labels)?;
        let (policy, namespace) = (label(&format!("{}-{port}-{suffix}", name.name)), label(&name.namespace));
        Some(format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {policy}, namespace: {namespace}}}\nspec:\n  \
             selector: {{matchLabels: {selector}}}\n{spec}"
        ))
    }
}

fn selector(labels: &BTreeMap<String, String>) -> Option<String> {
    // What names the app is enough, and outlives a new version.
    let chosen = ["app", "app.kubernetes.io/name"].into_iter().find(|key| labels.contains_key(*key));
    let taken = labels.iter().filter(|(key, _)| chosen.is_none_or(|chosen| key.as_str() == chosen));
    let pairs: Vec<String> = taken.map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(", ")))
}

/// A string of YAML: one of JSON is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// As a DNS label, whatever it is.
fn label(text: &str) -> String {
    let plain = text.to_ascii_lowercase();
    let label: String = plain.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "client".to_owned() } else { label.to_owned() }
}

/// Without anything that means something to a shell.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.:/".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    use portcullis_policy::PolicySet;
    use portcullis_policy::Source;

    use super::*;

    fn scene<T>(labels: &[(&str, &str)], test: impl FnOnce(&Scene<'_>) -> T) -> T {
        let name = WorkloadName { namespace: "shop".to_owned(), name: "cart".to_owned() };
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let identity = "spiffe://cluster.local/ns/shop/sa/cart".to_owned();
        let workload = Workload { labels, identity, ..Workload::default() };
        let modes = [PortMode { port: Some(8080), mode: Mode::Disable, ..PortMode::default() }];
        test(&Scene { name: &name, workload: &workload, port: 8080, modes: &modes })
    }

    const ALL: [What; 7] = [
        What::NoSidecar,
        What::BesideSidecar,
        What::HealthCheck,
        What::HostGateway,
        What::ThisHost,
        What::OwnTls,
        What::NotInspected,
    ];

    #[test]
    fn every_policy_that_is_proposed_is_valid_and_selects_the_workload() {
        scene(&[("app", "a\"b: {c}"), ("version", "2")], |scene| {
            for what in ALL {
                let subject = Subject { what, client: "x", service: None, dialled: "10.0.0.2".parse().ok() };
                let fixes = of(&subject, scene);
                assert!(!fixes.is_empty(), "{what:?}");
                for fix in fixes {
                    let Paste::Yaml(yaml) = fix.paste else { continue };
                    if !yaml.contains("PeerAuthentication") {
                        continue;
                    }
                    let loaded = PolicySet::load(&[Source { file: "fix".to_owned(), text: yaml.clone().into_bytes() }]);
                    assert!(loaded.errors.is_empty(), "{:?}\n{yaml}", loaded.errors);
                    let [policy] = loaded.set.policies() else { panic!("{yaml}") };
                    assert_eq!(policy.selector, BTreeMap::from([("app".to_owned(), "a\"b: {c}".to_owned())]));
                }
            }
        });
    }

    #[test]
    fn commands_cannot_be_led_astray_by_names() {
        scene(&[], |scene| {
            let subject = Subject { what: What::OwnTls, client: "x; rm -rf $HOME", service: None, dialled: None };
            let [fix] = &of(&subject, scene)[..] else { panic!() };
            let Paste::Command(command) = &fix.paste else { panic!() };
            assert!(
                command.ends_with("--id spiffe://cluster.local/ns/shop/sa/x--rm--rf--home --out certs/x--rm--rf--home"),
                "{command}"
            );
            let subject = Subject { what: What::NoSidecar, client: "cron", service: Some("cron"), dialled: None };
            let [fix] = &of(&subject, scene)[..] else { panic!() };
            let expected = "portcullis compose add cron -n shop --apply";
            assert_eq!(fix.paste, Paste::Command(expected.to_owned()));
        });
    }

    #[test]
    fn a_client_that_has_its_sidecar_gets_no_advice() {
        scene(&[("app", "cart")], |scene| {
            let subject = Subject { what: What::SidecarNow, client: "cron", service: Some("cron"), dialled: None };
            assert_eq!(of(&subject, scene), []);
        });
    }

    #[test]
    fn without_labels_nothing_is_proposed_that_would_hold_for_the_namespace() {
        scene(&[], |scene| {
            let subject = Subject { what: What::ThisHost, client: "127.0.0.1", service: None, dialled: None };
            assert_eq!(of(&subject, scene), []);
        });
    }
}
