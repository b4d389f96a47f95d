//! `telemetry`: where the access log is sent besides standard output, and OpenTelemetry's environment variables for the same.
//!
//! File and environment are two layers of the same settings. A variable has precedence: OpenTelemetry's operators and SDKs set them for
//! one deployment, beside a file that is the same everywhere.

mod environment;
mod model;
mod url;
mod values;

use portcullis_yaml::{Cursor, Fields, Problems};

use crate::fields::{SectionReader, section};
use crate::value;

pub use self::environment::{OTLP_VARIABLES, VariableError};
pub use self::model::{Otlp, OtlpHeaders, OtlpLayer, OtlpProtocol};
pub use self::url::OtlpUrl;

/// `telemetry`.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// `otlp`, as the file has it.
    pub otlp: OtlpLayer,
    /// The export in force: that of the file until the environment is applied.
    pub export: Option<Otlp>,
}

impl Telemetry {
    /// Puts the export in force that file and environment make together.
    ///
    /// # Errors
    /// Every variable that cannot be used.
    pub fn apply_environment(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), Vec<VariableError>> {
        let environment = OtlpLayer::of_environment(&self.otlp, variable)?;
        self.export = environment.and_then(|environment| self.otlp.under(environment));
        Ok(())
    }
}

pub(crate) fn read(reader: &SectionReader<'_>, at: &Cursor<'_>, problems: &mut Problems) -> Option<Telemetry> {
    let fields = at.fields(&["otlp"], problems)?;
    let otlp = section(&fields, "otlp", OtlpLayer::default(), problems, |at, p| read_otlp(reader, at, p))?;
    let export = otlp.under(OtlpLayer::default());
    Some(Telemetry { otlp, export })
}

const OTLP: [&str; 9] = [
    "endpoint",
    "logsEndpoint",
    "headers",
    "protocol",
    "timeout",
    "compression",
    "certificate",
    "serviceName",
    "resourceAttributes",
];

fn read_otlp(reader: &SectionReader<'_>, at: &Cursor<'_>, problems: &mut Problems) -> Option<OtlpLayer> {
    let fields = at.fields(&OTLP, problems)?;
    let [endpoint, logs_endpoint] =
        ["endpoint", "logsEndpoint"].map(|name| parsed(&fields, name, problems, OtlpUrl::parse));
    let headers = pairs(&fields, "headers", problems, values::header);
    let protocol = parsed(&fields, "protocol", problems, values::protocol);
    let timeout = section(&fields, "timeout", None, problems, |at, p| value::positive_duration(at, p).map(Some));
    let _none = parsed(&fields, "compression", problems, values::compression);
    let certificate = section(&fields, "certificate", None, problems, |at, p| reader.path(at, p).map(Some));
    let service_name = parsed(&fields, "serviceName", problems, values::service_name);
    let resource = pairs(&fields, "resourceAttributes", problems, values::attribute);
    Some(OtlpLayer {
        endpoint,
        logs_endpoint,
        headers: headers.map(OtlpHeaders),
        protocol,
        timeout: timeout?,
        certificate: certificate?,
        service_name,
        resource,
    })
}

fn parsed<T>(
    fields: &Fields<'_>,
    name: &str,
    problems: &mut Problems,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let at = fields.get(name)?;
    match parse(at.string(problems)?) {
        Ok(value) => Some(value),
        Err(message) => {
            value::invalid(&at, message, problems);
            None
        }
    }
}

/// A mapping of names to texts, each pair checked by `check`.
fn pairs(
    fields: &Fields<'_>,
    name: &str,
    problems: &mut Problems,
    check: impl Fn(&str, &str) -> Result<(), String>,
) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    for (key, at) in fields.get(name)?.entries(problems)? {
        let Some(text) = at.string(problems) else { continue };
        match check(key.text(), text) {
            Ok(()) => all.push((key.text().to_owned(), text.to_owned())),
            Err(message) => value::invalid(&at, message, problems),
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn layer(otlp: &str) -> OtlpLayer {
        let text = format!("workload: {{name: a, namespace: b}}\ntelemetry: {{otlp: {otlp}}}\n");
        crate::read(text.as_bytes(), Path::new("/conf")).unwrap().telemetry.otlp
    }

    fn problems(otlp: &str) -> Vec<String> {
        let text = format!("workload: {{name: a, namespace: b}}\ntelemetry: {{otlp: {otlp}}}\n");
        let problems = crate::read(text.as_bytes(), Path::new("/conf")).unwrap_err();
        problems.into_iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    }

    #[test]
    fn every_key_is_read() {
        let otlp = layer(
            "{endpoint: \"https://collector:4318/base\", headers: {authorization: \"Bearer secret\"}, \
             protocol: http/json, timeout: 3s, compression: none, certificate: ca.pem, serviceName: shop-cart, \
             resourceAttributes: {deployment.environment.name: test}}",
        );
        assert!(!format!("{otlp:?}").contains("secret"), "{otlp:?}");
        let otlp = otlp.under(OtlpLayer::default()).unwrap();
        assert_eq!(otlp.endpoint.to_string(), "https://collector:4318/base/v1/logs");
        assert_eq!(otlp.headers.iter().collect::<Vec<_>>(), [("authorization", "Bearer secret")]);
        assert_eq!((otlp.protocol, otlp.timeout), (OtlpProtocol::Json, Duration::from_secs(3)));
        assert_eq!(otlp.certificate.as_deref(), Some(Path::new("/conf/ca.pem")));
        assert_eq!(otlp.service_name.as_deref(), Some("shop-cart"));
        assert_eq!(otlp.resource, [("deployment.environment.name".to_owned(), "test".to_owned())]);
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        assert_eq!(layer("{protocol: http/json}").under(OtlpLayer::default()), None);
        assert_eq!(OtlpLayer::default().under(OtlpLayer::default()), None);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_what_can() {
        for (otlp, expected) in [
            ("{endpoint: \"collector:4318\"}", "http://"),
            ("{endpoint: \"http://a:1\", protocol: grpc}", "write http/protobuf or http/json"),
            ("{endpoint: \"http://a:1\", compression: gzip}", "write none"),
            ("{endpoint: \"http://a:1\", timeout: 0s}", "longer than zero"),
            ("{endpoint: \"http://a:1\", headers: {\"a b\": c}}", "not the name of a header"),
            ("{endpoint: \"http://a:1\", headers: {a: \"b\\nc\"}}", "cannot be the value of a header"),
            ("{endpoint: \"http://a:1\", resourceAttributes: {\"\": c}}", "has no name"),
            ("{endpoint: \"http://a:1\", serviceName: \"\"}", "empty"),
            ("{endpont: \"http://a:1\"}", "endpont"),
        ] {
            let found = problems(otlp);
            assert!(found.iter().any(|problem| problem.contains(expected)), "{otlp}: {found:?}");
        }
    }
}
