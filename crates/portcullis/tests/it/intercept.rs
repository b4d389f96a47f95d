//! The parts of `portcullis intercept` that need no privilege: the plan for a configuration, and refused arguments.
//! Installed rules need a network namespace: see `tests/netns/run`.

use std::process::{Command, Stdio};

const HEAD: &str = "workload: {name: cart, namespace: shop}\n";

/// Exit code, standard output, standard error.
fn plan(config: Option<&str>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["intercept", "plan"]).args(arguments).stdin(Stdio::null());
    if let Some(text) = config {
        std::fs::write(folder.path().join("cart.yaml"), text).unwrap();
        command.current_dir(folder.path()).args(["--config", "cart.yaml"]);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_configuration_says_what_is_captured_and_arguments_add_to_it() {
    let config = format!(
        "{HEAD}inbound: {{transparent: '[::]:16006'}}\noutbound: {{transparent: '[::]:16001'}}\nhealth: {{listen: '[::]:16021'}}\n"
    );
    let (code, out, err) =
        plan(Some(&config), &["--exclude-inbound-ports", "22", "--outbound-capture-port", "17001", "--proxy-uid", "7"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let rules: Vec<_> =
        out.lines().filter(|line| line.starts_with("\t\t") && !line.contains("hook")).map(str::trim).collect();
    assert_eq!(
        rules,
        [
            "tcp dport 16021 return",
            "tcp dport 22 return",
            "meta l4proto tcp redirect to :16006",
            "meta skuid 7 return",
            "oifname \"lo\" return",
            "meta l4proto tcp redirect to :17001",
        ]
    );
}

#[test]
fn a_configuration_without_transparent_listeners_captures_nothing_and_says_so() {
    let (code, out, err) = plan(Some(&format!("{HEAD}admin: {{listen: '127.0.0.1:15000'}}\n")), &[]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(err.contains("cart.yaml") && err.contains("inbound.transparent"), "{err}");
    let (code, _, err) = plan(Some("inbound: {transparent: 15006}\n"), &[]);
    assert_eq!(code, Some(78));
    assert!(err.contains("cart.yaml:1:"), "{err}");
}

#[test]
fn a_wrong_argument_is_named_with_what_it_should_be() {
    for (argument, wrong, wanted) in [
        ("--exclude-inbound-ports", "80,http", "a port between 1 and 65535"),
        ("--include-outbound-ip-ranges", "10.0.0.1/8", "an address range such as"),
        ("--exclude-interfaces", "eth0;eth1", "the name of a network interface"),
    ] {
        let (code, out, err) = plan(None, &[argument, wrong]);
        assert_eq!((code, out.as_str()), (Some(64), ""));
        assert!(err.contains(argument) && err.contains(wanted), "{err}");
    }
}

#[test]
fn the_text_in_the_environment_is_read_where_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cart.yaml"), format!("{HEAD}inbound: {{transparent: '[::]:16006'}}\n")).unwrap();
    let run = |text: &str, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .current_dir(folder.path())
            .env("PORTCULLIS_CONFIG", text)
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let text = format!("{HEAD}inbound: {{transparent: '[::]:17006'}}\n");
    let (code, out, _) = run(&text, &["intercept", "plan"]);
    assert!(code == Some(0) && out.contains("redirect to :17006"), "{out}");
    let (code, out, _) = run(&text, &["intercept", "plan", "--config", "cart.yaml"]);
    assert!(code == Some(0) && out.contains("redirect to :16006"), "{out}");
    let (code, out, _) = run(&text, &["config", "check"]);
    assert_eq!((code, out.as_str()), (Some(0), "PORTCULLIS_CONFIG: ok\n"));
    for command in [&["intercept", "plan"][..], &["proxy"], &["config", "check"]] {
        let (code, out, err) = run("workload: {name: cart}\n", command);
        assert_eq!(code, Some(78), "{command:?}: {err}");
        assert!(format!("{out}{err}").contains("PORTCULLIS_CONFIG:1:"), "{command:?}: {out}{err}");
    }
    let (code, _, err) = run("", &["proxy"]);
    assert_eq!(code, Some(64));
    assert!(err.contains("$PORTCULLIS_CONFIG") && err.contains("/etc/portcullis/config.yaml"), "{err}");
}
