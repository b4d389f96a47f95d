use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use portcullis_policy::directory::RuleRef;
use portcullis_testkit::certs::{Authority, Profile};

use super::*;

fn authority() -> Authority {
    Authority::self_signed(&Profile { sans: None, ..Profile::authority("unused", "CN=a CA of the web") })
}

fn bundle() -> String {
    authority().bundle_pem()
}

fn files(folder: &Path) -> OriginatorFiles {
    OriginatorFiles::of(Places::with_bundle(Some(folder.to_owned()), folder.join("system.pem")))
}

/// A rule at this line, with a CA file or with the roots of the system.
fn rule(line: u32, ca: Option<&str>, sni: &str) -> Arc<TlsOrigination> {
    Arc::new(TlsOrigination {
        mode: OriginationMode::Simple,
        ca: ca.map(Arc::from),
        subject_alt_names: Vec::new(),
        sni: Some(sni.into()),
        rule: RuleRef { label: "shop/a".into(), file: "a.yaml".into(), line },
    })
}

fn only(originators: &Originators) -> Result<&Arc<Originator>, &String> {
    assert_eq!(originators.len(), 1);
    originators[0].1.as_ref()
}

#[test]
fn a_change_of_content_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, bundle()).unwrap();
    let mut files = files(folder.path());
    assert!(only(&files.of_rules(&[rule(1, Some("ca.pem"), "a.test")])).is_ok());
    assert!(!files.have_changed());
    fs::write(&file, bundle()).unwrap();
    assert!(files.have_changed());
    fs::remove_file(&file).unwrap();
    assert!(files.have_changed());
}

#[test]
fn a_file_that_comes_later_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = files(folder.path());
    let rules = [rule(1, Some("ca.pem"), "a.test")];
    assert!(only(&files.of_rules(&rules)).is_err());
    assert!(!files.have_changed());
    fs::write(folder.path().join("ca.pem"), bundle()).unwrap();
    assert!(files.have_changed());
    assert!(only(&files.of_rules(&rules)).is_ok());
    assert!(!files.have_changed());
}

/// As the volumes of Kubernetes are updated: the file that was read before is still there, with the same content.
#[test]
fn a_link_that_leads_elsewhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for version in ["v1", "v2"] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("ca.pem"), bundle()).unwrap();
    }
    symlink("v1", path("data")).unwrap();
    symlink("data/ca.pem", path("ca.pem")).unwrap();
    let mut files = files(folder.path());
    files.of_rules(&[rule(1, Some("ca.pem"), "a.test")]);
    assert!(!files.have_changed());
    symlink("v2", path("new")).unwrap();
    fs::rename(path("new"), path("data")).unwrap();
    assert!(files.have_changed());
}

#[test]
fn what_is_unchanged_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["ca.pem", "system.pem"] {
        fs::write(folder.path().join(file), bundle()).unwrap();
    }
    let mut files = files(folder.path());
    let rules = |line: u32| [rule(line, Some("ca.pem"), "a.test"), rule(line, None, "b.test")];
    let before = files.of_rules(&rules(1));
    // Lines above the rules, and a rule with the same need in another place.
    let after = files.of_rules(&[&rules(2)[..], &rules(7)].concat());
    for (index, (rule, made)) in after.iter().enumerate() {
        let same = before[index % 2].1.as_ref().unwrap();
        assert!(Arc::ptr_eq(made.as_ref().unwrap(), same), "{rule:?}");
    }
    fs::write(folder.path().join("ca.pem"), bundle()).unwrap();
    let changed = files.of_rules(&rules(2));
    let is_same = |index: usize| Arc::ptr_eq(changed[index].1.as_ref().unwrap(), before[index].1.as_ref().unwrap());
    assert!(!is_same(0) && is_same(1));
}

#[test]
fn a_file_that_breaks_leaves_what_was_made_of_it_wherever_its_rule_is_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), bundle()).unwrap();
    let mut files = files(folder.path());
    let before = files.of_rules(&[rule(1, Some("ca.pem"), "a.test")]);
    fs::write(folder.path().join("ca.pem"), "broken").unwrap();
    // Twice: what was kept is kept again.
    for line in [2, 3] {
        let kept = files.of_rules(&[rule(line, Some("ca.pem"), "a.test")]);
        assert!(Arc::ptr_eq(only(&kept).unwrap(), only(&before).unwrap()));
    }
    // Another need has nothing to keep.
    assert!(only(&files.of_rules(&[rule(3, Some("ca.pem"), "b.test")])).is_err());
}

#[test]
fn a_client_certificate_is_made_again_when_one_of_its_files_changes() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let write = |file: &str, content: String| fs::write(folder.path().join(file), content).unwrap();
    let issue = || authority.issue(&Profile::leaf("unused"));
    let (first, second) = (issue(), issue());
    write("ca.pem", authority.bundle_pem());
    write("own.pem", first.cert_pem());
    write("own.key", first.key_pem());
    let mode = OriginationMode::Mutual { certificate: "own.pem".into(), key: "own.key".into() };
    let rules = [Arc::new(TlsOrigination { mode, ..(*rule(1, Some("ca.pem"), "a.test")).clone() })];
    let mut files = files(folder.path());
    let made = |files: &mut OriginatorFiles| Arc::clone(only(&files.of_rules(&rules)).unwrap());
    let before = made(&mut files);
    // Between the two the pair does not fit, and the one before stays.
    write("own.key", second.key_pem());
    assert!(Arc::ptr_eq(&made(&mut files), &before));
    write("own.pem", second.cert_pem());
    assert!(files.have_changed());
    assert!(!Arc::ptr_eq(&made(&mut files), &before));
}
