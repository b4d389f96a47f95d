//! Finds out which commit is built, for `portcullis version`, `--version` and `/server_info`.
//!
//! `PORTCULLIS_COMMIT` in the environment of the build decides. Without it git is asked, if this package lies in a checkout of
//! its own repository. A source archive, or a copy inside another repository, has no commit: `unknown`.
//!
//! Cargo runs this again only after HEAD or the index has changed. A mark `-dirty` says what was true then; an edit alone
//! does not cost a link of the whole binary.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the package lies in its repository.
const PACKAGE: &str = "crates/portcullis";
const VARIABLE: &str = "PORTCULLIS_COMMIT";

fn main() {
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let checkout = Checkout::of(&package);
    for file in checkout.iter().flat_map(Checkout::decisive_files) {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let given = env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| checkout.and_then(|checkout| checkout.commit()));
    println!("cargo:rustc-env={VARIABLE}={}", commit.as_deref().unwrap_or("unknown"));
}

/// A working tree of the repository that the package belongs to.
pub(crate) struct Checkout {
    top: PathBuf,
}

impl Checkout {
    pub(crate) fn of(package: &Path) -> Option<Self> {
        let top = PathBuf::from(git(package, &["rev-parse", "--show-toplevel"])?);
        // Not a repository that happens to lie around a copy of the sources.
        let own = top.join(PACKAGE).canonicalize().ok()? == package.canonicalize().ok()?;
        own.then_some(Self { top })
    }

    /// The abbreviated commit, marked if tracked files differ from it.
    pub(crate) fn commit(&self) -> Option<String> {
        git(&self.top, &["describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"])
    }

    /// What changes whenever the commit does. Cargo would take a file that is missing for one that changes all the time.
    pub(crate) fn decisive_files(&self) -> Vec<PathBuf> {
        let names = ["HEAD", "logs/HEAD", "index"];
        let paths = names.iter().filter_map(|name| git(&self.top, &["rev-parse", "--git-path", name]));
        // git names them relative to where it was asked, or absolutely in a worktree.
        paths.map(|path| self.top.join(path)).filter(|path| path.exists()).collect()
    }
}

/// What git answers; nothing if there is no git, or it has no answer.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    // Without optional locks it does not write the index, which would run this again.
    let output =
        Command::new("git").current_dir(folder).args(arguments).env("GIT_OPTIONAL_LOCKS", "0").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
