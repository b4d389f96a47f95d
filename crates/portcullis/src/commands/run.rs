//! `portcullis run -- CMD`: an app that starts when its sidecar is ready, and a job whose sidecar ends with it.
//!
//! It runs as PID 1 in place of the app, so it forwards signals, reaps orphans, and ends with the exit code of the app.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use super::wait;
use crate::exit::{Exit, Outcome};
use crate::output;
use crate::ready::Waited;
use crate::signals::{Signals, ended_children};
use portcullis_discovery::Url;

/// Signals that are forwarded to the program.
const FORWARDED: [Signal; 8] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::CONT];
/// Signals that a terminal sends to its whole foreground process group, the program included.
const TERMINAL_SIGNALS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::WINCH];
/// The default of `--quit-proxy`: Istio's admin port.
const ADMIN: &str = "http://127.0.0.1:15000";
/// The deadline of one attempt to end the proxy.
const QUIT_TIMEOUT: Duration = Duration::from_secs(3);
const QUIT_ATTEMPTS: u32 = 3;
const QUIT_PAUSE: Duration = Duration::from_millis(300);

/// Run a program once the proxy is ready, and exit with its exit code
///
/// Signals are forwarded to it and orphans are reaped, so this works as PID 1. The exit code is that of the program; 128 plus
/// the number of the signal that ended it; 126 if it cannot be executed, 127 if it is not found. If the proxy is not ready in
/// time, the program is not started: 1, or 69 without an answer. A signal during the wait ends this command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis run -- /app --port 8080
  portcullis run --timeout 5m --quit-proxy -- /job --once
  ENTRYPOINT [\"/portcullis\", \"run\", \"--\", \"/app\"]")]
pub(crate) struct Args {
    #[command(flatten)]
    proxy: wait::Proxy,
    /// Shut down the proxy when the program has ended or cannot be started: for a job, whose sidecar would run for ever.
    /// ADMIN_URL is the proxy's admin address [default: http://127.0.0.1:15000]
    #[arg(long, value_name = "ADMIN_URL", value_parser = Url::parse, value_hint = clap::ValueHint::Url, num_args = 0..=1,
        require_equals = true,
        default_missing_value = ADMIN)]
    quit_proxy: Option<Url>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_hint = clap::ValueHint::CommandName)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let exit = runtime.block_on(async {
        // SIGCHLD too, before there is a child: it may end at once.
        let wanted: Vec<_> = FORWARDED.into_iter().chain([Signal::CHILD]).collect();
        let mut signals = Signals::listen(&wanted).context("cannot listen to signals")?;
        if let Waited::Signalled(signal) = args.proxy.ready(&mut signals).await? {
            return Ok(Err(signal));
        }
        Ok::<_, crate::exit::Failure>(Ok(program(&args.command, &mut signals).await))
    })?;
    match exit {
        Ok(exit) => {
            if let Some(admin) = &args.quit_proxy {
                quit(&admin.with_path("/quitquitquit"));
            }
            Ok(exit)
        }
        // Nothing was run, so the proxy stays.
        Err(signal) => Ok(Exit::killed_by(signal.as_raw())),
    }
}

/// Runs it to its end.
async fn program(command: &[OsString], signals: &mut Signals) -> Exit {
    let Some((name, arguments)) = command.split_first() else {
        return Exit::Usage;
    };
    let started = match Command::new(name).args(arguments).spawn() {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            output::note(&format!("error: cannot run {}: {error}", name.to_string_lossy()));
            return Exit::Program(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    // On a terminal the program has received these already; a second Ctrl-C could mean more to it than one.
    let has_terminal = io::stdin().is_terminal();
    loop {
        match signals.next().await {
            Signal::CHILD => {
                // All of them, since signals of several children can be merged into one.
                let own = ended_children().filter(|(child, _)| *child == started).last();
                if let Some((_, status)) = own {
                    return exit_of(status);
                }
            }
            signal if has_terminal && TERMINAL_SIGNALS.contains(&signal) => {}
            signal => {
                // Not reaped yet, so the number is still its own.
                if let Err(error) = kill_process(started, signal) {
                    output::note(&format!("cannot forward signal {}: {error}", signal.as_raw()));
                }
            }
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Program(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => Exit::killed_by(signal),
        (None, None) => Exit::Failure,
    }
}

/// Asks the proxy to shut down. A failure is only a warning: the exit code is that of the program.
fn quit(url: &Url) {
    let mut last = String::new();
    for attempt in 0..QUIT_ATTEMPTS {
        if attempt > 0 {
            thread::sleep(QUIT_PAUSE);
        }
        match url.post(QUIT_TIMEOUT) {
            Ok(answer) if (200..300).contains(&answer.status) => return,
            Ok(answer) => {
                last = format!("it answered {}: {}", answer.status, answer.body.trim().escape_debug());
                break;
            }
            // It may have ended already, but an unreachable address does not prove it.
            Err(error) => last = error.to_string(),
        }
    }
    output::note(&format!("warning: the proxy was not asked to shut down: POST {url}: {last}"));
}
