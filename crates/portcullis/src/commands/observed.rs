//! What sidecars observed, for the commands that make reports of it: asked of running ones, or read from saved answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueHint;
use portcullis_api::{Observations, Timestamp};
use portcullis_discovery::{ContainerNames, Sidecar, Unanswered};
use portcullis_report::{Answer, Form, Names, Status, Window};
use portcullis_tls::Clock;

use super::again::{self, Flags};
use super::proxies::{Answers, ProxiesArgs};
use super::selection::NamespaceArgs;
use super::values;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::OutputFormat;
use crate::output::format::REPORT;

/// The page that a sidecar answers with.
const PAGE: &str = "/observations";
/// In seconds. The defaults of `--window` and `--min-observation` are a week and a day.
const DAY: u64 = 86_400;
/// Ten thousand observations take about 5 MB.
const MAX_BYTES: u64 = 64 << 20;

/// What was observed, and how it is reported.
#[derive(Debug, clap::Args)]
pub(crate) struct ObservedArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Read saved answers of /observations instead of asking proxies; `-` is standard input
    #[arg(long, value_name = "FILE", num_args = 1.., value_hint = ValueHint::FilePath, conflicts_with_all = ["admin", "proxies", "docker"])]
    from: Vec<PathBuf>,
    /// How long before now a connection counts, such as 12h or 7d
    #[arg(long, visible_alias = "since", value_name = "DURATION", value_parser = values::ttl, default_value = "7d")]
    window: Duration,
    /// How long a workload must have been observed to be called ready, such as 1d; 0s for any time
    #[arg(long, value_name = "DURATION", value_parser = values::span, default_value = "1d")]
    min_observation: Duration,
    /// Output format
    #[arg(short, long, value_parser = OutputFormat::one_of(REPORT), default_value = "table")]
    output: OutputFormat,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// What was observed.
pub(crate) struct Observed {
    pub(crate) answers: Vec<Answer>,
    /// What a container engine calls addresses.
    pub(crate) names: Names,
    pub(crate) now: Timestamp,
}

impl ObservedArgs {
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.namespace.as_deref()
    }

    /// The flags that were given, without those that say where proxies are.
    pub(crate) fn flags(&self) -> Flags {
        let given = |value: Duration, default: u64| (value.as_secs() != default).then(|| again::duration(value));
        let flags = self.from.iter().fold(Flags::default(), |flags, path| flags.with("--from", Some(path.display())));
        flags
            .with("-n", self.namespace())
            .with("--window", given(self.window, 7 * DAY))
            .with("--min-observation", given(self.min_observation, DAY))
    }

    /// Where the proxies are, as it was given.
    pub(crate) fn proxies_flags(&self) -> Flags {
        self.proxies.flags()
    }

    pub(crate) const fn window(&self) -> Window {
        Window { seconds: self.window.as_secs() }
    }

    pub(crate) const fn min_observation(&self) -> u64 {
        self.min_observation.as_secs()
    }

    pub(crate) const fn format(&self) -> OutputFormat {
        self.output
    }

    pub(crate) fn form(&self) -> Form {
        // Every word that is taken is a form.
        self.output.form().unwrap_or_default()
    }

    /// Whether standard input is one of the saved answers.
    pub(crate) fn reads_stdin(&self) -> bool {
        self.from.iter().any(|path| files::is_stdin(path))
    }

    /// Reads the saved answers, or asks.
    ///
    /// # Errors
    /// If a saved answer is none, or no proxy is found. One that does not answer is part of the result.
    pub(crate) fn load(&self) -> Result<Observed, Failure> {
        let now = Timestamp::from_unix(Clock::system().now_unix());
        if self.from.is_empty() {
            let (answers, containers) = ask(&self.proxies)?;
            let names = names(&answers, &containers);
            return Ok(Observed { answers, names, now });
        }
        let answers = self.from.iter().map(|file| saved(file)).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Observed { answers: answers.into_iter().flatten().collect(), names: Names::default(), now })
    }
}

/// The exit code of a report; `no` is that of a client that breaks.
pub(crate) const fn exit_of(status: Status, no: Exit) -> Exit {
    match status {
        Status::Ready => Exit::Ok,
        Status::TooLittle => Exit::TooLittleObserved,
        Status::Unreachable => Exit::Unreachable,
        Status::NotReady => no,
    }
}

/// What proxies observed, and what an engine calls containers.
///
/// # Errors
/// If no proxy is found. One that does not answer is part of the result.
pub(crate) fn ask(proxies: &ProxiesArgs) -> Result<(Vec<Answer>, ContainerNames), Failure> {
    let question = |sidecar: Sidecar| async move { observations(&sidecar).await };
    let Answers { answers, unanswered, containers } = proxies.find()?.rows(question);
    let answered = answers
        .into_iter()
        .map(|answer| Answer { label: answer.target.address.to_string(), observations: Ok(answer.value) });
    let silent = unanswered.into_iter().map(|missing| Answer {
        label: missing.name.map_or_else(|| missing.address.clone(), |name| format!("{name} ({})", missing.address)),
        observations: Err(missing.message),
    });
    Ok((answered.chain(silent).collect(), containers))
}

async fn observations(sidecar: &Sidecar) -> Result<Observations, Unanswered> {
    let observations: Observations = sidecar.get(PAGE).await?;
    if observations.proxy.name.is_empty() {
        return Err(Unanswered::TooOld(format!("the name of its workload in {PAGE}")));
    }
    Ok(observations)
}

/// The answers in a file: one after another, or in lists.
fn saved(file: &Path) -> Result<Vec<Answer>, Failure> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Saved {
        // First: a struct without required fields is also read from a list of its fields.
        List(Vec<Observations>),
        One(Box<Observations>),
    }
    let shown = if files::is_stdin(file) { files::STDIN.to_owned() } else { file.display().to_string() };
    let wrong = |why: String| {
        let message = format!("{shown}: {why}; save an answer with `curl http://ADMIN{PAGE} > FILE`");
        Failure::message(Exit::BadInput, message)
    };
    let text = files::read_text(file, MAX_BYTES)?;
    let mut answers = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Saved>() {
        match value.map_err(|error| wrong(format!("is no answer of {PAGE}: {error}")))? {
            Saved::One(one) => answers.push(*one),
            Saved::List(mut list) => answers.append(&mut list),
        }
    }
    if answers.is_empty() || answers.iter().any(|answer| answer.proxy.name.is_empty()) {
        return Err(wrong(format!("has no answer of {PAGE}, or one without the name of its workload")));
    }
    Ok(answers.into_iter().map(|answer| Answer { label: shown.clone(), observations: Ok(answer) }).collect())
}

/// What the engine calls the addresses that were seen.
pub(crate) fn names(answers: &[Answer], containers: &ContainerNames) -> Names {
    let seen = answers.iter().filter_map(|answer| answer.observations.as_ref().ok()).flat_map(|it| &it.observations);
    let addresses: BTreeSet<IpAddr> = seen.filter_map(|observation| observation.peer.address).collect();
    let named = |address: IpAddr| {
        Some((address, containers.get(address)?.to_owned(), Timestamp::from_unix(containers.since(address)?)))
    };
    addresses.into_iter().filter_map(named).collect()
}
