use std::path::Path;

use super::*;

fn text(change: impl FnOnce(&mut Capture)) -> String {
    let mut capture = Capture::istio();
    change(&mut capture);
    capture.table().to_string()
}

#[test]
fn everything_is_captured_but_the_sidecar_loopback_and_what_asks_for_health_and_metrics() {
    assert_eq!(
        text(|_| ()),
        "\
table inet portcullis {
\tchain inbound {
\t\ttype nat hook prerouting priority dstnat - 1; policy accept;
\t\ttcp dport 15020 return
\t\ttcp dport 15021 return
\t\ttcp dport 15090 return
\t\tmeta l4proto tcp redirect to :15006
\t}

\tchain outbound {
\t\ttype nat hook output priority -101; policy accept;
\t\tmeta skuid 1337 return
\t\toifname \"lo\" return
\t\tmeta l4proto tcp redirect to :15001
\t}
}
"
    );
}

#[test]
fn exclusion_comes_before_inclusion() {
    let text = text(|capture| {
        let inbound = capture.inbound.as_mut().unwrap();
        inbound.include_ports = "8080,9090".parse().unwrap();
        inbound.exclude_ports = list("22").unwrap();
        inbound.include_ranges = "10.0.0.0/8,2001:db8::/32".parse().unwrap();
        inbound.exclude_ranges = list("10.0.0.1").unwrap();
        let outbound = capture.outbound.as_mut().unwrap();
        outbound.include_ranges = "10.0.0.0/8, 0.0.0.0/0".parse().unwrap();
        outbound.exclude_ranges = list("fd00::1").unwrap();
        outbound.include_ports = list("443").unwrap();
        outbound.exclude_ports = list("25").unwrap();
        capture.exclude_interfaces = list("eth1").unwrap();
    });
    let rules = |chain: &str| {
        let (_, rest) = text.split_once(&format!("chain {chain} {{\n")).unwrap();
        rest.lines().skip(1).take_while(|line| *line != "\t}").map(str::trim).collect::<Vec<_>>()
    };
    assert_eq!(
        rules("inbound"),
        [
            "iifname \"eth1\" return",
            "tcp dport 22 return",
            "ip saddr 10.0.0.1 return",
            "ip saddr 10.0.0.0/8 tcp dport 8080 redirect to :15006",
            "ip6 saddr 2001:db8::/32 tcp dport 8080 redirect to :15006",
            "ip saddr 10.0.0.0/8 tcp dport 9090 redirect to :15006",
            "ip6 saddr 2001:db8::/32 tcp dport 9090 redirect to :15006",
        ]
    );
    assert_eq!(
        rules("outbound"),
        [
            "meta skuid 1337 return",
            "oifname \"lo\" return",
            "oifname \"eth1\" return",
            "tcp dport 25 return",
            "ip6 daddr fd00::1 return",
            "tcp dport 443 redirect to :15001",
            "ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :15001",
            "meta nfproto ipv4 meta l4proto tcp redirect to :15001",
        ]
    );
}

#[test]
fn udp_is_dropped_where_asked_but_not_on_loopback_and_not_the_sidecars() {
    let text = text(|capture| {
        capture.drop_inbound_udp = list("443").unwrap();
        capture.drop_outbound_udp = list("443,53").unwrap();
    });
    assert!(text.contains(
        "\tchain inbound_udp {\n\t\ttype filter hook input priority filter; policy accept;\n\t\tiifname \"lo\" return\n\
         \t\tudp dport 443 drop\n\t}\n"
    ));
    assert!(text.contains(
        "\tchain outbound_udp {\n\t\ttype filter hook output priority filter; policy accept;\n\t\tmeta skuid 1337 return\n\
         \t\toifname \"lo\" return\n\t\tudp dport 443 drop\n\t\tudp dport 53 drop\n\t}\n"
    ));
}

#[test]
fn a_selection_is_a_star_or_a_list() {
    assert_eq!("*".parse::<Selection<Port>>().unwrap(), Selection::All);
    assert_eq!("".parse::<Selection<Port>>().unwrap(), Selection::Only(vec![]));
    assert_eq!(" 80, 443,".parse::<Selection<Port>>().unwrap().to_string(), "80,443");
    for wrong in ["*,80", "80;443", "80-90", "0"] {
        assert!(wrong.parse::<Selection<Port>>().is_err(), "{wrong}");
    }
    let error = "10.0.0.1/8".parse::<Selection<Cidr>>().unwrap_err().to_string();
    assert!(error.contains("10.0.0.1/8") && error.contains("address range"), "{error}");
}

#[test]
fn settings_say_which_directions_there_are_and_what_stays_open() {
    let of =
        |text: &str| Capture::of(&portcullis_config::read(text.as_bytes(), Path::new("")).unwrap()).table().to_string();
    let head = "workload: {name: a, namespace: b}\nmesh: {trustDomain: cluster.local, rootNamespace: istio-system}\n";
    let inbound = of(&format!(
        "{head}inbound: {{transparent: '[::]:16006', ports: [{{listen: '0.0.0.0:18080', port: 80, app: '127.0.0.1:80'}}]}}\n\
         admin: {{listen: '127.0.0.1:15000'}}\nhealth: {{listen: '[::]:16021'}}\nmetrics: {{listen: '127.0.0.1:16090'}}\n"
    ));
    assert!(inbound.contains("redirect to :16006") && !inbound.contains("chain outbound"), "{inbound}");
    let open: Vec<_> = inbound.lines().filter(|line| line.contains("dport")).map(str::trim).collect();
    assert_eq!(open, ["tcp dport 16021 return", "tcp dport 18080 return"]);
    // Peers that open tunnels, and clients of a gateway listener, do not want the app's ports.
    let peers = of(&format!(
        "{head}inbound: {{transparent: '[::]:16006', hbone: '[::]:15008'}}\n\
         gateway: {{listeners: [{{listen: '0.0.0.0:8443', routes: [{{address: '127.0.0.1:1', mode: plaintext}}]}}]}}\n"
    ));
    assert!(peers.contains("tcp dport 15008 return") && peers.contains("tcp dport 8443 return"), "{peers}");
    let outbound = of(&format!("{head}outbound: {{transparent: '[::1]:16001'}}\n"));
    assert!(outbound.contains("redirect to :16001") && !outbound.contains("chain inbound"), "{outbound}");
}
