//! `portcullis certs show`: files, standard input, a real sidecar; unfit certificates, other CAs, certificates that expire.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_testkit::certs::{Authority, Profile, now};

use super::support::raw::Mesh;
use super::support::{BIN, CART, Ran, run};

/// Validity of a leaf: from so many seconds ago to so many ahead.
fn leaf(authority: &Authority, ago: i64, ahead: i64) -> String {
    let profile = Profile::leaf(CART).valid(now() - ago, now() + ahead);
    authority.issue(&profile).cert_pem()
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn show(arguments: &[&str]) -> Ran {
    run(&[&["certs", "show"], arguments].concat())
}

#[test]
fn a_chain_is_shown_with_all_that_it_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::root("cluster.local");
    let chain = leaf(&authority, 3600, 86_400) + &authority.bundle_pem();
    let (file, ca) =
        (write(folder.path(), "chain.pem", &chain), write(folder.path(), "ca.pem", &authority.bundle_pem()));
    let shown = show(&[&file, "--ca", &ca, "-o", "json"]);
    assert_eq!(shown.code, Some(0), "{}{}", shown.out, shown.err);
    let json = shown.json();
    let first = &json["items"][0];
    assert_eq!((&first["kind"], &first["uris"][0]), (&"leaf".into(), &CART.into()));
    assert_eq!((&first["key"], &first["status"]), (&"ecdsa-p256".into(), &"valid".into()));
    assert_eq!(first["keyUsage"]["uses"], serde_json::json!(["digitalSignature"]));
    assert_eq!(first["extendedKeyUsage"]["uses"], serde_json::json!(["serverAuth", "clientAuth"]));
    assert_eq!(first["basicConstraints"], serde_json::json!({"ca": false, "pathLen": null}));
    assert!(first["unfit"].is_null() && (86_000..=86_400).contains(&first["secondsLeft"].as_i64().unwrap()));
    let second = &json["items"][1];
    assert_eq!((&second["kind"], &second["subject"]), (&"root".into(), &"CN=root of cluster.local".into()));
    assert_eq!(json["chain"]["root"], "CN=root of cluster.local");
    // openssl agrees about the serial number.
    let serial = Command::new("openssl").args(["x509", "-noout", "-serial", "-in", &file]).output().unwrap();
    let serial = String::from_utf8(serial.stdout).unwrap().trim().trim_start_matches("serial=").to_lowercase();
    assert_eq!(first["serial"], serial);
    let table = show(&[&file]);
    assert!(table.out.starts_with("#   KIND   NAME"), "{}", table.out);
    assert!(table.out.contains(&format!("0   leaf   {CART}   ecdsa-p256")), "{}", table.out);
    let wide = show(&[&file, "-o", "wide"]).out;
    let first = wide.lines().nth(1).unwrap();
    let uses = ["critical:digitalSignature", "serverAuth,clientAuth", "CA:FALSE"];
    assert!(uses.iter().all(|uses| first.split("   ").any(|cell| cell.trim() == *uses)), "{wide}");
    let yaml: serde_json::Value = serde_yaml::from_str(&show(&[&file, "--ca", &ca, "-o", "yaml"]).out).unwrap();
    assert_eq!(yaml["items"][0]["serial"], serial);
}

#[test]
fn der_standard_input_and_a_server_are_sources_too() {
    let mesh = Mesh::new("STRICT");
    let (cart, listen) = mesh.cart("127.0.0.1:1".parse().unwrap(), |_| ());
    let pem = mesh.path().join("cart/cert.pem");
    let der = mesh.path().join("cart.der");
    let made = Command::new("openssl")
        .args(["x509", "-outform", "DER", "-in", pem.to_str().unwrap(), "-out", der.to_str().unwrap()])
        .status();
    assert!(made.unwrap().success());
    let serial = |ran: Ran| ran.json()["items"][0]["serial"].as_str().unwrap().to_owned();
    let of_pem = serial(show(&[pem.to_str().unwrap(), "-o", "json"]));
    assert_eq!(serial(show(&[der.to_str().unwrap(), "-o", "json"])), of_pem);
    // The sidecar refuses a client without a certificate, after it has shown its own.
    let ca = mesh.path().join("cart/ca.pem");
    let from_wire = show(&[&listen.to_string(), "--ca", ca.to_str().unwrap(), "-o", "json"]);
    assert!(!from_wire.json()["chain"]["root"].is_null(), "{}", from_wire.out);
    assert_eq!(serial(from_wire), of_pem);
    let piped = Command::new(BIN)
        .args(["certs", "show", "-", "-o", "json"])
        .stdin(Stdio::from(fs::File::open(&pem).unwrap()))
        .output();
    assert_eq!(serial(piped.unwrap().into()), of_pem);
    drop(cart);
    assert_eq!(show(&[&listen.to_string()]).code, Some(69));
}

#[test]
fn what_has_expired_or_is_about_to_has_its_own_code() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::root("cluster.local");
    let status = |ago, ahead, more: &[&str]| {
        let file = write(folder.path(), "leaf.pem", &leaf(&authority, ago, ahead));
        let shown = show(&[&[file.as_str(), "-o", "json"], more].concat());
        (shown.code.unwrap(), shown.json()["items"][0]["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(status(7200, -3600, &[]), (82, "expired".to_owned()));
    // A third of its lifetime is left, and a bit less or more.
    assert_eq!(status(20_100, 9_900, &[]), (82, "about-to-expire".to_owned()));
    assert_eq!(status(19_900, 10_100, &[]), (0, "valid".to_owned()));
    assert_eq!(status(19_900, 10_100, &["--warn-before", "3h"]), (82, "about-to-expire".to_owned()));
    assert_eq!(status(20_100, 9_900, &["--warn-before", "2h"]), (0, "valid".to_owned()));
    assert_eq!(status(-600, 3600, &[]), (0, "not-yet-valid".to_owned()));
}

#[test]
fn what_makes_a_certificate_unfit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::root("cluster.local");
    type Fault = fn(&mut Profile);
    let faults: [(&str, Fault); 3] = [
        ("no-uri-san", |profile| profile.sans = None),
        ("ku", |profile| profile.key_usage = None),
        ("eku", |profile| profile.extended_key_usage = Some(vec![Profile::SERVER_AUTH])),
    ];
    for (name, fault) in faults {
        let mut profile = Profile::leaf(CART);
        fault(&mut profile);
        let file = write(folder.path(), name, &authority.issue(&profile).cert_pem());
        let shown = show(&[&file, "-o", "json"]);
        assert_eq!(shown.code, Some(0));
        assert!(shown.json()["items"][0]["unfit"]["class"].is_string(), "{name}: {}", shown.out);
        assert!(show(&[&file]).out.contains("0: not usable in the mesh: "), "{name}");
    }
    let mut twice = Profile::leaf(CART);
    twice.san_extensions = 2;
    let file = write(folder.path(), "twice", &authority.issue(&twice).cert_pem());
    assert_eq!(show(&[&file, "-o", "json"]).json()["items"][0]["status"], "unreadable");
    // A chain of another CA.
    let other = write(
        folder.path(),
        "other.pem",
        &Authority::self_signed(&Profile::authority("cluster.local", "CN=other")).bundle_pem(),
    );
    let file = write(folder.path(), "good.pem", &leaf(&authority, 60, 86_400));
    let refused = show(&[&file, "--ca", &other]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(
        refused.out.contains("chain: NOT verified: ") && refused.out.contains("[unknown-issuer]"),
        "{}",
        refused.out
    );
    let garbage = write(folder.path(), "garbage", "no certificate");
    assert_eq!((show(&[&garbage]).code, show(&["no/such/file"]).code), (Some(65), Some(65)));
}
