//! Makes the generated part of a file short: what all generated services have in common is written once.

use serde_yaml::{Mapping, Value};

use crate::sidecar::CONFIG_VARIABLE;
use crate::yaml::{alias, anchor, in_line};

/// What every generated service has; the image comes first.
const COMMON: [&str; 4] = ["image", "cap_drop", "read_only", "security_opt"];
/// The top-level keys, and at the same time the names of their anchors.
const PART: &str = "x-portcullis-part";
const CONFIG: &str = "x-portcullis-config";

/// Writes what the `generated` services share as top-level keys into `head`, and refers to it.
pub(crate) fn compact(services: &mut Mapping, generated: &[String], head: &mut Mapping) {
    let mut configs: Vec<Value> = Vec::new();
    let mut common: Option<Mapping> = None;
    for name in generated {
        let Some(Value::Mapping(service)) = services.get_mut(name.as_str()) else { continue };
        let own: Mapping =
            COMMON.iter().filter_map(|key| Some((Value::from(*key), service.get(*key)?.clone()))).collect();
        let is_common = *common.get_or_insert_with(|| own.clone()) == own;
        let mut short = Mapping::new();
        if is_common {
            short.insert(Value::from("<<"), alias(PART));
        }
        for (key, mut value) in std::mem::take(service) {
            if is_common && own.contains_key(&key) {
                continue;
            }
            if let Some(config) = value.get_mut(CONFIG_VARIABLE) {
                *config = alias(&shared(&mut configs, config));
                short.insert(key, value);
            } else {
                short.insert(key, in_line(value));
            }
        }
        *service = short;
    }
    if let Some(common) = common {
        let common = common.into_iter().map(|(key, value)| (key, in_line(value))).collect();
        head.insert(Value::from(PART), anchor(PART, Value::Mapping(common)));
    }
    for (index, config) in configs.into_iter().enumerate() {
        let name = config_name(index);
        head.insert(Value::from(name.as_str()), anchor(&name, config));
    }
}

/// The name of a text among those that were seen.
fn shared(configs: &mut Vec<Value>, config: &Value) -> String {
    let index = configs.iter().position(|other| other == config).unwrap_or_else(|| {
        configs.push(config.clone());
        configs.len().saturating_sub(1)
    });
    config_name(index)
}

/// The first has no number: mostly it is the only one.
fn config_name(index: usize) -> String {
    if index == 0 { CONFIG.to_owned() } else { format!("{CONFIG}-{}", index.saturating_add(1)) }
}

/// Whether a top-level key is one that [`compact`] writes.
pub(crate) fn is_ours(key: &Value) -> bool {
    key.as_str().is_some_and(|key| key == PART || key.starts_with(CONFIG))
}
