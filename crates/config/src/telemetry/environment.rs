//! OpenTelemetry's environment variables for the export of logs over HTTP.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::model::{OtlpHeaders, OtlpLayer};
use super::url::OtlpUrl;
use super::values::{attribute, compression, header, protocol, service_name};

/// The variables that are read. For each `OTEL_EXPORTER_OTLP_X` but the endpoint, `OTEL_EXPORTER_OTLP_LOGS_X` has precedence.
pub const OTLP_VARIABLES: [&str; 15] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_LOGS_EXPORTER",
];

/// A variable whose value cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VariableError {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with its value, and what would be right.
    pub message: String,
}

impl fmt::Display for VariableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}

impl OtlpLayer {
    /// What the variables say; `None` if they switch the export off. An empty variable counts as one that is not set.
    ///
    /// # Errors
    /// Every variable that cannot be used. Those that only tune an export are read only where there is an endpoint, of `file` or
    /// of a variable: what an app's SDK was given must not stop a sidecar that exports nothing.
    pub fn of_environment(
        file: &Self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Vec<VariableError>> {
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut reading = Reading { set: &set, errors: Vec::new() };
        let off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if off || set("OTEL_LOGS_EXPORTER").as_deref() == Some("none") {
            return Ok(None);
        }
        let mut layer = Self {
            endpoint: reading.one("OTEL_EXPORTER_OTLP_ENDPOINT", OtlpUrl::parse),
            logs_endpoint: reading.one("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", OtlpUrl::parse),
            ..Self::default()
        };
        let any = [&layer, file].iter().any(|layer| layer.endpoint.is_some() || layer.logs_endpoint.is_some());
        if any {
            reading.tuning(&mut layer);
        }
        if reading.errors.is_empty() { Ok(Some(layer)) } else { Err(reading.errors) }
    }
}

struct Reading<'a> {
    set: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<VariableError>,
}

impl Reading<'_> {
    fn tuning(&mut self, layer: &mut OtlpLayer) {
        let _known = self.one("OTEL_LOGS_EXPORTER", exporter);
        layer.headers = self
            .either(["OTEL_EXPORTER_OTLP_LOGS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"], |text| list(text, header))
            .map(OtlpHeaders);
        layer.protocol = self.either(["OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"], protocol);
        layer.timeout = self.either(["OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"], milliseconds);
        let _none = self.either(["OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"], compression);
        layer.certificate = self
            .either(["OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"], |path| {
                Ok(PathBuf::from(path))
            });
        layer.service_name = self.one("OTEL_SERVICE_NAME", service_name);
        layer.resource = self.one("OTEL_RESOURCE_ATTRIBUTES", |text| list(text, attribute));
    }

    fn one<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(&(self.set)(name)?).map_err(|message| self.errors.push(VariableError { name, message })).ok()
    }

    /// The first of the two that is set.
    fn either<T>(&mut self, names: [&'static str; 2], parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let name = names.into_iter().find(|name| (self.set)(name).is_some())?;
        self.one(name, parse)
    }
}

fn exporter(text: &str) -> Result<(), String> {
    match text {
        "otlp" => Ok(()),
        other => Err(format!("\"{other}\" is not supported; write otlp or none")),
    }
}

/// OpenTelemetry's unit.
fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(milliseconds @ 1..) => Ok(Duration::from_millis(milliseconds.into())),
        _ => Err(format!("\"{text}\" is not a number of milliseconds above 0; write 10000 for ten seconds")),
    }
}

/// `name=value,name=value`, as in W3C's baggage: values may be percent-encoded.
fn list(text: &str, check: impl Fn(&str, &str) -> Result<(), String>) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for (index, entry) in text.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty()) {
        // The entry itself may be a secret.
        let (name, value) = entry.split_once('=').ok_or_else(|| {
            format!("entry {} is not name=value; separate entries with commas", index.saturating_add(1))
        })?;
        let value = percent_decoded(value.trim())
            .ok_or_else(|| format!("the value of {name} is not UTF-8 or has a broken %"))?;
        check(name.trim(), &value)?;
        all.push((name.trim().to_owned(), value));
    }
    Ok(all)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::model::{Otlp, OtlpProtocol};

    fn read(file: &OtlpLayer, variables: &[(&str, &str)]) -> Result<Option<Otlp>, Vec<VariableError>> {
        let found =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        OtlpLayer::of_environment(file, found).map(|layer| layer.and_then(|layer| file.under(layer)))
    }

    fn of(variables: &[(&str, &str)]) -> Option<Otlp> {
        read(&OtlpLayer::default(), variables).unwrap()
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    #[test]
    fn the_endpoint_of_logs_is_used_as_it_is() {
        assert_eq!(of(&[BASE]).unwrap().endpoint.to_string(), "http://collector:4318/v1/logs");
        let both = [BASE, ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs.example.com/in")];
        assert_eq!(of(&both).unwrap().endpoint.to_string(), "https://logs.example.com:443/in");
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None, "an empty variable is none");
    }

    #[test]
    fn a_variable_is_above_the_file_and_that_of_logs_above_the_general_one() {
        let file = OtlpLayer {
            logs_endpoint: Some(OtlpUrl::parse("http://file:1/x").unwrap()),
            protocol: Some(OtlpProtocol::Json),
            timeout: Some(Duration::from_secs(1)),
            resource: Some(vec![("a".to_owned(), "file".to_owned()), ("b".to_owned(), "file".to_owned())]),
            ..OtlpLayer::default()
        };
        let in_force = read(&file, &[]).unwrap().unwrap();
        assert_eq!(
            (in_force.endpoint.to_string().as_str(), in_force.protocol),
            ("http://file:1/x", OtlpProtocol::Json)
        );
        let in_force = read(
            &file,
            &[
                BASE,
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_RESOURCE_ATTRIBUTES", "a=variable,service.name=from-attributes"),
            ],
        );
        let in_force = in_force.unwrap().unwrap();
        assert_eq!(in_force.endpoint.to_string(), "http://collector:4318/v1/logs");
        assert_eq!((in_force.protocol, in_force.timeout), (OtlpProtocol::Protobuf, Duration::from_millis(2500)));
        assert_eq!(in_force.resource, [("b", "file"), ("a", "variable")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(in_force.service_name.as_deref(), Some("from-attributes"));
    }

    #[test]
    fn lists_are_read_as_baggage() {
        let headers = of(&[BASE, ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YTpi=, x-tenant = shop ,")]);
        let headers = headers.unwrap().headers;
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("authorization", "Basic YTpi="), ("x-tenant", "shop")]);
    }

    #[test]
    fn the_service_name_has_its_own_variable() {
        let both = [BASE, ("OTEL_SERVICE_NAME", "cart"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,k=v")];
        let in_force = of(&both).unwrap();
        assert_eq!(in_force.service_name.as_deref(), Some("cart"));
        assert_eq!(in_force.resource, [("k".to_owned(), "v".to_owned())]);
    }

    #[test]
    fn the_export_can_be_switched_off() {
        assert_eq!(of(&[BASE, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(of(&[BASE, ("OTEL_LOGS_EXPORTER", "none")]), None);
        assert!(of(&[BASE, ("OTEL_LOGS_EXPORTER", "otlp")]).is_some());
    }

    #[test]
    fn every_bad_value_is_told_without_showing_secrets() {
        let errors = read(
            &OtlpLayer::default(),
            &[
                BASE,
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
                ("OTEL_LOGS_EXPORTER", "console"),
                ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
            ],
        );
        let errors = errors.unwrap_err();
        assert_eq!(errors.len(), 6, "{errors:?}");
        assert!(errors.iter().all(|error| !error.to_string().contains("secret")), "{errors:?}");
    }

    /// The app's SDK may speak gRPC; a sidecar without an endpoint does not care.
    #[test]
    fn without_an_endpoint_the_others_are_not_read() {
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "x")]), None);
    }
}
