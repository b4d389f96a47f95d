//! The policy folder: found, read, and checked as the proxy would check it.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_manifest::{Plan, TextFile};
use portcullis_policy::{Diagnostic, MeshSettings, ParsedSource, PolicySet, Source};
use portcullis_tls::{Clock, check_extra_roots};

use crate::commands::again::Flags;
use crate::commands::subject::MeshArgs;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure};
use crate::files::Policies;

/// Which folder.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct FolderArgs {
    /// The proxy's configuration, which names the policy folder
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The policy folder [default: `policies` of the configuration]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    policies: Option<PathBuf>,
    #[command(flatten)]
    mesh: MeshArgs,
}

/// The folder as it is.
pub(in crate::commands) struct Folder {
    pub(in crate::commands) path: PathBuf,
    pub(in crate::commands) mesh: MeshSettings,
    pub(in crate::commands) files: Vec<TextFile>,
    /// ServiceEntries of the configuration.
    pub(in crate::commands) services: Option<ParsedSource>,
}

/// Where it is, and what the configuration says besides.
struct Place {
    path: PathBuf,
    mesh: MeshSettings,
    services: Option<ParsedSource>,
}

impl FolderArgs {
    /// The flags that were given.
    pub(in crate::commands) fn flags(&self) -> Flags {
        Flags::default()
            .with("-c", self.config.as_ref().map(|path| path.display()))
            .with("--policies", self.policies.as_ref().map(|path| path.display()))
            .with("--root-namespace", self.mesh.root_namespace.as_ref())
            .with("--default-mode", self.mesh.default_mode)
    }

    /// Finds it.
    pub(in crate::commands) fn path(&self) -> Result<PathBuf, Failure> {
        Ok(self.find()?.path)
    }

    /// Finds and reads it.
    pub(in crate::commands) fn read(&self) -> Result<Folder, Failure> {
        let Place { path, mesh, services } = self.find()?;
        let Policies { sources, errors } = Policies::read(std::slice::from_ref(&path));
        refuse(&errors)?;
        let files = sources.into_iter().map(text_file).collect::<Result<_, _>>()?;
        Ok(Folder { path, mesh, files, services })
    }

    fn find(&self) -> Result<Place, Failure> {
        let source = if self.policies.is_some() && self.config.is_none() {
            None
        } else {
            ConfigSource::find(self.config.as_deref())
        };
        let settings = source.map(|source| source.load().map(|loaded| loaded.settings)).transpose()?;
        let (named, mesh, services) = match settings {
            Some(settings) => (settings.policies, settings.mesh.policy, settings.services),
            None => (None, MeshSettings::default(), None),
        };
        let path = self.policies.clone().or(named).ok_or_else(|| {
            let message = "there is no policy folder: name it with --policies DIR, or the proxy's configuration (-c FILE, or \
                           $PORTCULLIS_CONFIG)";
            Failure::message(Exit::Usage, message)
        })?;
        if !path.is_dir() {
            let message = format!("{}: there is no such folder; create it first", path.display());
            return Err(Failure::message(Exit::BadInput, message));
        }
        Ok(Place { path, mesh: self.mesh.or(mesh), services })
    }
}

/// The text of a source: whatever is no text is refused.
pub(in crate::commands) fn text_file(source: Source) -> Result<TextFile, Failure> {
    let Source { file, text } = source;
    match String::from_utf8(text) {
        Ok(text) => Ok(TextFile { path: file, text }),
        Err(_) => Err(Failure::message(Exit::BadInput, format!("{file}: is not text in UTF-8"))),
    }
}

/// Refuses with every error, one on a line.
pub(in crate::commands) fn refuse(errors: &[Diagnostic]) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Failure::message(Exit::BadInput, lines.join("\nerror: ")))
}

/// A set as the proxy would see it.
pub(in crate::commands) struct Checked {
    pub(in crate::commands) set: PolicySet,
    pub(in crate::commands) errors: Vec<Diagnostic>,
    pub(in crate::commands) warnings: Vec<Diagnostic>,
}

impl Folder {
    pub(in crate::commands) fn shown_path(&self) -> String {
        self.path.display().to_string()
    }

    /// The files as they are.
    pub(in crate::commands) fn check(&self) -> Checked {
        self.check_files(self.files.iter())
    }

    /// The files as they would be.
    pub(in crate::commands) fn check_with(&self, plan: &Plan) -> Checked {
        let kept = self.files.iter().filter(|file| !plan.files.contains_key(&file.path));
        let changed = plan
            .files
            .iter()
            .filter_map(|(path, change)| Some(TextFile { path: path.clone(), text: change.after.clone()? }));
        let mut files: Vec<TextFile> = kept.cloned().chain(changed).collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        self.check_files(files.iter())
    }

    fn check_files<'f>(&self, files: impl Iterator<Item = &'f TextFile>) -> Checked {
        let parsed: Vec<ParsedSource> = files.map(|file| ParsedSource::new(&file.path, file.text.as_bytes())).collect();
        let now = Clock::system().now_unix();
        let loaded = PolicySet::assemble(parsed.iter().chain(self.services.as_ref())).at(now);
        let roots = check_extra_roots(loaded.set.mesh(), now);
        Checked {
            errors: loaded.errors.into_iter().chain(roots.errors).collect(),
            warnings: loaded.warnings.into_iter().chain(roots.warnings).collect(),
            set: loaded.set,
        }
    }
}
