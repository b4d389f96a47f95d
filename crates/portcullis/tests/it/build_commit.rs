//! The commit that the binary names, and how the build script finds it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::portcullis;

#[allow(dead_code, reason = "its main function is for cargo")]
#[path = "../../build.rs"]
mod build;

use build::Checkout;

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"];
    let ran = Command::new("git").current_dir(folder).args(identity).args(arguments).output().unwrap();
    assert!(ran.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A repository that holds a package where the script expects it.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("crates/portcullis");
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("build.rs"), "fn main() {}\n").unwrap();
    git(folder.path(), &["init", "--quiet"]);
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "--quiet", "-m", "first"]);
    folder
}

fn commit(top: &Path) -> Option<String> {
    Checkout::of(&top.join("crates/portcullis")).and_then(|checkout| checkout.commit())
}

#[test]
fn a_commit_is_named_with_a_mark_if_files_were_changed() {
    let folder = repository();
    let clean = commit(folder.path()).unwrap();
    assert!(clean.len() == 12 && clean.bytes().all(|digit| digit.is_ascii_hexdigit()), "{clean}");
    fs::write(folder.path().join("crates/portcullis/build.rs"), "fn main() { }\n").unwrap();
    assert_eq!(commit(folder.path()).unwrap(), format!("{clean}-dirty"));
}

#[test]
fn every_new_commit_changes_a_file_that_cargo_watches() {
    let folder = repository();
    let other = tempfile::tempdir().unwrap();
    let worktree = other.path().join("worktree");
    git(folder.path(), &["worktree", "add", "--quiet", worktree.to_str().unwrap()]);
    for top in [folder.path(), &worktree] {
        let checkout = Checkout::of(&top.join("crates/portcullis")).unwrap();
        let files = checkout.decisive_files();
        assert_eq!(files.len(), 3, "{files:?}");
        let content = || files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
        let (before, named) = (content(), checkout.commit().unwrap());
        git(top, &["commit", "--quiet", "--allow-empty", "-m", "next"]);
        assert_ne!(checkout.commit().unwrap(), named);
        assert_ne!(content(), before);
        let after = content();
        checkout.commit().unwrap();
        assert_eq!(content(), after, "asking must not run the script again");
    }
}

#[test]
fn sources_outside_of_their_own_repository_have_no_commit() {
    let plain = tempfile::tempdir().unwrap();
    fs::create_dir_all(plain.path().join("crates/portcullis")).unwrap();
    assert_eq!(commit(plain.path()), None);
    // A copy inside another repository.
    let folder = repository();
    let copy = folder.path().join("vendor");
    fs::create_dir_all(copy.join("crates/portcullis")).unwrap();
    assert_eq!(commit(&copy), None);
}

#[test]
fn the_binary_names_the_commit_that_it_was_built_from() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let said = String::from_utf8(portcullis(&["version"]).stdout).unwrap();
    match commit(&top).filter(|_| option_env!("CI_GIVEN_COMMIT").is_none()) {
        Some(commit) => {
            // An edit since the build does not count.
            let commit = commit.trim_end_matches("-dirty");
            assert!(said.contains(&format!("(commit {commit}")), "{said} is not of {commit}");
        }
        None => assert!(said.contains("(commit "), "{said}"),
    }
}
