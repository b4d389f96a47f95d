//! A private folder and the processes that run in it. Both are removed when it is dropped, however the demo ends.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use anyhow::{Context as _, bail, ensure};
use portcullis_ca::{Private, write};
use tokio::signal::unix::{SignalKind, signal};

use super::log::{Log, POLL};
use portcullis_discovery::Url;

/// A sidecar, or the authority, must be ready within this.
pub(super) const START: Duration = Duration::from_secs(10);
/// Exit codes of a process that a signal ended, in the convention of shells.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// Folder and processes; dropping it removes them.
pub(super) struct Stage(Arc<Inner>);

/// Shared with the signal handler, which clears it too.
struct Inner {
    folder: PathBuf,
    keep: bool,
    /// `None` once the stage is cleared: nothing may be started then.
    children: Mutex<Option<Vec<Child>>>,
}

/// A sidecar that is ready.
pub(super) struct Sidecar {
    pub(super) log: Log,
}

impl Stage {
    /// Creates the folder, which only this user can read.
    pub(super) fn new(keep: bool) -> io::Result<Self> {
        let random = RandomState::new().hash_one(process::id());
        let folder = env::temp_dir().join(format!("portcullis-demo-{}-{random:016x}", process::id()));
        // Not recursive: a folder that another user put there must not be used.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let stage = Self(Arc::new(Inner { folder, keep, children: Mutex::new(Some(Vec::new())) }));
        clear_on_signal(Arc::clone(&stage.0))?;
        Ok(stage)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Writes a file, whole or not at all, replacing what was there.
    pub(super) fn write(&self, name: &str, content: &str, private: Private) -> anyhow::Result<()> {
        // Under the lock, so that the folder is not created again after `clear`.
        let children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(children.is_some(), "the demo is ending");
        let path = self.folder().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(write(&path, content.as_bytes(), private, true)?)
    }

    /// Starts a sidecar and waits until it is ready. `config` makes its configuration for fresh ports; `PORTS` does not
    /// count the admin port.
    pub(super) fn start<const PORTS: usize>(
        &self,
        name: &str,
        config: impl Fn([SocketAddr; PORTS]) -> String,
    ) -> anyhow::Result<(Sidecar, [SocketAddr; PORTS])> {
        let mut last = anyhow::anyhow!("it was not tried");
        // A port that was free may be taken by the time the sidecar binds it; then others are tried.
        for _ in 0..3 {
            let ([admin], ports) = free_addresses::<PORTS>()?;
            let text = format!("{}admin: {{listen: \"{admin}\"}}\nworkers: 1\n", config(ports));
            match self.start_on(name, &text, admin) {
                Ok(sidecar) => return Ok((sidecar, ports)),
                Err(error) => last = error,
            }
        }
        Err(last.context(format!("the sidecar {name} does not start")))
    }

    fn start_on(&self, name: &str, config: &str, admin: SocketAddr) -> anyhow::Result<Sidecar> {
        let (file, log) = (self.folder().join(format!("{name}.yaml")), self.folder().join(format!("{name}.log")));
        self.write(&format!("{name}.yaml"), config, Private::No)?;
        let errors = self.folder().join(format!("{name}.err"));
        let mut command = Command::new(env::current_exe().context("cannot find this program")?);
        command
            .args(["proxy", "--log-format", "json", "--log-level", "info", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::create(&errors)?);
        let id = self.spawn(&mut command)?;
        let url = Url::at(admin, "/healthz/ready");
        let deadline = Instant::now() + START;
        let content = |path: &Path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        while Instant::now() < deadline {
            if url.get(Duration::from_secs(1)).is_ok_and(|answer| answer.status == 200) {
                return Ok(Sidecar { log: Log::new(log) });
            }
            if self.has_ended(id) {
                bail!("it ended: {} {}", content(&errors), content(&log));
            }
            thread::sleep(POLL);
        }
        bail!("it is not ready after {START:?}: {} {}", content(&errors), content(&log))
    }

    pub(super) fn spawn(&self, command: &mut Command) -> anyhow::Result<u32> {
        // Under the lock, so that no process is started after `clear`.
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(children) = children.as_mut() else { bail!("the demo is ending") };
        let child = command.spawn()?;
        let id = child.id();
        children.push(child);
        Ok(id)
    }

    pub(super) fn has_ended(&self, id: u32) -> bool {
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        let child = children.iter_mut().flatten().find(|child| child.id() == id);
        child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.0.clear());
    }
}

impl Inner {
    /// Ends every process, waits for it, and removes the folder. A second call waits for the first one, by the lock that
    /// is handed out, and finds nothing to do.
    fn clear(&self) -> MutexGuard<'_, Option<Vec<Child>>> {
        let mut guard = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut children) = guard.take() else { return guard };
        for child in &mut children {
            let _ended_already = child.kill();
        }
        for child in &mut children {
            let _reaped = child.wait();
        }
        if !self.keep {
            let _gone = fs::remove_dir_all(&self.folder);
        }
        guard
    }
}

/// A signal ends the process without running any `Drop`, so the stage is cleared here first.
fn clear_on_signal(stage: Arc<Inner>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => INTERRUPTED,
                _ = terminate.recv() => TERMINATED,
            }
        });
        // Held until the end: the main thread sees its sidecars end, and must not exit with another code.
        let _held = stage.clear();
        process::exit(code);
    })?;
    Ok(())
}

/// Addresses on loopback whose ports are free now, and all different: one for the admin server, the others apart.
fn free_addresses<const PORTS: usize>() -> io::Result<([SocketAddr; 1], [SocketAddr; PORTS])> {
    let admin = TcpListener::bind("127.0.0.1:0")?;
    let mut held = Vec::new();
    let mut addresses = [admin.local_addr()?; PORTS];
    for address in &mut addresses {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(([admin.local_addr()?], addresses))
}
