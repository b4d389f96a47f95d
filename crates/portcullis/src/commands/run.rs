//! `portcullis run -- CMD`: an app that starts when its sidecar is ready, and a job whose sidecar ends with it.
//!
//! It stands as PID 1 before the app, so it has to do what the app would have had done for it as PID 1: signals reach it,
//! orphans are reaped, and its exit code is the container's.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitStatus, kill_process};

use super::{Outcome, wait};
use crate::exit::Exit;
use crate::http::Url;
use crate::output;
use crate::ready::Waited;
use crate::signals::{Signals, ended_children};

/// What is passed on: whatever somebody sends on purpose.
const PASSED_ON: [Signal; 8] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::CONT];
/// What a terminal sends to all processes before it, the app among them.
const OF_A_TERMINAL: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::WINCH];
/// The default of `--quit-proxy`: Istio's admin port.
const ADMIN: &str = "http://127.0.0.1:15000";
/// One of the attempts to tell the proxy to end.
const QUIT_WITHIN: Duration = Duration::from_secs(3);
const QUIT_ATTEMPTS: u32 = 3;
const QUIT_PAUSE: Duration = Duration::from_millis(300);

/// Run a program once the proxy is ready, and end as it ends
///
/// Signals are passed on to it, orphans are reaped (it works as PID 1), and its exit code is ours: 128 and the number of the
/// signal that ended it; 126 if it cannot be executed, 127 if it is not there. If the proxy is not ready in time, nothing is
/// started: 1, or 69 if nobody answers. A signal that comes while we wait ends us.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis run -- /app --port 8080
  portcullis run --timeout 5m --quit-proxy -- /job --once
  ENTRYPOINT [\"/portcullis\", \"run\", \"--\", \"/app\"]")]
pub(crate) struct Args {
    #[command(flatten)]
    proxy: wait::Proxy,
    /// When the program has ended, or cannot be started, end the proxy: for a job, whose sidecar would run for ever.
    /// ADMIN_URL is its admin address [default: http://127.0.0.1:15000]
    #[arg(long, value_name = "ADMIN_URL", value_parser = Url::parse, num_args = 0..=1, require_equals = true,
        default_missing_value = ADMIN)]
    quit_proxy: Option<Url>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let exit = runtime.block_on(async {
        // Children too, and before there is one: it may end at once.
        let wanted: Vec<_> = PASSED_ON.into_iter().chain([Signal::CHILD]).collect();
        let mut signals = Signals::listen(&wanted).context("cannot listen to signals")?;
        if let Waited::Ended(signal) = args.proxy.ready(&mut signals).await? {
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
        // Nothing was run, so nobody has a reason to end the proxy.
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
    // Before a terminal the program has got these already; a second Ctrl-C would mean more than the first.
    let has_terminal = io::stdin().is_terminal();
    loop {
        match signals.next().await {
            Signal::CHILD => {
                // All of them, since one signal may stand for several.
                let own = ended_children().filter(|(child, _)| *child == started).last();
                if let Some((_, status)) = own {
                    return exit_of(status);
                }
            }
            signal if has_terminal && OF_A_TERMINAL.contains(&signal) => {}
            signal => {
                // Not reaped yet, so the number is still its own.
                if let Err(error) = kill_process(started, signal) {
                    output::note(&format!("cannot pass signal {} on: {error}", signal.as_raw()));
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

/// Tells the proxy to end. What the program came to is what counts: if this fails, it is only said.
fn quit(url: &Url) {
    let mut last = String::new();
    for attempt in 0..QUIT_ATTEMPTS {
        if attempt > 0 {
            thread::sleep(QUIT_PAUSE);
        }
        match url.post(QUIT_WITHIN) {
            Ok(answer) if (200..300).contains(&answer.status) => return,
            Ok(answer) => {
                last = format!("it answered {}: {}", answer.status, answer.body.trim().escape_debug());
                break;
            }
            // Gone is what was wanted; but nobody knows whether that is why nobody answers.
            Err(error) => last = error.to_string(),
        }
    }
    output::note(&format!("warning: the proxy was not told to end: POST {url}: {last}"));
}
