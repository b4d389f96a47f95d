//! The manual pages, made from the definition of the command line. A test writes them, so that the binary does not carry what
//! makes them: `scripts/release` runs it with `MAN_PAGES` naming a folder.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::build_info::VERSION;
use crate::cli;

/// Writes one page for each command, `portcullis-ca-run.1` for `portcullis ca run`.
fn write(folder: &Path) {
    let command = cli::definition().version(VERSION).propagate_version(true);
    clap_mangen::generate_to(command, folder).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "1") {
            let page = fs::read_to_string(&path).unwrap();
            fs::write(&path, tidy(&page, path.file_stem().unwrap().to_str().unwrap())).unwrap();
        }
    }
}

/// Examples keep their lines, and the title has the version where man(7) wants it.
fn tidy(page: &str, name: &str) -> String {
    let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
    page.replace(title, &format!(".TH {name} 1 \"\" \"portcullis {VERSION}\""))
        .replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n.nf\n")
        .replace(".SH VERSION\n", ".fi\n.SH VERSION\n")
}

#[test]
fn every_command_has_a_man_page() {
    let own = tempfile::tempdir().unwrap();
    let folder = env::var_os("MAN_PAGES").map_or_else(|| own.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&folder).unwrap();
    write(&folder);
    let mut pending = vec![("portcullis".to_owned(), cli::definition())];
    while let Some((name, command)) = pending.pop() {
        let page =
            fs::read_to_string(folder.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES\n.nf\n"] {
            assert!(page.contains(part), "{name} has no {part}:\n{page}");
        }
        let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
        pending.extend(below.map(|below| (format!("{name}-{}", below.get_name()), below.clone())));
    }
}
