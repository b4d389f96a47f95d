//! Which changes in the file system matter to a set: whole folders, and single names in other folders.
//!
//! inotify watches what a path pointed to when it was added. So a swap of a folder or of a link is seen only by
//! watching the folder that *holds* it, for that name alone: the holder may be `/etc` or `/tmp`, where much happens.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::folder::is_yaml;

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// What to listen for. All paths are absolute and free of links, so that one folder has one spelling.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Interest {
    folders: BTreeSet<PathBuf>,
    /// Folders of which YAML files alone matter.
    yaml_in: BTreeSet<PathBuf>,
    names: BTreeSet<PathBuf>,
}

impl Interest {
    /// Every entry of this folder matters.
    pub(crate) fn folder(&mut self, folder: &Path) {
        self.folders.insert(folder.to_owned());
    }

    /// Every YAML file directly in this folder matters, and nothing else in it.
    pub(crate) fn yaml_files(&mut self, folder: &Path) {
        self.yaml_in.insert(folder.to_owned());
    }

    /// Follows `path` through all its links, takes an interest in each of them, in the end of the path and in the
    /// folder that holds the end, and returns the end. It need not exist; a loop of links ends somewhere on the loop.
    pub(crate) fn follow(&mut self, path: &Path) -> PathBuf {
        let start = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut links = 0;
        let end = self.resolve(PathBuf::from("/"), &start, &mut links);
        if let Some(holder) = end.parent() {
            self.names.insert(holder.to_owned());
        }
        self.names.insert(end.clone());
        end
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
                            self.names.insert(next);
                            here = self.resolve(here, &target, links);
                        }
                        _ => here = next,
                    }
                }
            }
        }
        here
    }

    /// The folders to watch.
    pub(crate) fn watched(&self) -> BTreeSet<PathBuf> {
        let mut watched = self.holders_except(None);
        watched.extend(self.folders.iter().chain(&self.yaml_in).cloned());
        watched
    }

    /// The folders that hold the names of interest, but for one name.
    pub(crate) fn holders_except(&self, name: Option<&Path>) -> BTreeSet<PathBuf> {
        let names = self.names.iter().filter(|other| Some(other.as_path()) != name);
        names.filter_map(|name| name.parent()).map(Path::to_owned).collect()
    }

    /// Whether a change at `path` can be a change of the set.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.names.contains(path)
            || self.folders.contains(path)
            || path
                .parent()
                .is_some_and(|holder| self.folders.contains(holder) || (is_yaml(path) && self.yaml_in.contains(holder)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_of_interest_and_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir(top.join("..v1")).unwrap();
        fs::write(top.join("..v1/cert.pem"), "x").unwrap();
        symlink("..v1", top.join("..data")).unwrap();
        symlink("..data/cert.pem", top.join("cert.pem")).unwrap();

        let mut interest = Interest::default();
        assert_eq!(interest.follow(&top.join("cert.pem")), top.join("..v1/cert.pem"));
        for name in ["cert.pem", "..data", "..v1", "..v1/cert.pem"] {
            assert!(interest.covers(&top.join(name)), "{name}");
        }
        for name in ["other.pem", "..v1/other.pem", "..v2"] {
            assert!(!interest.covers(&top.join(name)), "{name}");
        }
        assert_eq!(interest.watched(), BTreeSet::from([top.clone(), top.join("..v1")]));
    }

    #[test]
    fn of_a_flat_folder_yaml_files_alone_are_of_interest() {
        let top = Path::new("/ca");
        let mut interest = Interest::default();
        interest.yaml_files(top);
        for (name, matters) in
            [("mesh.yaml", true), ("mesh.yml", true), ("audit.jsonl", false), ("state/a.yaml", false)]
        {
            assert_eq!(interest.covers(&top.join(name)), matters, "{name}");
        }
        assert_eq!(interest.watched(), BTreeSet::from([top.to_owned()]));
    }

    #[test]
    fn a_missing_file_is_still_waited_for_and_a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        symlink("b", top.join("a")).unwrap();
        symlink("a", top.join("b")).unwrap();

        let mut interest = Interest::default();
        assert_eq!(interest.follow(&top.join("new/cert.pem")), top.join("new/cert.pem"));
        assert!(interest.covers(&top.join("new")));
        interest.follow(&top.join("a/cert.pem"));
        assert!(interest.covers(&top.join("a")) && interest.covers(&top.join("b")));
    }
}
