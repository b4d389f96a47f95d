//! What the sender is: attributes of the resource.

use portcullis_config::Otlp;
use portcullis_rpc::otlp::{KeyValue, Resource};

use crate::message::{integer, text};

/// The sender, as the configuration of the proxy has it.
#[derive(Clone, Debug)]
pub struct ResourceParts {
    /// The workload's service, unless the settings name another.
    pub service: String,
    /// The workload's namespace.
    pub namespace: String,
    /// The version of the proxy.
    pub version: String,
}

/// Attributes that the settings name replace those that are known here.
pub(crate) fn resource(parts: &ResourceParts, settings: &Otlp) -> Resource {
    let service = settings.service_name.as_ref().unwrap_or(&parts.service);
    let mut attributes: Vec<KeyValue> = vec![
        text("service.name", service),
        text("service.namespace", &parts.namespace),
        text("service.instance.id", &instance_id(fastrand::u128(..))),
        text("service.version", &parts.version),
        integer("process.pid", std::process::id().into()),
    ];
    for (name, value) in &settings.resource {
        attributes.retain(|known| known.key != *name);
        attributes.push(text(name, value));
    }
    Resource { attributes }
}

/// A UUID of version 4, which the conventions recommend: another one after each start.
fn instance_id(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let mut groups = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            groups.push('-');
        }
        groups.push(digit);
    }
    groups
}

#[cfg(test)]
mod tests {
    use portcullis_config::{OtlpLayer, OtlpUrl};

    use super::*;

    #[test]
    fn an_instance_is_a_uuid_of_version_4() {
        assert_eq!(instance_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(instance_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_named_replaces_what_is_known() {
        let parts = ResourceParts { service: "cart".into(), namespace: "shop".into(), version: "1".into() };
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let layer = OtlpLayer {
            endpoint: OtlpUrl::parse("http://a:1").ok(),
            service_name: Some("other".to_owned()),
            resource: Some(vec![named("service.namespace", "lab"), named("zone", "z1")]),
            ..OtlpLayer::default()
        };
        let made = resource(&parts, &layer.under(OtlpLayer::default()).unwrap());
        let of = |name: &str| made.attributes.iter().filter(|attribute| attribute.key == name).collect::<Vec<_>>();
        assert_eq!(of("service.name"), [&text("service.name", "other")]);
        assert_eq!(of("service.namespace"), [&text("service.namespace", "lab")]);
        assert_eq!(of("zone"), [&text("zone", "z1")]);
        assert_eq!(of("service.instance.id").len(), 1);
    }
}
