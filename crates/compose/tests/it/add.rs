//! Sidecars in typical compose files: what is added, what moves, what is refused.

use portcullis_compose::{ComposeFile, Error, Record, Request};
use portcullis_identity::TrustDomain;
use serde_yaml::Value;

/// Anchors, merge keys, short and long forms.
const FILE: &str = r#"
x-app: &app {image: "apps:1", restart: always}
services:
  api:
    <<: *app
    command: [serve, --token, $TOKEN]
    ports: ["8091:8000"]
    hostname: api-host
    depends_on: [db, cache]
    sysctls: {net.core.somaxconn: 1024, kernel.msgmax: 65536}
    volumes: ["data:/data"]
  db:
    <<: *app
    networks: {back: {aliases: [database]}, default: null}
    extra_hosts: ["old:10.0.0.1"]
  cache: {image: "cache:1", links: [db, "api:front"]}
  tool: {image: "tool:1", network_mode: "service:db"}
networks: {back: {}}
volumes: {data: {}}
"#;

pub(crate) fn request(services: &[&str]) -> Request {
    Request {
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        namespace: "shop".to_owned(),
        trust_domain: TrustDomain::parse("cluster.local").unwrap(),
        image: "portcullis:1".to_owned(),
        policies: "./policies".to_owned(),
        joined: None,
    }
}

fn add(file: &str, services: &[&str]) -> Result<Value, Vec<String>> {
    let lines = |error: Error| error.lines();
    let plan = ComposeFile::parse(file).map_err(lines)?.add_sidecars(&request(services)).map_err(lines)?;
    let mut file: Value = serde_yaml::from_str(&plan.merged_file()).unwrap();
    file.apply_merge().unwrap();
    Ok(file)
}

/// The text of a sidecar's configuration, with the section that the proxy adds to it.
fn config_text(file: &Value, service: &str) -> String {
    let of = |part: &str| at(file, &format!("services/{service}-{part}/environment")).clone();
    // Otherwise Compose would replace the holder, and the network with it, whenever the configuration changes.
    assert!(of("net").is_null());
    let of = |name: &str| at(&of("proxy"), name).as_str().unwrap().replace("$$", "$");
    let (text, workload) = (of("PORTCULLIS_CONFIG"), of("PORTCULLIS_WORKLOAD"));
    let (namespace, name) = workload.split_once('/').unwrap();
    format!(
        "{text}\nworkload: {{name: {name}, namespace: {namespace}, serviceAccount: {name}, labels: {{app: {name}}}}}\n"
    )
}

fn refused(service: &str) -> String {
    let file = format!("services:\n  api: {{image: a, {service}}}\n  other: {{image: b}}\n");
    add(&file, &["api"]).unwrap_err().join("\n")
}

pub(crate) fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('/').fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

pub(crate) fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn network_keys_move_to_the_holder_and_the_rest_stays() {
    let file = add(FILE, &["api", "db"]).unwrap();
    let api = at(&file, "services/api");
    for gone in ["ports", "hostname", "networks", "<<"] {
        assert!(api.get(gone).is_none(), "{gone}");
    }
    assert_eq!(at(api, "network_mode"), "service:api-net");
    assert_eq!(at(api, "image"), "apps:1");
    assert_eq!(at(api, "restart"), "always");
    assert_eq!(at(api, "command"), &yaml("[serve, --token, $TOKEN]"));
    assert_eq!(at(api, "volumes"), &yaml("['data:/data']"));
    assert_eq!(at(api, "sysctls"), &yaml("{kernel.msgmax: 65536}"));
    let holder = at(&file, "services/api-net");
    assert_eq!(at(holder, "ports"), &yaml("['8091:8000']"));
    assert_eq!(at(holder, "hostname"), "api-host");
    assert_eq!(at(holder, "sysctls"), &yaml("{net.core.somaxconn: 1024}"));
    assert_eq!(at(holder, "networks"), &yaml("{default: {aliases: [api]}}"));
    let holder = at(&file, "services/db-net");
    assert_eq!(at(holder, "networks"), &yaml("{back: {aliases: [db, database]}, default: {aliases: [db]}}"));
    assert_eq!(at(holder, "extra_hosts"), &yaml("['old:10.0.0.1']"));
    assert_eq!(at(&file, "networks"), &yaml("{back: {}}"));
    let volumes = at(&file, "volumes").as_mapping().unwrap();
    let names: Vec<_> = volumes.keys().map(|name| name.as_str().unwrap()).collect();
    let of = |service: &str| ["identity", "admin", "ledger"].map(|what| format!("{service}-{what}"));
    let expected = ["data", "portcullis-authority"].map(str::to_owned).into_iter().chain(of("api")).chain(of("db"));
    assert_eq!(names, expected.collect::<Vec<_>>());
}

#[test]
fn an_app_starts_after_its_sidecar() {
    let file = add(FILE, &["api", "db"]).unwrap();
    let waits = |service: &str| at(&file, &format!("services/{service}/depends_on")).clone();
    assert_eq!(waits("api-proxy"), yaml("{api-net: {condition: service_started}}"));
    assert_eq!(waits("api-ready"), yaml("{api-proxy: {condition: service_started}}"));
    assert_eq!(at(&file, "services/api-ready/command"), &yaml("[wait, --holder, /run/portcullis/holder.sock]"));
    // Where the holder's socket is. It only asks.
    assert_eq!(at(&file, "services/api-ready/volumes"), &yaml("['api-admin:/run/portcullis:ro']"));
    assert_eq!(waits("ca"), yaml("{ca-init: {condition: service_completed_successfully}}"));
    assert_eq!(
        waits("api"),
        yaml(
            "{db: {condition: service_started}, cache: {condition: service_started}, \
             api-ready: {condition: service_completed_successfully}}"
        )
    );
    assert_eq!(
        waits("tool"),
        yaml("{db: {condition: service_started}, db-ready: {condition: service_completed_successfully}}")
    );
    // It makes the rules itself, so it may come back whenever the engine wants.
    for (part, restart) in [("api-net", "always"), ("api-proxy", "always"), ("ca", "unless-stopped")] {
        assert_eq!(at(&file, &format!("services/{part}/restart")), restart, "{part}");
    }
    for once in ["api-ready", "ca-init"] {
        let restart = at(&file, &format!("services/{once}/restart"));
        assert!(restart.is_null() || restart == "no", "{once} ends by itself");
    }
}

#[test]
fn only_the_holder_has_capabilities_and_it_gives_them_up() {
    let file = add(FILE, &["api", "db"]).unwrap();
    let services = at(&file, "services").as_mapping().unwrap();
    let may = services.iter().filter(|(_, service)| service.get("cap_add").is_some());
    assert_eq!(may.map(|(name, _)| name.as_str().unwrap()).collect::<Vec<_>>(), ["api-net", "db-net"]);
    for name in ["api-net", "db-net"] {
        let holder = services.get(name).unwrap();
        assert_eq!(at(holder, "cap_add"), &yaml("[NET_ADMIN, SETPCAP, SETUID, SETGID]"));
        assert_eq!(at(holder, "user"), "0:0");
        assert_eq!(at(holder, "command"), &yaml("[hold, --intercept, --announce, /run/portcullis/holder.sock]"));
    }
    for part in ["api-net", "api-proxy", "api-ready", "ca-init", "ca"] {
        let part = services.get(part).unwrap();
        assert_eq!(at(part, "cap_drop"), &yaml("[ALL]"));
        assert_eq!(at(part, "read_only"), &Value::from(true));
        assert_eq!(at(part, "security_opt"), &yaml("['no-new-privileges:true']"));
    }
    for part in ["ca-init", "ca", "api-proxy", "api-ready"] {
        assert_eq!(at(services.get(part).unwrap(), "user"), "1337:1337");
    }
    // Only the CA mounts its key, and only one sidecar each token.
    let sees = |volume: &str| {
        let seen = services.iter().filter(|(_, service)| format!("{:?}", service.get("volumes")).contains(volume));
        seen.map(|(name, _)| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sees("portcullis-authority"), ["ca-init", "ca"]);
    assert_eq!(sees("api-identity"), ["api-proxy", "ca"]);
    assert_eq!(sees("db-identity"), ["db-proxy", "ca"]);
    // Whoever connects to the socket may change something, so only the parts of the sidecar have it: the holder has a socket there itself,
    // and the part that waits asks it.
    assert_eq!(sees("api-admin"), ["api-net", "api-proxy", "api-ready"]);
    assert_eq!(sees("api-ledger"), ["api-proxy"]);
    let labels = at(&file, "services/api-proxy/labels");
    assert_eq!(labels, &yaml("{portcullis.sidecar-of: api, portcullis.admin-socket: /run/portcullis/admin.sock}"));
}

#[test]
fn the_holder_captures_for_the_ports_of_the_generated_configuration() {
    let folder = std::path::Path::new("");
    let of_image = include_str!("../../../../docker/config.yaml");
    let of_image = portcullis_config::read(of_image.as_bytes(), folder).unwrap();
    let file = add(FILE, &["api", "db"]).unwrap();
    let of_proxy = portcullis_config::read(config_text(&file, "api").as_bytes(), folder).unwrap();
    assert_eq!(of_image.inbound.transparent, of_proxy.inbound.transparent);
    assert_eq!(of_image.outbound.transparent, of_proxy.outbound.transparent);
    assert_eq!((of_image.health, of_image.metrics), (of_proxy.health, of_proxy.metrics));
    assert!(of_proxy.inbound.transparent.is_some() && of_proxy.health.is_some());
}

#[test]
fn the_proxy_accepts_the_generated_configuration() {
    let file = add(FILE, &["api", "db"]).unwrap();
    for (service, peer_hosts) in [("api", "[db, database]"), ("db", "[api]")] {
        let text = config_text(&file, service);
        let settings = portcullis_config::read(text.as_bytes(), std::path::Path::new("")).unwrap();
        assert_eq!(settings.own_id.as_str(), format!("spiffe://cluster.local/ns/shop/sa/{service}"));
        assert!(settings.inbound.http_hint && settings.inbound.transparent.is_some());
        let config = yaml(&text);
        assert_eq!(settings.services.unwrap().names().count(), 2, "itself and its peer");
        let peer = at(&config, "services").as_sequence().unwrap();
        let peer = peer.iter().find(|entry| at(entry, "metadata/name") != service).unwrap();
        let addresses: Vec<_> =
            at(peer, "spec/endpoints").as_sequence().unwrap().iter().map(|endpoint| at(endpoint, "address")).collect();
        assert_eq!(addresses, yaml(peer_hosts).as_sequence().unwrap().iter().collect::<Vec<_>>());
    }
}

#[test]
fn links_and_joined_namespaces_follow_a_service_to_its_holder() {
    let file = add(FILE, &["api", "db"]).unwrap();
    assert_eq!(at(&file, "services/tool/network_mode"), "service:db-net");
    assert_eq!(at(&file, "services/cache/links"), &yaml("['db-net:db', 'api-net:front']"));
    let file = add(FILE, &["cache"]).unwrap();
    assert_eq!(at(&file, "services/api"), &{
        let mut original = yaml(FILE);
        original.apply_merge().unwrap();
        at(&original, "services/api").clone()
    });
    assert_eq!(at(&file, "services/cache-net/links"), &yaml("[db, 'api:front']"));
}

#[test]
fn a_service_that_cannot_have_a_sidecar_is_refused_with_the_reason() {
    for (service, needle) in [
        ("network_mode: bridge", "network_mode \"bridge\""),
        ("user: '1337'", "IST0144"),
        ("user: 1337", "IST0144"),
        ("user: '1337:0'", "IST0144"),
        ("ports: ['80:15006']", "the sidecar uses port 15006"),
        ("ports: ['15000-15010:15000-15010']", "the sidecar uses port 15000"),
        ("ports: [{target: 15001, published: 80}]", "the sidecar uses port 15001"),
        ("deploy: {mode: global}", "deploy.mode: global"),
        ("deploy: {replicas: 2}", "deploy.replicas: 2"),
        ("scale: 3", "scale: 3"),
        ("extends: {service: other}", "uses extends"),
        ("networks: 5", "networks is neither"),
        ("depends_on: 5", "depends_on is neither"),
    ] {
        let error = refused(service);
        assert!(error.contains(needle) && error.contains("api"), "{service}: {error}");
    }
    let error = add("services: {api: {}, api-net: {}}\nvolumes: {api-identity: {}}\n", &["api"]).unwrap_err();
    assert_eq!(error.len(), 2, "{error:?}");
    let error =
        add("services: {api: {}, ca: {image: theirs}}\nvolumes: {portcullis-authority: {}}\n", &["api"]).unwrap_err();
    assert_eq!(error.len(), 2, "{error:?}");
    let error = add(FILE, &["absent", "api"]).unwrap_err().join("\n");
    assert!(error.contains("absent") && error.contains("api, db, cache, tool"), "{error}");
    assert!(add("[]", &["api"]).is_err() && add("services: []", &["api"]).is_err() && add("a: [", &["api"]).is_err());
}

/// The configuration of a sidecar, which two of its services have.
fn config(file: &Value, service: &str) -> Value {
    let text = config_text(file, service);
    portcullis_config::read(text.as_bytes(), std::path::Path::new("")).unwrap();
    yaml(&text)
}

#[test]
fn a_service_that_is_added_later_is_registered_with_the_existing_ca() {
    let file = ComposeFile::parse(FILE).unwrap();
    let first = file.add_sidecars(&request(&["api"])).unwrap().merged_file();
    let later = add(&first, &["db"]).unwrap();
    let together = add(FILE, &["api", "db"]).unwrap();
    for (part, key) in [("ca-init", "command"), ("ca", "command"), ("ca", "volumes")] {
        let path = format!("services/{part}/{key}");
        assert_eq!(at(&later, &path), at(&together, &path), "{path}");
    }
    let ids = "--id, 'spiffe://cluster.local/ns/shop/sa/api', --id, 'spiffe://cluster.local/ns/shop/sa/db'";
    let start = "ca, init, --keep-existing, --dir, /var/lib/portcullis/ca, --trust-domain, cluster.local";
    assert_eq!(at(&later, "services/ca-init/command"), &yaml(&format!("[{start}, {ids}]")));
    let bootstrap = "/var/lib/portcullis/bootstrap/shop";
    assert_eq!(
        at(&later, "services/ca/volumes"),
        &yaml(&format!(
            "['portcullis-authority:/var/lib/portcullis/ca', 'api-identity:{bootstrap}/api', 'db-identity:{bootstrap}/db']"
        ))
    );
    // The CA is on the network of each sidecar.
    assert_eq!(at(&together, "services/ca/networks"), &yaml("[default, back]"));
    assert_eq!(at(&later, "services/ca/networks"), &yaml("{default: null, back: null}"));
    assert_eq!(at(&later, "volumes"), at(&together, "volumes"));
    // Each has the other in its directory, with all hosts.
    for (service, identity) in [("api", "identity"), ("db", "identity")] {
        assert_eq!(at(&config(&later, service), identity), at(&config(&together, service), identity));
    }
    let entries = |file: &Value, service: &str| {
        let config = config(file, service);
        let mut entries: Vec<_> =
            at(&config, "services").as_sequence().unwrap().iter().map(|entry| format!("{entry:?}")).collect();
        entries.sort();
        entries
    };
    for service in ["api", "db"] {
        assert_eq!(entries(&later, service), entries(&together, service), "{service}");
        assert_eq!(entries(&later, service).len(), 2);
    }
    for service in ["api", "tool", "cache", "db", "db-net", "api-net"] {
        let path = format!("services/{service}");
        assert_eq!(at(&later, &path), at(&together, &path), "{service}");
    }
}

#[test]
fn a_service_with_a_sidecar_and_the_parts_of_one_are_refused() {
    let file = ComposeFile::parse(FILE).unwrap();
    let once = file.add_sidecars(&request(&["api"])).unwrap().merged_file();
    for (service, why) in [("api", "already has a sidecar"), ("api-net", "part of a sidecar"), ("ca", "part of the CA")]
    {
        let error = add(&once, &[service]).unwrap_err().join("\n");
        assert!(error.contains(why), "{error}");
    }
    // An earlier version gave each sidecar roots of its own, which the others would not trust.
    let old = once.replace("    ca:\n      address", "    files:\n      address");
    let error = add(&old, &["db"]).unwrap_err().join("\n");
    assert!(error.contains("does not get its certificate from the CA"), "{error}");
}

#[test]
fn a_handwritten_ca_is_used() {
    let file = |run: &str| {
        format!(
            "services:\n  api: {{image: a, networks: [back]}}\n  pki-init: {{command: ca init --dir /x --keep-existing}}\n  \
             pki: {{command: '{run}', volumes: ['pki:/x']}}\n"
        )
    };
    let run = "ca run --dir /x --listen 0.0.0.0:7000 --name pki --bootstrap /tokens";
    let added = add(&file(run), &["api"]).unwrap();
    assert_eq!(
        at(&added, "services/pki-init/command"),
        &yaml("[ca, init, --dir, /x, --keep-existing, --id, 'spiffe://cluster.local/ns/shop/sa/api']")
    );
    assert_eq!(at(&added, "services/pki/volumes"), &yaml("['pki:/x', 'api-identity:/tokens/shop/api']"));
    assert_eq!(at(&added, "services/pki/networks"), &yaml("{default: null, back: null}"));
    assert_eq!(at(&config(&added, "api"), "identity/ca/address"), "pki:7000");
    assert!(at(&added, "services/ca").is_null() && at(&added, "services/ca-init").is_null());
    for (was, is, why) in [
        (" --bootstrap /tokens", "", "--bootstrap"),
        ("--name pki", "--name ca", "--name pki"),
        ("0.0.0.0:7000", "0.0.0.0:0", "--listen"),
    ] {
        let error = add(&file(&run.replace(was, is)), &["api"]).unwrap_err().join("\n");
        assert!(error.contains("service pki: ") && error.contains(why), "{error}");
    }
    let error = add(&file(run).replace(" --keep-existing", ""), &["api"]).unwrap_err().join("\n");
    assert!(error.contains("service pki-init: "), "{error}");
    let error =
        add(&file(run).replace("pki-init:", "p: {command: ca init}\n  pki-init:"), &["api"]).unwrap_err().join("\n");
    assert!(error.contains("2 that run `ca init`"), "{error}");
    let quick_start = include_str!("../../../../docker/compose.yaml");
    let added = add(&quick_start.replace("services:", "services:\n  api: {image: a}"), &["api"]).unwrap();
    let volumes = at(&added, "services/ca/volumes").as_sequence().unwrap();
    assert!(volumes.contains(&yaml("'api-identity:/var/lib/portcullis/bootstrap/shop/api'")), "{volumes:?}");
    assert_eq!(at(&config(&added, "api"), "identity/ca/address"), "ca:15012");
}

#[test]
fn what_can_bypass_the_sidecar_is_a_warning() {
    let warned = |service: &str| {
        let file = ComposeFile::parse(&format!("services: {{api: {{{service}}}}}")).unwrap();
        file.add_sidecars(&request(&["api"])).unwrap().warnings().join("\n")
    };
    for (service, needle) in [
        ("privileged: true", "privileged"),
        ("cap_add: [NET_ADMIN]", "cap_add"),
        ("cap_add: [cap_net_admin]", "cap_add"),
        ("ports: ['53:53/udp']", "UDP"),
        ("ports: [{target: 53, protocol: udp}]", "UDP"),
    ] {
        assert!(warned(service).contains(needle), "{service}: {}", warned(service));
    }
    assert_eq!(warned("ports: ['80:80'], cap_add: [CHOWN]"), "");
}

#[test]
fn an_override_resets_what_the_merged_file_leaves_out() {
    let file = ComposeFile::parse(FILE).unwrap();
    let text = file.add_sidecars(&request(&["api"])).unwrap().override_file();
    let overlay = yaml(&text);
    for line in ["ports: !reset null", "hostname: !reset null", "sysctls: !override"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(at(&overlay, "services/api/network_mode"), "service:api-net");
    assert!(at(&overlay, "services/db").is_null() && at(&overlay, "services/api/image").is_null());
    assert_eq!(
        at(&overlay, "services/api-net/command"),
        &yaml("[hold, --intercept, --announce, /run/portcullis/holder.sock]")
    );
}

#[test]
fn settings_at_the_original_service_reach_its_sidecar_alone() {
    let file = "services:\n  db:\n    image: db\n    labels: {portcullis.server-first-ports: '3306', portcullis.exclude-inbound-ports: '9104'}\n    \
                x-portcullis: {app-address: {8080: '127.0.0.1:8081'}, proxy-protocol: [8080]}\n  web: {image: web}\n";
    let added = add(file, &["db", "web"]).unwrap();
    let (db, web) = (config(&added, "db"), config(&added, "web"));
    let expected = "{transparent: '[::]:15006', httpHint: true, serverFirstPorts: [3306], proxyProtocolPorts: [8080], apps: {8080: '127.0.0.1:8081'}}";
    assert_eq!(at(&db, "inbound"), &yaml(expected));
    assert_eq!(at(&web, "inbound"), &yaml("{transparent: '[::]:15006', httpHint: true}"));
    assert_eq!(
        at(&added, "services/db-net/command"),
        &yaml("[hold, --intercept, --announce, /run/portcullis/holder.sock, --exclude-inbound-ports=9104]")
    );
    assert_eq!(
        at(&added, "services/web-net/command"),
        &yaml("[hold, --intercept, --announce, /run/portcullis/holder.sock]")
    );
    let error =
        add("services: {db: {image: db, labels: [portcullis.server-first=3306]}}", &["db"]).unwrap_err().join("");
    assert!(error.contains("service db: ") && error.contains("server-first-ports"), "{error}");
}

#[test]
fn what_the_sidecars_share_is_written_once() {
    let services: Vec<String> = (0..5).map(|number| format!("app{number}")).collect();
    let names: Vec<&str> = services.iter().map(String::as_str).collect();
    let file: String = names.iter().map(|name| format!("  {name}: {{image: app}}\n")).collect();
    let file = format!("services:\n{file}");
    let lines = |names: &[&str]| {
        let plan = ComposeFile::parse(&file).unwrap().add_sidecars(&request(names)).unwrap();
        plan.merged_file().lines().count()
    };
    let text = ComposeFile::parse(&file).unwrap().add_sidecars(&request(&names)).unwrap().merged_file();
    for once in ["portcullis:1", "no-new-privileges", "tokenFile", "NET_ADMIN\n"] {
        let expected = if once == "NET_ADMIN\n" { 0 } else { 1 };
        assert_eq!(text.matches(once).count(), expected, "{once} in {text}");
    }
    assert!(lines(&names[..2]) < 200, "{}", lines(&names[..2]));
    let each = (lines(&names) - lines(&names[..2])) / 3;
    assert!(each < 70, "{each} lines for each service: {text}");
}

#[test]
fn a_recorded_file_is_made_again_from_the_original() {
    let original = ComposeFile::parse(FILE).unwrap();
    let record =
        Record { original: "compose.yaml".to_owned(), digest: "abc".to_owned(), request: request(&["api", "db"]) };
    let text = original.add_sidecars(&record.request).unwrap().recorded_file(&record);
    let read = ComposeFile::parse(&text).unwrap().record().unwrap().unwrap();
    assert_eq!((read.original.as_str(), read.digest.as_str()), ("compose.yaml", "abc"));
    assert_eq!(original.add_sidecars(&read.request).unwrap().recorded_file(&read), text);
    assert!(original.record().unwrap().is_none());
    let broken = text.replacen("trustDomain: cluster.local", "trustDomain: ''", 1);
    let error = ComposeFile::parse(&broken).unwrap().record().unwrap_err().to_string();
    assert!(error.contains("trustDomain") && error.contains("original"), "{error}");
}

#[test]
fn files_that_cannot_be_read_say_what_to_do() {
    for (file, needle) in [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("services:\n\tapi: {image: a}\n", "line 2: is indented with a tab"),
        ("services:\n  api:\n  \timage: a\n", "line 3: is indented with a tab"),
        ("include: [other.yaml]\nservices: {api: {image: a}}\n", "docker compose config"),
        ("services: {api: {image: a, network_mode: host}}", "explicit ports"),
    ] {
        let error = add(file, &["api"]).unwrap_err().join("\n");
        assert!(error.contains(needle), "{file:?}: {error}");
    }
}
