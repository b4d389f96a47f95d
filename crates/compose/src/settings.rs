//! What an author says of a sidecar at the service that it belongs to: labels (`portcullis.server-first-ports: "3306"`), or the same
//! keys under `x-portcullis`.
//!
//! A later run makes the sidecar from them again. A setting that is not known is refused: with a misspelt one, somebody would believe in
//! a sidecar that is not there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_yaml::{Mapping, Value};

use crate::error::Reason;
use crate::record::KEY;
use crate::yaml::{list, scalar};

/// What the labels begin with.
const PREFIX: &str = "portcullis.";
/// Labels that generated services and sidecars of other tools have, and that say nothing of the sidecar to make.
const OTHER_LABELS: [&str; 5] = ["sidecar-of", "workload", "component", "admin-port", "admin-socket"];
/// Those that the holder, which installs the redirect rules, takes as its options.
const CAPTURE: [&str; 8] = [
    "exclude-inbound-ports",
    "exclude-inbound-ip-ranges",
    "exclude-outbound-ports",
    "exclude-outbound-ip-ranges",
    "include-outbound-ip-ranges",
    "exclude-interfaces",
    "drop-inbound-udp-ports",
    "drop-outbound-udp-ports",
];
const SERVER_FIRST: &str = "server-first-ports";
const APP_ADDRESS: &str = "app-address";
const PROXY_PROTOCOL: &str = "proxy-protocol";

/// The settings of one sidecar.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Settings {
    server_first: Option<Vec<u16>>,
    apps: BTreeMap<u16, SocketAddr>,
    proxy_protocol: Vec<u16>,
    capture: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Reads the settings of a service, or says everything that is wrong with them.
    pub(crate) fn read(service: &Mapping) -> Result<Self, Vec<Reason>> {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let labels = labels(service).into_iter().filter(|(key, _)| !OTHER_LABELS.contains(&key.as_str()));
        let (extension, wrong) = extension(service);
        problems.extend(wrong);
        for (key, text) in labels.chain(extension) {
            if seen.contains(&key) {
                problems.push(Reason::SettingTwice(key));
                continue;
            }
            problems.extend(settings.set(&key, &text).err());
            seen.push(key);
        }
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    fn set(&mut self, key: &str, text: &str) -> Result<(), Reason> {
        let wrong = |expected: &'static str| Reason::Setting { key: key.to_owned(), text: text.to_owned(), expected };
        let ports = || {
            let parts = words(text).map(str::parse::<u16>);
            parts.collect::<Result<Vec<_>, _>>().map_err(|_| wrong("port numbers with commas, such as 3306,25"))
        };
        if let Some(option) = CAPTURE.into_iter().find(|option| *option == key) {
            // Whether they are ports or addresses says the command itself, when it starts; what is here must be one word.
            if text.contains(|character: char| character.is_whitespace() || character == '$') || text.is_empty() {
                return Err(wrong("values with commas and without spaces"));
            }
            self.capture.insert(option, text.to_owned());
            return Ok(());
        }
        match key {
            SERVER_FIRST => self.server_first = Some(ports()?),
            PROXY_PROTOCOL => self.proxy_protocol = ports()?,
            APP_ADDRESS => {
                for word in words(text) {
                    let app =
                        word.split_once('=').and_then(|(port, app)| Some((port.parse().ok()?, app.parse().ok()?)));
                    let (port, app) = app.ok_or_else(|| wrong("PORT=ADDRESS:PORT, such as 8080=127.0.0.1:8080"))?;
                    self.apps.insert(port, app);
                }
            }
            _ => {
                let known = [SERVER_FIRST, APP_ADDRESS, PROXY_PROTOCOL].into_iter().chain(CAPTURE);
                let known = known.map(str::to_owned).collect();
                return Err(Reason::UnknownSetting { key: key.to_owned(), known });
            }
        }
        Ok(())
    }

    /// Adds what belongs into `inbound` of the proxy's configuration.
    pub(crate) fn extend_inbound(&self, inbound: &mut Mapping) {
        let numbers = |ports: &[u16]| Value::Sequence(ports.iter().map(|port| Value::from(*port)).collect());
        if let Some(ports) = &self.server_first {
            inbound.insert(Value::from("serverFirstPorts"), numbers(ports));
        }
        if !self.proxy_protocol.is_empty() {
            inbound.insert(Value::from("proxyProtocolPorts"), numbers(&self.proxy_protocol));
        }
        if !self.apps.is_empty() {
            let apps = self.apps.iter().map(|(port, app)| (Value::from(*port), Value::from(app.to_string())));
            inbound.insert(Value::from("apps"), Value::Mapping(apps.collect()));
        }
    }

    /// The command that installs the redirect rules and holds the namespace.
    pub(crate) fn hold_command(&self, socket: &str) -> Value {
        let options = self.capture.iter().map(|(option, value)| format!("--{option}={value}"));
        list(["hold", "--intercept", "--announce", socket].map(str::to_owned).into_iter().chain(options))
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// The labels of a service that begin with our prefix, in either form.
fn labels(service: &Mapping) -> Vec<(String, String)> {
    let ours = |key: &str, value: String| key.strip_prefix(PREFIX).map(|key| (key.to_owned(), value));
    match service.get("labels") {
        Some(Value::Mapping(labels)) => {
            labels.iter().filter_map(|(key, value)| ours(key.as_str()?, scalar(value).unwrap_or_default())).collect()
        }
        Some(Value::Sequence(labels)) => {
            let texts = labels.iter().filter_map(Value::as_str);
            texts.filter_map(|text| text.split_once('=').and_then(|(key, value)| ours(key, value.to_owned()))).collect()
        }
        _ => Vec::new(),
    }
}

/// The settings under `x-portcullis`, where a list may be one.
fn extension(service: &Mapping) -> (Vec<(String, String)>, Option<Reason>) {
    let Some(written) = service.get(KEY) else { return (Vec::new(), None) };
    let Some(written) = written.as_mapping() else { return (Vec::new(), Some(Reason::NeitherListNorMapping(KEY))) };
    let text = |value: &Value| match value {
        Value::Sequence(items) => {
            items.iter().map(|item| scalar(item).unwrap_or_default()).collect::<Vec<_>>().join(",")
        }
        Value::Mapping(entries) => {
            let entries =
                entries.iter().filter_map(|(key, value)| Some(format!("{}={}", scalar(key)?, scalar(value)?)));
            entries.collect::<Vec<_>>().join(",")
        }
        other => scalar(other).unwrap_or_default(),
    };
    (written.iter().filter_map(|(key, value)| Some((scalar(key)?, text(value)))).collect(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(service: &str) -> Result<Settings, String> {
        let lines = |reasons: Vec<Reason>| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Settings::read(&serde_yaml::from_str(service).unwrap()).map_err(lines)
    }

    #[test]
    fn labels_and_the_extension_say_the_same() {
        let forms = [
            r#"{labels: {portcullis.server-first-ports: "3306,25", portcullis.app-address: "8080=127.0.0.1:8081", other: x}}"#,
            r#"{labels: ["portcullis.server-first-ports=3306,25", "portcullis.app-address=8080=127.0.0.1:8081"]}"#,
            r#"{x-portcullis: {server-first-ports: [3306, 25], app-address: {8080: "127.0.0.1:8081"}}}"#,
        ];
        let all = forms.map(|form| read(form).unwrap());
        assert!(all.iter().all(|settings| *settings == all[2]), "{all:?}");
        let mut inbound = Mapping::new();
        all[0].extend_inbound(&mut inbound);
        let expected: Mapping =
            serde_yaml::from_str("{serverFirstPorts: [3306, 25], apps: {8080: '127.0.0.1:8081'}}").unwrap();
        assert_eq!(inbound, expected);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for (service, needle) in [
            ("{labels: {portcullis.server-first-port: '1'}}", "server-first-ports"),
            ("{labels: {portcullis.server-first-ports: all}}", "3306,25"),
            ("{labels: {portcullis.app-address: '127.0.0.1:80'}}", "8080=127.0.0.1:8080"),
            ("{x-portcullis: {exclude-outbound-ports: '1 --config=x'}}", "without spaces"),
            ("{x-portcullis: 5}", "x-portcullis"),
            ("{labels: {portcullis.proxy-protocol: '80'}, x-portcullis: {proxy-protocol: 80}}", "twice"),
        ] {
            let error = read(service).unwrap_err();
            assert!(error.contains(needle), "{service}: {error}");
        }
        assert_eq!(read("{labels: {portcullis.admin-port: '15000'}}"), Ok(Settings::default()));
    }
}
