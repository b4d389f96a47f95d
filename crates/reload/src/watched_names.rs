//! Which names in which directories matter to a set: whole folders, and single names in other directories.
//!
//! inotify watches what a path pointed to when it was added. So the replacement of a folder or of a link is seen only by
//! watching the directory that *holds* it, for that name alone: that directory may be `/etc` or `/tmp`, with many events.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::extension::is_resource_file;

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// The directories to watch. All paths are absolute and free of links, so that one directory has one spelling.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct WatchedNames {
    directories: BTreeMap<PathBuf, Directory>,
}

/// What matters in one directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Directory {
    pub(crate) contents: Contents,
    /// Single names that matter, whatever `contents` says.
    pub(crate) names: BTreeSet<OsString>,
    /// Whether files with these names are read, so that writing to them matters too.
    pub(crate) holds_files: bool,
}

/// Which entries of a directory belong to the set.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Contents {
    /// None but the listed names.
    #[default]
    None,
    /// Every resource file.
    Files,
    /// Every resource file, and every folder and link.
    Tree,
}

/// How much an event on a name can mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Relevance {
    /// It has nothing to do with the set.
    Foreign,
    /// It belongs to the set if it is a folder or a link to one.
    Possible,
    /// It belongs to the set.
    Member,
}

impl Directory {
    /// What an event on `name` means; `structural` if an entry came or went, and not only its content.
    pub(crate) fn relevance(&self, name: &OsStr, structural: bool) -> Relevance {
        if self.names.contains(name) {
            return Relevance::Member;
        }
        if self.contents == Contents::None || is_hidden(name) {
            return Relevance::Foreign;
        }
        if is_resource_file(Path::new(name)) {
            return Relevance::Member;
        }
        if structural && self.contents == Contents::Tree { Relevance::Possible } else { Relevance::Foreign }
    }

    /// Takes in what matters under another path of the same directory.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.contents = self.contents.max(other.contents);
        self.names.extend(other.names.iter().cloned());
        self.holds_files |= other.holds_files;
    }
}

/// Names that begin with a dot are skipped when a folder is listed.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

impl WatchedNames {
    /// Resource files, folders and links in this directory belong to the set.
    pub(crate) fn tree(&mut self, folder: &Path) {
        self.contents(folder, Contents::Tree);
    }

    /// Resource files in this directory belong to the set.
    pub(crate) fn files(&mut self, folder: &Path) {
        self.contents(folder, Contents::Files);
    }

    fn contents(&mut self, folder: &Path, contents: Contents) {
        let directory = self.directories.entry(folder.to_owned()).or_default();
        directory.contents = directory.contents.max(contents);
        directory.holds_files = true;
    }

    /// Follows the path of a folder through all its links; watches each of them, the folder's name and the name of the
    /// directory that holds it, and returns where the path ends. It need not exist; a loop of links ends on the loop.
    pub(crate) fn follow_folder(&mut self, path: &Path) -> PathBuf {
        let start = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut links = 0;
        let end = self.resolve(PathBuf::from("/"), &start, &mut links);
        if let Some(holder) = end.parent() {
            self.name(holder);
        }
        self.name(&end);
        end
    }

    /// As [`follow_folder`](Self::follow_folder), for a file, which is also watched for writing.
    pub(crate) fn follow_file(&mut self, path: &Path) -> PathBuf {
        let end = self.follow_folder(path);
        if let Some(directory) = end.parent().and_then(|holder| self.directories.get_mut(holder)) {
            directory.holds_files = true;
        }
        end
    }

    fn name(&mut self, path: &Path) {
        if let (Some(holder), Some(name)) = (path.parent(), path.file_name()) {
            self.directories.entry(holder.to_owned()).or_default().names.insert(name.to_owned());
        }
    }

    /// `here` is free of links already; `path` continues from it.
    fn resolve(&mut self, mut here: PathBuf, path: &Path, links: &mut usize) -> PathBuf {
        for component in path.components() {
            match component {
                Component::RootDir | Component::Prefix(_) => here = PathBuf::from("/"),
                Component::CurDir => {}
                Component::ParentDir => {
                    here.pop();
                }
                Component::Normal(name) => {
                    let next = here.join(name);
                    match fs::read_link(&next) {
                        Ok(target) if *links < MAX_LINKS => {
                            *links += 1;
                            self.name(&next);
                            here = self.resolve(here, &target, links);
                        }
                        _ => here = next,
                    }
                }
            }
        }
        here
    }

    /// The directories to watch, with what matters in each.
    pub(crate) fn directories(&self) -> &BTreeMap<PathBuf, Directory> {
        &self.directories
    }

    /// The directories that hold single names that matter, apart from one name.
    pub(crate) fn holders_except(&self, name: Option<&Path>) -> BTreeSet<PathBuf> {
        let matters = |(path, directory): &(&PathBuf, &Directory)| {
            let other = |held: &&OsString| Some(path.join(held).as_path()) != name;
            directory.names.iter().any(|held| other(&held))
        };
        self.directories.iter().filter(matters).map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn relevance(names: &WatchedNames, path: &Path, structural: bool) -> Relevance {
        let directory = names.directories().get(path.parent().unwrap());
        directory.map_or(Relevance::Foreign, |directory| directory.relevance(path.file_name().unwrap(), structural))
    }

    fn watched(names: &WatchedNames) -> Vec<&Path> {
        names.directories().keys().map(PathBuf::as_path).collect()
    }

    #[test]
    fn every_link_of_a_path_matters_and_its_neighbours_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir(top.join("..v1")).unwrap();
        fs::write(top.join("..v1/cert.pem"), "x").unwrap();
        symlink("..v1", top.join("..data")).unwrap();
        symlink("..data/cert.pem", top.join("cert.pem")).unwrap();

        let mut names = WatchedNames::default();
        assert_eq!(names.follow_file(&top.join("cert.pem")), top.join("..v1/cert.pem"));
        for name in ["cert.pem", "..data", "..v1", "..v1/cert.pem"] {
            assert_eq!(relevance(&names, &top.join(name), true), Relevance::Member, "{name}");
        }
        for name in ["other.pem", "..v1/other.pem", "..v2"] {
            assert_eq!(relevance(&names, &top.join(name), true), Relevance::Foreign, "{name}");
        }
        assert_eq!(watched(&names), [top.as_path(), &top.join("..v1")]);
        assert!(names.directories()[&top.join("..v1")].holds_files && !names.directories()[&top].holds_files);
    }

    #[test]
    fn in_a_folder_only_resource_files_matter_and_what_may_be_a_folder() {
        let top = Path::new("/ca");
        let (mut flat, mut tree) = (WatchedNames::default(), WatchedNames::default());
        flat.files(top);
        tree.tree(top);
        for (name, in_flat, in_tree, written) in [
            ("mesh.yaml", Relevance::Member, Relevance::Member, Relevance::Member),
            ("mesh.yml", Relevance::Member, Relevance::Member, Relevance::Member),
            ("mesh.json", Relevance::Member, Relevance::Member, Relevance::Member),
            ("audit.jsonl", Relevance::Foreign, Relevance::Possible, Relevance::Foreign),
            (".draft.yaml", Relevance::Foreign, Relevance::Foreign, Relevance::Foreign),
            ("state/a.yaml", Relevance::Foreign, Relevance::Foreign, Relevance::Foreign),
        ] {
            assert_eq!(relevance(&flat, &top.join(name), true), in_flat, "{name}");
            assert_eq!(relevance(&tree, &top.join(name), true), in_tree, "{name}");
            assert_eq!(relevance(&tree, &top.join(name), false), written, "{name}");
        }
        assert_eq!(watched(&flat), [top]);
    }

    #[test]
    fn a_missing_file_is_still_watched_for_and_a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        symlink("b", top.join("a")).unwrap();
        symlink("a", top.join("b")).unwrap();

        let mut names = WatchedNames::default();
        assert_eq!(names.follow_file(&top.join("new/cert.pem")), top.join("new/cert.pem"));
        assert_eq!(relevance(&names, &top.join("new"), true), Relevance::Member);
        names.follow_file(&top.join("a/cert.pem"));
        for name in ["a", "b"] {
            assert_eq!(relevance(&names, &top.join(name), true), Relevance::Member);
        }
    }
}
