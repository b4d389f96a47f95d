//! Asking running proxies: where they are, who answers, and who does not. Shared by the commands that do it.

use std::future::Future;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_api::ProxyInfo;
use portcullis_discovery::{
    AdminAddress, ContainerNames, DEFAULT_ENGINE, Discovered, Row, Sidecar, SidecarSource, SidecarTarget,
    StackContainer, Unanswered, ask, defaults, find, stacks,
};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use super::again::{self, Flags};
use super::values;
use crate::exit::{Exit, Failure};
use crate::output::{self, MissingAnswer};

/// A list of proxies, for all commands: what `--proxies` takes.
const LIST_VARIABLE: &str = "PORTCULLIS_PROXIES";
/// How long an answer may take before a person is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Where running proxies are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where the proxies are")]
pub(crate) struct ProxiesArgs {
    /// Admin address of a proxy: HOST, HOST:PORT, http://HOST:PORT or unix:PATH; may be repeated [default: $PORTCULLIS_PROXIES, which
    /// takes what --proxies takes; else unix:/run/portcullis/admin.sock if it is there; else 127.0.0.1:15000]
    #[arg(long = "admin", value_name = "ADDRESS", value_parser = AdminAddress::parse)]
    admin: Vec<AdminAddress>,
    /// A file with an admin address on each line, or in a YAML list; or dns:NAME or dns:NAME:PORT: every address of a name. May be repeated
    #[arg(long, value_name = "FILE|dns:NAME", value_parser = SidecarSource::parse, value_hint = ValueHint::FilePath)]
    proxies: Vec<SidecarSource>,
    /// Ask a container engine which containers are proxies (label portcullis.sidecar-of, as `compose add` writes it), and what
    /// containers are called [default socket: that of $DOCKER_HOST, else /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, value_hint = ValueHint::FilePath)]
    docker: Option<Option<PathBuf>>,
    /// With --docker: only the proxies of this compose project
    #[arg(long, value_name = "NAME", requires = "docker")]
    project: Option<String>,
    /// How long each proxy may take to answer, such as 500ms or 10s
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, default_value = "3s")]
    timeout: Duration,
}

/// The proxies that were found.
pub(crate) struct Mesh {
    runtime: Runtime,
    found: Discovered,
    within: Duration,
}

/// One answer, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) target: SidecarTarget,
    pub(crate) value: T,
}

/// What all of them say.
pub(crate) struct Answers<T> {
    /// In the order of the proxies, at least one.
    pub(crate) answers: Vec<Answer<T>>,
    /// Those without an answer.
    pub(crate) unanswered: Vec<MissingAnswer>,
    /// What the engine calls its containers, if it was asked.
    pub(crate) containers: ContainerNames,
}

impl ProxiesArgs {
    /// Whether the command line says where proxies are.
    pub(crate) fn is_named(&self) -> bool {
        !self.admin.is_empty() || !self.proxies.is_empty() || self.docker.is_some()
    }

    /// Whether a container engine is asked, and nothing else.
    pub(crate) fn is_engine_alone(&self) -> bool {
        self.admin.is_empty() && self.proxies.is_empty() && self.docker.is_some()
    }

    /// The flags that were given.
    pub(crate) fn flags(&self) -> Flags {
        let flags = self.admin.iter().fold(Flags::default(), |flags, address| flags.with("--admin", Some(address)));
        let list = |source: &SidecarSource| match source {
            SidecarSource::File(path) => path.display().to_string(),
            SidecarSource::Dns { name, port } => format!("dns:{name}:{port}"),
            SidecarSource::Address(address) => address.to_string(),
            SidecarSource::Engine { socket, .. } => socket.display().to_string(),
        };
        let flags = self.proxies.iter().fold(flags, |flags, source| flags.with("--proxies", Some(list(source))));
        let socket = self.docker.as_ref().map(|socket| socket.as_ref().map(|path| path.display()));
        let timeout = (self.timeout != TIMEOUT).then(|| again::duration(self.timeout));
        flags.with_optional("--docker", socket).with("--project", self.project.as_ref()).with("--timeout", timeout)
    }

    /// Looks for the proxies.
    ///
    /// # Errors
    /// If a list is wrong or cannot be read, or has none.
    pub(crate) fn find(&self) -> Result<Mesh, Failure> {
        let sources = self.sources()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let found = runtime.block_on(patiently("looking for proxies".to_owned(), find(&sources, self.timeout)));
        let found = found.map_err(|error| Failure::new(source_exit(&error), error))?;
        Ok(Mesh { runtime, found, within: self.timeout })
    }

    /// The proxies at these addresses, whatever the command line names.
    pub(crate) fn of(&self, addresses: Vec<AdminAddress>) -> Result<Mesh, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let targets = addresses.into_iter().map(|address| SidecarTarget { address, name: None }).collect();
        Ok(Mesh { runtime, found: Discovered { targets, ..Discovered::default() }, within: self.timeout })
    }

    /// Finds the proxies and asks each of them.
    ///
    /// # Errors
    /// As [`find`](Self::find) and [`Mesh::ask`].
    pub(crate) fn ask<T, F, Fut>(&self, question: F) -> Result<Answers<T>, Failure>
    where
        F: Fn(Sidecar) -> Fut,
        Fut: Future<Output = Result<T, Unanswered>> + Send + 'static,
        T: Send + 'static,
    {
        self.find()?.ask(question)
    }

    /// The containers of compose projects that have sidecars, if an engine is to be asked, or why it does not say.
    pub(crate) fn stacks(&self, mesh: &Mesh) -> Option<Result<Vec<StackContainer>, String>> {
        let socket = self.docker.as_ref()?.clone().unwrap_or_else(engine_socket);
        let found = mesh.block_on(stacks(&socket, self.project.as_deref(), self.timeout));
        Some(found.map_err(|error| format!("{}: {error}", socket.display())))
    }

    fn sources(&self) -> Result<Vec<SidecarSource>, Failure> {
        let mut sources: Vec<SidecarSource> = self.admin.iter().cloned().map(SidecarSource::Address).collect();
        sources.extend(self.proxies.iter().cloned());
        if let Some(socket) = &self.docker {
            let socket = socket.clone().unwrap_or_else(engine_socket);
            sources.push(SidecarSource::Engine { socket, project: self.project.clone() });
        }
        if sources.is_empty() {
            let listed = std::env::var(LIST_VARIABLE).ok();
            let source = defaults(listed.as_deref(), |socket| socket.exists());
            sources.push(source.with_context(|| format!("${LIST_VARIABLE}")).map_err(Failure::usage)?);
        }
        Ok(sources)
    }
}

/// The socket of the container engine that docker's own commands use.
pub(crate) fn engine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").ok();
    let host = host.as_deref().and_then(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    host.unwrap_or_else(|| DEFAULT_ENGINE.into())
}

/// A list that is wrong is bad input; what does not answer is unreachable.
fn source_exit(error: &portcullis_discovery::SourceError) -> Exit {
    use portcullis_discovery::SourceError as Error;
    match error {
        Error::File { .. } | Error::Lines(_) => Exit::BadInput,
        Error::Engine { error: portcullis_discovery::EngineError::Denied, .. } => Exit::NoPermission,
        Error::Dns { .. } | Error::Engine { .. } | Error::Empty(_) => Exit::Unreachable,
    }
}

impl Mesh {
    /// Asks each proxy. Those that do not answer are told on standard error, and are part of the result.
    ///
    /// # Errors
    /// If none answers.
    pub(crate) fn ask<T, F, Fut>(&self, question: F) -> Result<Answers<T>, Failure>
    where
        F: Fn(Sidecar) -> Fut,
        Fut: Future<Output = Result<T, Unanswered>> + Send + 'static,
        T: Send + 'static,
    {
        let answers = self.rows(question);
        if answers.answers.is_empty() {
            let why = answers.unanswered.iter().map(not_answered).collect::<Vec<_>>().join("\n  ");
            let message = format!(
                "no proxy answers:\n  {why}\nName one with --admin ADDRESS, or see --help for lists of proxies"
            );
            return Err(Failure::message(Exit::Unreachable, message));
        }
        for missing in &answers.unanswered {
            output::note(&format!("warning: {}", not_answered(missing)));
        }
        Ok(answers)
    }

    /// Asks each proxy, and says nothing about those that do not answer.
    pub(crate) fn rows<T, F, Fut>(&self, question: F) -> Answers<T>
    where
        F: Fn(Sidecar) -> Fut,
        Fut: Future<Output = Result<T, Unanswered>> + Send + 'static,
        T: Send + 'static,
    {
        self.rows_of(&self.found.targets, question)
    }

    /// Asks only some of the proxies.
    pub(crate) fn rows_of<T, F, Fut>(&self, targets: &[SidecarTarget], question: F) -> Answers<T>
    where
        F: Fn(Sidecar) -> Fut,
        Fut: Future<Output = Result<T, Unanswered>> + Send + 'static,
        T: Send + 'static,
    {
        let Self { runtime, found, within } = self;
        let asking = match targets {
            [one] => format!("asking {}", one.address),
            targets => format!("asking {} proxies", targets.len()),
        };
        let rows = runtime.block_on(patiently(asking, ask(targets, *within, question)));
        let (mut answers, mut unanswered) = (Vec::new(), Vec::new());
        for Row { target, answer } in rows {
            match answer {
                Ok(value) => answers.push(Answer { target, value }),
                Err(why) => unanswered.push(missing(target, &why)),
            }
        }
        Answers { answers, unanswered, containers: found.containers.clone() }
    }

    /// Asks some of the proxies in silence: for those who ask again and again. In the order of `targets`.
    pub(crate) fn poll<T, F, Fut>(&self, targets: &[SidecarTarget], question: F) -> Vec<Row<T>>
    where
        F: Fn(Sidecar) -> Fut,
        Fut: Future<Output = Result<T, Unanswered>> + Send + 'static,
        T: Send + 'static,
    {
        self.runtime.block_on(ask(targets, self.within, question))
    }

    /// Every proxy.
    pub(crate) fn targets(&self) -> &[SidecarTarget] {
        &self.found.targets
    }

    /// What the engine calls its containers, if it was asked.
    pub(crate) const fn containers(&self) -> &ContainerNames {
        &self.found.containers
    }

    /// Runs something else in the runtime in which proxies are asked.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Containers on the networks of sidecars that have none, by name; none if no engine was asked.
    pub(crate) fn containers_without_sidecar(&self) -> Option<&[String]> {
        self.found.without_sidecar.as_deref()
    }

    /// Waits between two rounds of questions.
    pub(crate) fn pause(&self, pause: Duration) {
        // Within the runtime: a sleep needs its clock from the start.
        self.runtime.block_on(async { sleep(pause).await });
    }
}

fn missing(target: SidecarTarget, why: &Unanswered) -> MissingAnswer {
    let SidecarTarget { address, name } = target;
    MissingAnswer { address: address.to_string(), name, reason: why.reason(), message: why.to_string() }
}

/// `cart (10.0.0.1:15000): connection refused`.
fn not_answered(MissingAnswer { address, name, message, .. }: &MissingAnswer) -> String {
    match name {
        Some(name) => format!("{name} ({address}): {message}"),
        None => format!("{address}: {message}"),
    }
}

/// Waits for `work`. A person who waits longer than a second is told for what.
async fn patiently<T>(doing: String, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if let Ok(done) = timeout(PATIENCE, &mut work).await {
        return done;
    }
    if std::io::stderr().is_terminal() {
        output::note(&format!("{doing} ..."));
    }
    work.await
}

/// Whose answers the sidecar gives.
///
/// # Errors
/// If it does not answer, or is of a version that does not say so.
pub(crate) async fn proxy_info(sidecar: &Sidecar) -> Result<ProxyInfo, Unanswered> {
    let page = "/server_info";
    let proxy: ProxyInfo = sidecar.get(page).await?;
    if proxy.name.is_empty() {
        return Err(Unanswered::TooOld(format!("the name of its workload in {page}")));
    }
    Ok(proxy)
}
