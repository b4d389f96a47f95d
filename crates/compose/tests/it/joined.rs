//! A project that joins a CA which is there already, and one that founds another root where others are.

use portcullis_compose::{ComposeFile, Error, JoinedCa, Plan, Record, Request};
use serde_yaml::Value;

use crate::add::{at, request, yaml};

const FILE: &str =
    "services:\n  web: {image: a, networks: [shared]}\n  db: {image: b}\nnetworks: {shared: {external: true}}\n";

fn joined(services: &[&str]) -> Request {
    let joined = JoinedCa { address: "ca.example.org:15012".to_owned(), token_file: "./join-token".to_owned() };
    Request { joined: Some(joined), ..request(services) }
}

fn plan(file: &str, request: &Request) -> Result<Plan, Vec<String>> {
    ComposeFile::parse(file).and_then(|file| file.add_sidecars(request)).map_err(|error: Error| error.lines())
}

#[test]
fn a_project_that_joins_has_no_authority_and_its_sidecars_keep_their_own_tokens() {
    let plan = plan(FILE, &joined(&["web", "db"])).unwrap();
    assert!(plan.warnings().is_empty(), "{:?}", plan.warnings());
    let mut file: Value = serde_yaml::from_str(&plan.merged_file()).unwrap();
    file.apply_merge().unwrap();
    let services = at(&file, "services").as_mapping().unwrap();
    assert!(!services.contains_key("ca") && !services.contains_key("ca-init"));
    assert!(at(&file, "volumes/portcullis-authority").is_null());
    let join = at(&file, "services/ca-join");
    let words: Vec<&str> =
        at(join, "command").as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[..3], ["join", "ca.example.org:15012", "--token-file"]);
    assert!(words.contains(&"--keep-existing"), "another `up` must not spend another token");
    for name in ["web", "db"] {
        let id = format!("spiffe://cluster.local/ns/shop/sa/{name}");
        assert!(words.windows(2).any(|pair| pair == ["--id", id.as_str()]), "{words:?}");
        let mounts = at(join, "volumes").as_sequence().unwrap();
        let mount = format!("{name}-identity:/var/lib/portcullis/bootstrap/shop/{name}");
        assert!(mounts.contains(&Value::from(mount)), "{mounts:?}");
        let proxy = at(&file, &format!("services/{name}-proxy"));
        assert_eq!(at(proxy, "depends_on/ca-join/condition"), "service_completed_successfully");
        let identity = format!("{name}-identity:/var/lib/portcullis/identity");
        assert_eq!(at(proxy, "volumes")[0], Value::from(identity), "it is writable");
        assert!(at(&file, &format!("volumes/{name}-identity")).is_null(), "a token outlives its containers");
        let config = at(proxy, "environment/PORTCULLIS_CONFIG").as_str().unwrap();
        let config: Value = serde_yaml::from_str(config).unwrap();
        assert_eq!(at(&config, "identity/ca/address"), "ca.example.org:15012");
        assert_eq!(at(&config, "identity/ca/renewToken").as_bool(), Some(true));
    }
    assert_eq!(at(join, "networks"), &yaml("[shared, default]"));
    assert_eq!(at(join, "cap_add"), &yaml("[CHOWN, DAC_OVERRIDE]"));
}

#[test]
fn the_record_remembers_which_authority_was_joined() {
    let request = joined(&["web"]);
    let record = Record { original: "compose.yaml".to_owned(), digest: "d".to_owned(), request: request.clone() };
    let text = plan(FILE, &request).unwrap().recorded_file(&record);
    let read = ComposeFile::parse(&text).unwrap().record().unwrap().unwrap();
    assert_eq!(read.request.joined, request.joined);
    let broken = text.replace("  tokenFile: ", "  tokenfile: ");
    assert!(ComposeFile::parse(&broken).unwrap().record().unwrap_err().to_string().contains("x-portcullis.tokenFile"));
}

#[test]
fn a_file_with_an_authority_of_its_own_joins_no_other() {
    let own = format!("{FILE}x: 1\n",)
        .replace("services:\n", "services:\n  mine: {image: p, command: [ca, run, --dir, /ca]}\n");
    let why = plan(&own, &joined(&["web"])).unwrap_err().join("\n");
    assert!(why.contains("service mine") && why.contains("leave out --ca"), "{why}");
    let taken = FILE.replace("services:\n", "services:\n  ca-join: {image: p}\n");
    assert!(plan(&taken, &joined(&["web"])).unwrap_err()[0].contains("ca-join"));
}

#[test]
fn another_root_in_a_network_of_other_projects_is_warned_of() {
    let warnings = |file: &str, services: &[&str]| plan(file, &request(services)).unwrap().warnings().join("\n");
    let warned = warnings(FILE, &["web"]);
    assert!(warned.contains("network shared is external") && warned.contains("--ca HOST:PORT"), "{warned}");
    assert_eq!(warnings(FILE, &["db"]), "", "it is in no such network");
    assert_eq!(warnings(&FILE.replace("external: true", "external: false"), &["web"]), "");
}
