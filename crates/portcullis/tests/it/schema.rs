//! The JSON Schema of the configuration matches the parser: both have the same keys, and both accept the same files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

/// No key is near this one, so that the reader lists all that it knows.
const NO_KEY: &str = "qqqqqqqqqqqqqqqq";

fn schema() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/portcullis.schema.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn read(configuration: &Value) -> Result<(), String> {
    let text = serde_json::to_vec(configuration).unwrap();
    portcullis_config::read(&text, Path::new(""))
        .map(drop)
        .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

/// The keys that the reader knows at a place, which it lists when it finds one that it does not know.
fn known_to_the_reader(place: &[Step]) -> BTreeSet<String> {
    let mut configuration = json!({NO_KEY: 1});
    for step in place.iter().rev() {
        configuration = match step {
            Step::Key(key) => json!({key: configuration}),
            Step::Item => json!([configuration]),
        };
    }
    let problems = read(&configuration).unwrap_err();
    let line = problems.lines().find(|line| line.contains(NO_KEY));
    let line = line.unwrap_or_else(|| panic!("{place:?} is no mapping to the reader, but to the schema: {problems}"));
    let list = line.split_once("known here: ").unwrap_or_else(|| panic!("{line}")).1;
    list.split(" [").next().unwrap().split(", ").map(str::to_owned).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Item,
}

/// Every object of the schema with keys of its own.
fn objects(schema: &Value, place: &[Step], found: &mut Vec<(Vec<Step>, BTreeSet<String>)>) {
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], false, "{place:?} must refuse unknown keys, as the reader does");
        found.push((place.to_vec(), properties.keys().cloned().collect()));
        for (key, inner) in properties {
            objects(inner, &[place, &[Step::Key(key.clone())]].concat(), found);
        }
    }
    if !schema["items"].is_null() {
        objects(&schema["items"], &[place, &[Step::Item]].concat(), found);
    }
}

#[test]
fn schema_and_reader_know_the_same_keys() {
    let mut all = Vec::new();
    objects(&schema(), &[], &mut all);
    assert!(all.len() > 15, "{}", all.len());
    for (place, keys) in all {
        assert_eq!(
            keys,
            known_to_the_reader(&place),
            "config/portcullis.schema.json (left) and the reader (right) know other keys at {place:?}"
        );
    }
}

/// As much of JSON Schema as ours uses. `Err` says where it does not hold.
fn check(value: &Value, schema: &Value, root: &Value, place: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return check(value, &root["$defs"][name.trim_start_matches("#/$defs/")], root, place);
    }
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        other => panic!("{place}: the check does not know {other}"),
    };
    let kind = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    let least = schema["minimum"].as_u64().is_none_or(|least| value.as_u64().is_some_and(|value| value >= least));
    let most = schema["maximum"].as_u64().is_none_or(|most| value.as_u64().is_some_and(|value| value <= most));
    if !(kind && listed && least && most) {
        return Err(format!("{place}: {value} is not {schema}"));
    }
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for required in schema["required"].as_array().into_iter().flatten() {
        value.get(required.as_str().unwrap()).ok_or_else(|| format!("{place}: {required} is missing"))?;
    }
    if let Some(ways) = schema["oneOf"].as_array() {
        let fitting = ways.iter().filter(|way| check(value, way, root, place).is_ok()).count();
        if fitting != 1 {
            return Err(format!("{place}: {fitting} of {ways:?}, not one"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let below = format!("{place}.{key}");
        match (properties.get(key), &schema["additionalProperties"]) {
            (Some(schema), _) => check(inner, schema, root, &below)?,
            (None, Value::Bool(false)) => return Err(format!("{below} is unknown")),
            (None, Value::Null) => {}
            (None, schema) => check(inner, schema, root, &below)?,
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], root, &format!("{place}[{index}]"))?;
    }
    Ok(())
}

#[test]
fn every_example_is_valid_to_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = [
        "config/quickstart/web.yaml",
        "config/quickstart/cart.yaml",
        "docker/web.yaml",
        "docker/cart.yaml",
        "docker/config.yaml",
    ];
    for file in files {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let value: Value = serde_yaml::from_str(&text).unwrap();
        check(&value, &schema(), &schema(), file).unwrap_or_else(|error| panic!("{error}"));
        read(&value).unwrap_or_else(|problems| panic!("{file}: {problems}"));
    }
}

#[test]
fn what_is_wrong_is_wrong_to_both() {
    let whom = json!({"name": "a", "namespace": "b"});
    let wrong = [
        json!({}),
        json!({"workload": {"name": "a"}}),
        json!({"workload": whom, "tls": {"minVersion": "1.1"}}),
        json!({"workload": whom, "workers": 0}),
        json!({"workload": whom, "inbound": {"ports": [{"listen": "127.0.0.1:1", "port": 65536, "app": "127.0.0.1:2"}]}}),
        json!({"workload": whom, "inbound": {"ports": [{"listen": "127.0.0.1:1", "port": 80}]}}),
        json!({"workload": whom, "outbound": {"otherwise": "allow"}}),
        json!({"workload": whom, "limits": {"perIdentity": 0}}),
        json!({"workload": whom, "limits": {"buffers": 64}}),
        json!({"workload": whom, "mesh": {"defaultMode": "strict"}}),
        json!({"workload": whom, "policies": 5}),
        json!({"workload": whom, "policies": {"candidates": "next"}}),
        json!({"workload": whom, "identity": {"requirePrivateMode": true}}),
        json!({"workload": whom, "identity": {"ca": {"address": "a:1", "trustBundle": "b"}, "workloadApi": {"socket": "s"}}}),
        json!({"workload": whom, "identity": {"ca": {"address": "a:1", "trustBundle": "b", "keyType": "dsa"}}}),
        json!({"workload": whom, "identity": {"workloadApi": {}}}),
        json!({"workload": whom, "sandbox": {"landlock": "no"}}),
    ];
    for configuration in wrong {
        assert!(check(&configuration, &schema(), &schema(), "").is_err(), "right to the schema: {configuration}");
        assert!(read(&configuration).is_err(), "right to the reader: {configuration}");
    }
    let right = json!({"workload": whom});
    assert_eq!((check(&right, &schema(), &schema(), ""), read(&right)), (Ok(()), Ok(())));
}

#[test]
fn the_command_prints_the_file() {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(["config", "schema"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), schema());
}

#[test]
fn each_shell_gets_a_completion_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(["completion", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("intercept") && text.contains("explain"), "{shell}: {text}");
    }
}
