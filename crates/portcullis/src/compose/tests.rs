use super::*;

/// With what people write: anchors, merge keys, short and long forms.
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

fn request(services: &[&str]) -> Request {
    Request {
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        namespace: "shop".to_owned(),
        trust_domain: TrustDomain::parse("cluster.local").unwrap(),
        image: "portcullis:1".to_owned(),
        policies: "./policies".to_owned(),
    }
}

fn add(file: &str, services: &[&str]) -> Result<Value, Vec<String>> {
    let document = read(file).map_err(|error| vec![error])?;
    let plan = plan(&document, &request(services))?;
    Ok(serde_yaml::from_str(&plan.whole(&document)).unwrap())
}

fn refused(service: &str) -> String {
    let file = format!("services:\n  api: {{image: a, {service}}}\n  other: {{image: b}}\n");
    add(&file, &["api"]).unwrap_err().join("\n")
}

fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('/').fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_namespace_goes_to_its_holder_and_the_rest_stays() {
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
    assert_eq!(at(&file, "volumes"), &yaml("{data: {}, portcullis-ca: {}, api-certs: {}, db-certs: {}}"));
}

#[test]
fn everything_starts_in_the_order_that_lets_nothing_by() {
    let file = add(FILE, &["api", "db"]).unwrap();
    let waits = |service: &str| at(&file, &format!("services/{service}/depends_on")).clone();
    assert_eq!(waits("api-intercept"), yaml("{api-net: {condition: service_started}}"));
    assert_eq!(
        waits("api-proxy"),
        yaml(
            "{api-intercept: {condition: service_completed_successfully}, api-certs: {condition: service_completed_successfully}}"
        )
    );
    assert_eq!(
        waits("api"),
        yaml(
            "{db: {condition: service_started}, cache: {condition: service_started}, api-proxy: {condition: service_healthy}}"
        )
    );
    assert_eq!(waits("tool"), yaml("{db: {condition: service_started}, db-proxy: {condition: service_healthy}}"));
    for part in ["api-net", "api-intercept", "api-certs"] {
        let restart = at(&file, &format!("services/{part}/restart"));
        assert!(restart.is_null() || restart == "no", "{part} must not come back without the rules");
    }
}

#[test]
fn only_the_part_that_makes_the_rules_may_change_the_network() {
    let file = add(FILE, &["api", "db"]).unwrap();
    let services = at(&file, "services").as_mapping().unwrap();
    let may = services.iter().filter(|(_, service)| service.get("cap_add").is_some());
    assert_eq!(may.map(|(name, _)| name.as_str().unwrap()).collect::<Vec<_>>(), ["api-intercept", "db-intercept"]);
    for part in ["api-net", "api-intercept", "api-certs", "api-proxy"] {
        let part = services.get(part).unwrap();
        assert_eq!(at(part, "cap_drop"), &yaml("[ALL]"));
        assert_eq!(at(part, "read_only"), &Value::from(true));
        assert_eq!(at(part, "security_opt"), &yaml("['no-new-privileges:true']"));
    }
    for part in ["api-certs", "api-proxy"] {
        assert_eq!(at(services.get(part).unwrap(), "user"), "1337:1337");
    }
    let sees_the_ca = |part: &str| format!("{:?}", services.get(part).unwrap()).contains("portcullis-ca");
    assert!(sees_the_ca("api-certs") && !sees_the_ca("api-proxy") && !sees_the_ca("api"));
}

#[test]
fn the_configuration_is_one_that_the_proxy_takes() {
    let file = add(FILE, &["api", "db"]).unwrap();
    for (service, peer_hosts) in [("api", "[db, database]"), ("db", "[api]")] {
        let text = at(&file, &format!("services/{service}-proxy/environment/PORTCULLIS_CONFIG")).as_str().unwrap();
        assert_eq!(
            text,
            at(&file, &format!("services/{service}-intercept/environment/PORTCULLIS_CONFIG")).as_str().unwrap()
        );
        let text = text.replace("$$", "$");
        let settings = portcullis_settings::read(text.as_bytes(), std::path::Path::new("")).unwrap();
        assert_eq!(settings.own_id.as_str(), format!("spiffe://cluster.local/ns/shop/sa/{service}"));
        assert!(settings.inbound.http_hint && settings.inbound.transparent.is_some());
        let config = yaml(&text);
        let peer = at(&config, "outbound/routes").as_sequence().unwrap();
        let peer = peer.iter().find(|route| at(route, "service") != service).unwrap();
        assert_eq!(at(peer, "hosts"), &yaml(peer_hosts));
        assert_eq!(at(peer, "mode"), "mtls");
    }
}

#[test]
fn who_has_to_do_with_a_meshed_service_follows_it() {
    let file = add(FILE, &["api", "db"]).unwrap();
    assert_eq!(at(&file, "services/tool/network_mode"), "service:db-net");
    assert_eq!(at(&file, "services/cache/links"), &yaml("['db-net:db', 'api-net:front']"));
    let file = add(FILE, &["cache"]).unwrap();
    assert_eq!(at(&file, "services/api"), &{
        let mut original = Value::Mapping(read(FILE).unwrap());
        original.as_mapping_mut().unwrap().get("services").unwrap().get("api").unwrap().clone()
    });
    assert_eq!(at(&file, "services/cache-net/links"), &yaml("[db, 'api:front']"));
}

#[test]
fn what_cannot_have_a_sidecar_is_refused_with_the_reason() {
    for (service, needle) in [
        ("network_mode: host", "network_mode \"host\""),
        ("user: '1337'", "IST0144"),
        ("user: 1337", "IST0144"),
        ("user: '1337:0'", "IST0144"),
        ("ports: ['80:15006']", "port 15006 is the sidecar's own"),
        ("ports: ['15000-15010:15000-15010']", "port 15000 is the sidecar's own"),
        ("ports: [{target: 15001, published: 80}]", "port 15001 is the sidecar's own"),
        ("deploy: {mode: global}", "deploy.mode: global"),
        ("deploy: {replicas: 2}", "deploy.replicas: 2"),
        ("scale: 3", "scale: 3"),
        ("extends: {service: other}", "uses extends"),
        ("networks: 5", "networks is neither"),
        ("depends_on: 5", "depends_on is neither"),
    ] {
        let told = refused(service);
        assert!(told.contains(needle) && told.contains("api"), "{service}: {told}");
    }
    let told =
        add("services: {api: {}, api-net: {}}\nvolumes: {api-certs: {}, portcullis-ca: {}}\n", &["api"]).unwrap_err();
    assert_eq!(told.len(), 3, "{told:?}");
    let told = add(FILE, &["nobody", "api"]).unwrap_err().join("\n");
    assert!(told.contains("nobody") && told.contains("api, db, cache, tool"), "{told}");
    assert!(add("[]", &["api"]).is_err() && add("services: []", &["api"]).is_err() && add("a: [", &["api"]).is_err());
}

#[test]
fn its_own_output_is_refused() {
    let document = read(FILE).unwrap();
    let once = plan(&document, &request(&["api"])).unwrap().whole(&document);
    for service in ["api", "db"] {
        let told = add(&once, &[service]).unwrap_err().join("\n");
        assert!(told.contains("already has a sidecar"), "{told}");
    }
}

#[test]
fn what_can_step_around_is_told_and_not_refused() {
    let warned = |service: &str| {
        let document = read(&format!("services: {{api: {{{service}}}}}")).unwrap();
        plan(&document, &request(&["api"])).unwrap().warnings.join("\n")
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
fn an_override_takes_away_what_the_whole_file_leaves_out() {
    let document = read(FILE).unwrap();
    let text = plan(&document, &request(&["api"])).unwrap().overlay();
    let overlay = yaml(&text);
    for line in ["ports: !reset null", "hostname: !reset null", "sysctls: !override"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(at(&overlay, "services/api/network_mode"), "service:api-net");
    assert!(at(&overlay, "services/db").is_null() && at(&overlay, "services/api/image").is_null());
    assert_eq!(at(&overlay, "services/api-net/command"), &yaml("[hold, --await-intercept]"));
}
