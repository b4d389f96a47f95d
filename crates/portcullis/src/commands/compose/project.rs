//! The folder of a compose project: which file is the original, and the two files that are written beside it.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_ca::Private;
use portcullis_compose::{ComposeFile, Record, compose_file, with_compose_file, without_compose_file};
use portcullis_tls::ContentDigest;

use crate::exit::{Exit, Failure};
use crate::files;
use crate::output;

/// The generated file.
pub(super) const MESH_FILE: &str = "compose.mesh.yaml";
const ENV_FILE: &str = ".env";
const VARIABLE: &str = "COMPOSE_FILE";
/// Where Compose looks, in the order of v2.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// What it merges by itself, as long as COMPOSE_FILE is not set.
const OVERRIDES: [&str; 4] =
    ["compose.override.yaml", "compose.override.yml", "docker-compose.override.yml", "docker-compose.override.yaml"];
/// Far larger than any compose file.
const MAX_BYTES: u64 = 8 << 20;

/// The file that its author writes.
pub(super) struct Original {
    /// As messages name it.
    pub(super) shown: String,
    /// Its name in its folder.
    pub(super) name: String,
    pub(super) text: String,
    path: PathBuf,
}

/// The folder of a project, and what an earlier run has written there.
pub(super) struct Project {
    pub(super) folder: PathBuf,
    pub(super) original: Original,
    /// None before the first run.
    pub(super) record: Option<Record>,
}

impl Original {
    /// The file that was named, else the one that Compose would use in this folder.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        match named {
            Some(path) => Self::read(path),
            None => Self::read(Path::new(&found(Path::new("."))?)),
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let shown = if files::is_stdin(path) { files::STDIN.to_owned() } else { path.display().to_string() };
        let name = path.file_name().map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
        let name = if files::is_stdin(path) { shown.clone() } else { name };
        Ok(Self { text: files::read_text(path, MAX_BYTES)?, shown, name, path: path.to_owned() })
    }

    /// By which a later run sees that it was changed.
    pub(super) fn digest(&self) -> String {
        ContentDigest::of(self.text.as_bytes()).to_string()
    }

    /// Whether others must not read it: then they must not read what is made of it.
    fn private(&self) -> Private {
        let mode = fs::metadata(&self.path).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o004 != 0) { Private::No } else { Private::Yes }
    }
}

/// The one file that Compose would use.
fn found(folder: &Path) -> Result<String, Failure> {
    let usage = |message: String| Err(Failure::message(Exit::Usage, message));
    let set = env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    if let Some(files) =
        set.or_else(|| compose_file(&env_text(folder)).map(str::to_owned)).filter(|name| name != MESH_FILE)
    {
        if files.contains(':') {
            return usage(format!(
                "{VARIABLE} names several files ({files}): write one, `docker-compose config > compose.all.yaml`, and name it with -f"
            ));
        }
        return Ok(files);
    }
    let present: Vec<&str> = NAMES.into_iter().filter(|name| folder.join(name).exists()).collect();
    match present.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => usage(format!("there is no compose file in this folder ({}); name one with -f", NAMES.join(", "))),
        several => usage(format!("there are {}; name one with -f", several.join(" and "))),
    }
}

fn env_text(folder: &Path) -> String {
    fs::read_to_string(folder.join(ENV_FILE)).unwrap_or_default()
}

impl Project {
    /// The project of the file that was named, else of this folder.
    ///
    /// # Errors
    /// If a file cannot be read, or files could be written that plain commands would not use.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let usage = |message: String| Failure::message(Exit::Usage, message);
        if named.is_some_and(files::is_stdin) {
            return Err(usage("files are written beside the original, and standard input has no folder".to_owned()));
        }
        let folder = named.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new(".")).to_owned();
        let record = record(&folder)?;
        let path = match (&record, named) {
            (Some(record), None) => folder.join(&record.original),
            (Some(record), Some(path)) if path.ends_with(MESH_FILE) => folder.join(&record.original),
            (_, Some(path)) => path.to_owned(),
            (None, None) => found(&folder)?.into(),
        };
        let original = Original::read(&path)?;
        if let Some(record) = record.as_ref().filter(|record| record.original != original.name) {
            let message = format!(
                "{MESH_FILE} was made from {}, not from {}; move it away first",
                record.original, original.name
            );
            return Err(usage(message));
        }
        if env::var(VARIABLE).is_ok_and(|value| !value.is_empty()) {
            return Err(usage(format!(
                "${VARIABLE} is set in this shell and has precedence over .env: unset it first"
            )));
        }
        if let Some(name) = OVERRIDES.into_iter().find(|name| folder.join(name).exists()) {
            return Err(usage(format!(
                "{name} would no longer count, because {VARIABLE} in .env has precedence: write one file, \
                 `docker-compose config > compose.all.yaml`, and name it with -f"
            )));
        }
        Ok(Self { folder, original, record })
    }

    /// As [`find`](Self::find), where an earlier run must have been.
    pub(super) fn existing(named: Option<&Path>) -> Result<(Self, Record), Failure> {
        let project = Self::find(named)?;
        match project.record.clone() {
            Some(record) => Ok((project, record)),
            None => Err(Failure::message(
                Exit::BadInput,
                format!("there is no {MESH_FILE} that `portcullis compose add --write` has made in this folder"),
            )),
        }
    }

    /// Whether the original is what the generated file was made from.
    pub(super) fn is_current(&self) -> bool {
        self.record.as_ref().is_none_or(|record| record.digest == self.original.digest())
    }

    /// Writes the generated file and the line in `.env`, and makes the folder of the policies.
    pub(super) fn write(&self, text: &str, policies: &str) -> Result<(), Failure> {
        let policies = self.folder.join(policies.trim_start_matches("./"));
        if !policies.exists() && !policies.to_string_lossy().contains(['$', '~']) {
            fs::create_dir_all(&policies).with_context(|| policies.display().to_string())?;
            output::note(&format!("made the folder {}: while it is empty, the mode is PERMISSIVE", policies.display()));
        }
        let file = self.folder.join(MESH_FILE);
        portcullis_ca::write(&file, text.as_bytes(), self.original.private(), true).map_err(files::not_written)?;
        self.change_env(|env| with_compose_file(env, MESH_FILE))
    }

    /// Removes both again.
    pub(super) fn erase(&self) -> Result<(), Failure> {
        self.change_env(|env| without_compose_file(env, MESH_FILE))?;
        let file = self.folder.join(MESH_FILE);
        fs::remove_file(&file).with_context(|| file.display().to_string())?;
        Ok(())
    }

    /// In place: `.env` keeps its owner and mode, and may be a link.
    fn change_env(&self, change: impl FnOnce(&str) -> String) -> Result<(), Failure> {
        let path = self.folder.join(ENV_FILE);
        let shown = || path.display().to_string();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.with_context(shown)?,
        };
        let changed = change(&text);
        if changed == text {
            return Ok(());
        }
        if changed.is_empty() {
            fs::remove_file(&path).with_context(shown)?;
            return Ok(());
        }
        let mut options = OpenOptions::new();
        if let Some(added) = changed.strip_prefix(text.as_str()) {
            // What is there is not touched.
            let file = options.append(true).create(true).open(&path);
            file.and_then(|mut file| file.write_all(added.as_bytes())).with_context(shown)?;
        } else {
            let file = options.write(true).truncate(true).open(&path);
            file.and_then(|mut file| file.write_all(changed.as_bytes())).with_context(shown)?;
        }
        Ok(())
    }
}

/// The record of an earlier run.
fn record(folder: &Path) -> Result<Option<Record>, Failure> {
    let path = folder.join(MESH_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let shown = path.display().to_string();
    let file = ComposeFile::parse(&files::read_text(&path, MAX_BYTES)?).map_err(|error| bad_input(&shown, &error))?;
    match file.record().map_err(|error| bad_input(&shown, &error))? {
        Some(record) => Ok(Some(record)),
        None => Err(Failure::message(Exit::BadInput, not_written(&shown, &file.with_sidecars()))),
    }
}

/// What to do about a file that `--write` has not made.
fn not_written(shown: &str, services: &[String]) -> String {
    if services.is_empty() {
        return format!("{shown} was not made by `portcullis compose add --write`; move it away first");
    }
    format!(
        "{shown} was made by redirection, not by --write, so plain docker-compose commands do not use it, and it does not say what it was \
         made from. Remove it, and run `portcullis compose add {} --write` with the flags of then",
        services.join(" ")
    )
}

/// The services that have a sidecar in a generated file of a folder, whoever wrote it; none if there is no such file.
pub(super) fn generated(folder: &Path) -> Result<Option<Vec<String>>, Failure> {
    let path = folder.join(MESH_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let shown = path.display().to_string();
    let file = ComposeFile::parse(&files::read_text(&path, MAX_BYTES)?).map_err(|error| bad_input(&shown, &error))?;
    Ok(Some(file.with_sidecars()).filter(|services| !services.is_empty()))
}

/// Whether plain commands in a folder use the generated file.
pub(super) fn is_used(folder: &Path) -> bool {
    compose_file(&env_text(folder)) == Some(MESH_FILE)
}

/// A compose file that is refused: a line for each problem.
pub(super) fn bad_input(name: &str, error: &portcullis_compose::Error) -> Failure {
    let lines: Vec<_> = error.lines().iter().map(|line| format!("{name}: {line}")).collect();
    Failure::message(Exit::BadInput, lines.join("\n"))
}

/// The first lines of a file that is written.
pub(super) fn written_header(original: &str) -> String {
    format!(
        "# Made by `portcullis compose` ({}) from {}: do not edit. Change {} and run `portcullis compose add --apply`.\n\
         # COMPOSE_FILE in .env names this file, so plain docker-compose commands use it.\n",
        env!("CARGO_PKG_VERSION"),
        original.escape_debug(),
        original.escape_debug(),
    )
}
