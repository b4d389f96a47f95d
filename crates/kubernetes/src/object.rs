//! One object: what of it is read, as the text that the reader of files gets.

use kube::api::ApiResource;
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What names an object of one watch.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Holds the whole object a second time, and says nothing.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The document of an object: without `status`, and without what the server manages. Two versions of an object that mean the same have
/// the same document.
pub(crate) fn document(object: DynamicObject, resource: &ApiResource) -> (Name, String) {
    let DynamicObject { metadata, data, .. } = object;
    let name = Name { namespace: metadata.namespace.unwrap_or_default(), name: metadata.name.unwrap_or_default() };
    let mut kept = Map::from_iter([
        ("name".to_owned(), Value::from(name.name.as_str())),
        ("namespace".to_owned(), Value::from(name.namespace.as_str())),
    ]);
    if let Some(created) = metadata.creation_timestamp {
        kept.insert("creationTimestamp".to_owned(), json!(created));
    }
    if let Some(labels) = metadata.labels.filter(|labels| !labels.is_empty()) {
        kept.insert("labels".to_owned(), json!(labels));
    }
    let annotations = metadata.annotations.map(|mut annotations| {
        annotations.remove(LAST_APPLIED);
        annotations
    });
    if let Some(annotations) = annotations.filter(|annotations| !annotations.is_empty()) {
        kept.insert("annotations".to_owned(), json!(annotations));
    }
    let mut document = Map::from_iter([
        ("apiVersion".to_owned(), Value::from(resource.api_version.as_str())),
        ("kind".to_owned(), Value::from(resource.kind.as_str())),
        ("metadata".to_owned(), Value::Object(kept)),
    ]);
    if let Value::Object(mut fields) = data {
        fields.remove("status");
        document.extend(fields);
    }
    (name, Value::Object(document).to_string())
}

#[cfg(test)]
mod tests {
    use kube::api::GroupVersionKind;

    use super::*;

    #[test]
    fn what_the_server_manages_is_left_out_and_unknown_fields_are_kept() {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "1", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-31T12:00:00Z", "managedFields": [{"manager": "kubectl"}],
                "annotations": {LAST_APPLIED: "{}", "istio.io/dry-run": "true"},
            },
            "spec": {"mtls": {"mode": "STRICT"}}, "status": {"conditions": []}, "spce": 1,
        }))
        .unwrap();
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk("security.istio.io", "v1beta1", "PeerAuthentication"));
        let (name, text) = document(object, &resource);
        assert_eq!((name.namespace.as_str(), name.name.as_str()), ("shop", "a"));
        let expected = json!({
            "apiVersion": "security.istio.io/v1beta1", "kind": "PeerAuthentication",
            "metadata": {
                "name": "a", "namespace": "shop", "creationTimestamp": "2026-01-31T12:00:00Z",
                "annotations": {"istio.io/dry-run": "true"},
            },
            "spec": {"mtls": {"mode": "STRICT"}}, "spce": 1,
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }
}
