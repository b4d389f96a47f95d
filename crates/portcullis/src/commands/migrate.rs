//! `portcullis migrate`: the way to STRICT, one safe namespace after another.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_api::Timestamp;
use portcullis_policy::PolicySet;
use portcullis_report::Status;
use portcullis_report::migrate::{Flags, Forced, Migration, Namespace, Options, Standing, Suggestion};
use portcullis_report::readiness::{self, Readiness};

use super::age;
use super::observed::{Observed, ObservedArgs, exit_of};
use super::resources::folder::{Folder, FolderArgs, refuse};
use super::resources::guard::notice;
use super::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output::{self, OutputFormat};

/// Go to STRICT one namespace after another: what is ready, what blocks the others, and the policy to apply next
///
/// The steps are those of Istio's guide: PERMISSIVE for the mesh, watch, STRICT for one namespace after another, watch each, STRICT for the
/// mesh. Policies are those of the folder; who would be refused is known from what the sidecars observed, as with `readiness`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis migrate plan --policies policies --proxies proxies.txt
  portcullis migrate status -c cart.yaml
  portcullis migrate next --policies policies | portcullis apply -f - --policies policies --guard 10m")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the namespaces in the order in which to switch them: those that are ready first, and what blocks the others
    ///
    /// 0: nothing blocks. 80: a namespace has clients that STRICT would refuse. 69: a sidecar did not answer. 81: too little was observed.
    #[command(after_long_help = "Examples:
  portcullis migrate plan --policies policies --admin 127.0.0.1:15000
  portcullis migrate plan -c cart.yaml --docker --window 14d -o markdown > plan.md")]
    Plan(Common),
    /// Say which step the mesh is in, for how long namespaces have been PERMISSIVE, and what blocks
    ///
    /// 0: all is STRICT, or something can be switched now. 80, 69, 81 as with `plan`: nothing can.
    #[command(after_long_help = "Examples:
  portcullis migrate status --policies policies --proxies proxies.txt
  portcullis migrate status -c cart.yaml -o json")]
    Status(Common),
    /// Print the policy for the next namespace that can be switched safely, as YAML; nothing if there is none: 80, 69 or 81
    #[command(after_long_help = "Examples:
  portcullis migrate next --policies policies | portcullis apply -f - --policies policies --guard 10m
  portcullis migrate next -n shop --policies policies --write next
  portcullis migrate next --policies policies --force-namespace legacy --reason 'switched off on Friday, owner informed'")]
    Next(Next),
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    observed: ObservedArgs,
}

#[derive(Debug, clap::Args)]
struct Next {
    /// Write it into this folder instead, as NAMESPACE.peerauthentication.NAME.yaml
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    write: Option<PathBuf>,
    /// Switch this namespace although it is not ready
    #[arg(long, value_name = "NS", value_parser = values::namespace, requires = "reason")]
    force_namespace: Option<String>,
    /// Why it is forced; it becomes an annotation of the policy
    #[arg(long, value_name = "TEXT", requires = "force_namespace", value_parser = values::reason)]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Plan(common) => plan(common),
        Command::Status(common) => status(common),
        Command::Next(next) => self::next(next),
    }
}

fn plan(common: &Common) -> Outcome {
    let migration = common.load(None)?;
    print(&migration, common.observed.format(), common.observed.form())?;
    let wanted = |it: &&Namespace| common.observed.namespace().is_none_or(|namespace| namespace == it.namespace);
    let worst = migration.namespaces.iter().filter(wanted).map(|it| it.standing.status()).max();
    let silent = (!migration.unanswered.is_empty()).then_some(Status::Unreachable);
    Ok(exit_of(worst.max(silent).unwrap_or(Status::TooLittle), Exit::NotReady))
}

fn status(common: &Common) -> Outcome {
    let migration = common.load(None)?;
    if matches!(common.observed.format(), OutputFormat::Table) {
        output::text(&status_text(&migration))?;
    } else {
        print(&migration, common.observed.format(), common.observed.form())?;
    }
    Ok(exit_of(migration.status, Exit::NotReady))
}

fn print(migration: &Migration, format: OutputFormat, form: portcullis_report::Form) -> Result<(), Failure> {
    if matches!(format, OutputFormat::Junit | OutputFormat::Sarif) && migration.namespaces.is_empty() {
        output::note("no sidecar was seen");
    }
    Ok(output::text(&migration.render(form).map_err(|error| Failure::new(Exit::Failure, error))?)?)
}

fn status_text(migration: &Migration) -> String {
    let days = |seconds: Option<u64>| {
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        seconds.map_or_else(String::new, |seconds| format!(" for {}", age::short(seconds as f64)))
    };
    let mesh = migration.mesh_mode;
    let mut text = format!("{}\n{}\n\n", migration.headline(), migration.outlook());
    text.push_str(&format!("mesh: {mesh}{}\n", days(migration.mesh_mode_seconds)));
    for it in &migration.namespaces {
        let word = match it.standing {
            Standing::Done => String::new(),
            standing => format!(": {}", standing.as_str()),
        };
        text.push_str(&format!("{}: {}{}{word}\n", it.namespace, it.mode, days(it.mode_seconds)));
        for blocker in &it.blockers {
            text.push_str(&format!("  {} -> {}:{}\n", blocker.client, blocker.workload, blocker.port));
        }
        it.unknown.iter().for_each(|why| text.push_str(&format!("  {why}\n")));
        it.exceptions.iter().for_each(|it| text.push_str(&format!("  EXCEPTION {it}\n")));
        it.undocumented.iter().for_each(|it| text.push_str(&format!("  not documented: {it}\n")));
    }
    for missing in &migration.unanswered {
        text.push_str(&format!("no answer from {}: {}\n", missing.address, missing.message));
    }
    text
}

fn next(args: &Next) -> Outcome {
    let format = args.common.observed.format();
    if !matches!(format, OutputFormat::Table | OutputFormat::Yaml | OutputFormat::Json) {
        return Err(Failure::message(Exit::Usage, "`next` prints a policy: -o yaml or json"));
    }
    let forced = args.force_namespace.clone().zip(args.reason.clone());
    let forced = forced.map(|(namespace, reason)| Forced { namespace, reason });
    let migration = args.common.load(forced.as_ref())?;
    if let Some(forced) = &forced {
        // Another policy than the one that was asked for must not reach who reads this.
        let suggested = migration.next.as_ref().map(|suggestion| suggestion.namespace.as_str());
        if suggested != Some(forced.namespace.as_str()) {
            return Err(nothing_to_force(&forced.namespace, &migration));
        }
    }
    output::note(&migration.headline());
    output::note(&migration.outlook());
    let Some(suggestion) = &migration.next else {
        for it in &migration.namespaces {
            it.blockers.iter().for_each(|by| {
                output::note(&format!("{}: {} -> {}:{}", it.namespace, by.client, by.workload, by.port));
            });
            it.unknown.iter().for_each(|why| output::note(&format!("{}: {why}", it.namespace)));
        }
        return Ok(exit_of(migration.status, Exit::NotReady));
    };
    for it in
        migration.namespaces.iter().filter(|it| forced.as_ref().is_some_and(|forced| it.namespace == forced.namespace))
    {
        for by in &it.blockers {
            output::note(&format!("warning: this refuses {} at {}:{}", by.client, by.workload, by.port));
        }
    }
    give(args, suggestion, format)?;
    Ok(Exit::Ok)
}

fn nothing_to_force(namespace: &str, migration: &Migration) -> Failure {
    let known: Vec<&str> = migration.namespaces.iter().map(|it| it.namespace.as_str()).collect();
    let message = if known.contains(&namespace) {
        format!("namespace {namespace:?} has nothing to force: it is STRICT already, or its turn has not come")
    } else {
        format!("no sidecar is in namespace {namespace:?}; there are: {}", known.join(", "))
    };
    Failure::message(Exit::BadInput, message)
}

fn give(args: &Next, suggestion: &Suggestion, format: OutputFormat) -> Result<(), Failure> {
    let yaml = suggestion.yaml();
    if let Some(folder) = &args.write {
        let path = folder.join(suggestion.file_name());
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, yaml)).with_context(|| path.display().to_string())?;
        return Ok(output::text(&format!("{}\n", path.display()))?);
    }
    if matches!(format, OutputFormat::Json) {
        let value: serde_json::Value = serde_yaml::from_str(&yaml).context("the policy")?;
        return Ok(output::json(&value)?);
    }
    Ok(output::text(&yaml)?)
}

impl Common {
    fn load(&self, forced: Option<&Forced>) -> Result<Migration, Failure> {
        let folder = self.folder.read()?;
        if let Some(notice) = notice(&folder.path) {
            output::note(&format!("warning: {notice}"));
        }
        let checked = folder.check();
        refuse(&checked.errors)?;
        // What is open for an hour is no step back.
        let set = checked.set.without_break_glass();
        let Observed { answers, names, now } = self.observed.load()?;
        let options = readiness::Options {
            window: self.observed.window(),
            min_observation: self.observed.min_observation(),
            // Whether the mesh is done is a matter of all of them.
            namespace: None,
            now,
        };
        let readiness = Readiness::new(&answers, &names, &[], &options);
        let (folder_flags, observed) = (self.folder.flags(), self.observed.flags());
        let proxies = self.observed.proxies_flags();
        Ok(Migration::new(&Options {
            set: &set,
            mesh: &folder.mesh,
            readiness: &readiness,
            written: &written(&folder, &set),
            now,
            namespace: self.observed.namespace(),
            forced,
            flags: Flags { folder: folder_flags.as_str(), observed: observed.as_str(), proxies: proxies.as_str() },
        }))
    }
}

/// When the files of policies were last written.
fn written(folder: &Folder, set: &PolicySet) -> BTreeMap<String, Timestamp> {
    let files = folder.files.iter().filter(|file| set.policies().iter().any(|policy| policy.file == file.path));
    let time = |path: &str| files::written(Path::new(path)).map(Timestamp::from_unix);
    files.filter_map(|file| Some((file.path.clone(), time(&file.path)?))).collect()
}
