//! What a daemon tells the service manager that started it: sd_notify(3), the protocol of `Type=notify` and `WatchdogSec=`.
//!
//! One datagram to `$NOTIFY_SOCKET` for each change. Without that variable nothing is sent. The socket is opened before the sandbox,
//! in which no further file can be reached. A manager that does not read delays nothing but the end, by a second.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the readiness of a daemon that is starting is looked at.
const STARTING: Duration = Duration::from_millis(100);
/// How often it is looked at afterwards, if no watchdog asks for more.
const RUNNING: Duration = Duration::from_secs(5);
/// A manager that does not read for this long is not told of the end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The service manager, or nobody.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// The manager ends a daemon that has not pinged for this long.
    watchdog: Option<Duration>,
    /// Why there is no socket, although one is named.
    fault: Option<String>,
}

impl ServiceManager {
    /// From `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID`. Call it before the sandbox is entered.
    pub(crate) fn from_environment() -> Self {
        Self::from_variables(|name| env::var_os(name), std::process::id())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Self {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self { socket: None, watchdog: None, fault: None };
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        // The watchdog of another process, which passed its environment on.
        let foreign = number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(own_pid));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && !foreign).map(Duration::from_micros);
        match connect(&name) {
            Ok(socket) => Self { socket: Some(socket), watchdog, fault: None },
            Err(error) => Self {
                socket: None,
                watchdog: None,
                fault: Some(format!("$NOTIFY_SOCKET, {}: {error}", name.display())),
            },
        }
    }

    /// Logs why the manager cannot be told anything. Needs the log, which starts after the sandbox.
    pub(crate) fn log(&self) {
        if let Some(fault) = &self.fault {
            tracing::warn!(fault, "the service manager is not told when this process is ready");
        }
    }

    /// Follows the readiness, and pings the watchdog for as long as `late` names nothing that has stopped. Never returns.
    pub(crate) async fn follow(
        &self,
        ready: impl Fn() -> Result<(), String> + Send,
        mut late: impl FnMut() -> Option<String> + Send,
    ) {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let mut told = None;
        let mut announced = false;
        let mut pinged = Instant::now();
        loop {
            let now = ready();
            if told.as_ref() != Some(&now) {
                let sent = self.tell(&match &now {
                    Ok(()) => "READY=1\nSTATUS=ready".to_owned(),
                    Err(pending) => format!("STATUS=waiting for {}", one_line(pending)),
                });
                // What did not fit is sent again: without it the manager would wait for a daemon that is ready.
                if sent {
                    announced |= now.is_ok();
                    told = Some(now);
                }
            }
            if let Some(watchdog) = self.watchdog.filter(|watchdog| pinged.elapsed() >= *watchdog / 3) {
                pinged = Instant::now();
                match late() {
                    None => drop(self.tell("WATCHDOG=1")),
                    Some(what) => {
                        tracing::error!(
                            what,
                            ?watchdog,
                            "does not run; the service manager is not told that all is well"
                        );
                        let _sent = self.tell(&format!("STATUS={what} does not run"));
                        told = None;
                    }
                }
            }
            let pause = if announced { RUNNING } else { STARTING };
            sleep(self.watchdog.map_or(pause, |watchdog| pause.min(watchdog / 3))).await;
        }
    }

    /// Tells that the daemon is about to end. A manager that does not read delays it by a second at most.
    pub(crate) async fn stopping(&self) {
        let end = Instant::now() + LAST_WORD;
        while !self.tell("STOPPING=1\nSTATUS=draining") && Instant::now() < end {
            sleep(LAST_WORD / 50).await;
        }
    }

    /// Whether there is nobody to tell, or the manager's queue had room: it holds few datagrams, and may be full of pings.
    fn tell(&self, state: &str) -> bool {
        self.socket.as_ref().is_none_or(|socket| {
            let sent = socket.send(state.as_bytes());
            // A manager that has gone is nothing that a daemon could do anything about.
            !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        })
    }
}

/// A path, or with `@` a name in the abstract namespace.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn manager(variables: &[(&str, &str)]) -> ServiceManager {
        let variables: BTreeMap<_, _> = variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        ServiceManager::from_variables(|name| variables.get(name).cloned(), 7)
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_pinged_only_while_everything_runs() {
        let name = format!("portcullis-test-systemd-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let variables = [("NOTIFY_SOCKET", &*format!("@{name}")), ("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "7")];
        let manager = manager(&variables);
        let (is_ready, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
        let ready = || if is_ready.load(Ordering::Relaxed) { Ok(()) } else { Err("a\nREADY=1".to_owned()) };
        let late = || stopped.load(Ordering::Relaxed).then(|| "worker 1".to_owned());
        let follow = manager.follow(ready, late);
        let steps = async {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(received(&listener), ["STATUS=waiting for a READY=1"]);
            is_ready.store(true, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(received(&listener), ["READY=1\nSTATUS=ready"]);
            sleep(Duration::from_secs(30)).await;
            let pings = received(&listener);
            assert!(pings.len() >= 2 && pings.iter().all(|ping| ping == "WATCHDOG=1"), "{pings:?}");
            stopped.store(true, Ordering::Relaxed);
            sleep(Duration::from_secs(30)).await;
            let told = received(&listener);
            assert!(told.contains(&"STATUS=worker 1 does not run".to_owned()), "{told:?}");
            assert!(!told.contains(&"WATCHDOG=1".to_owned()), "{told:?}");
        };
        tokio::select! { () = follow => unreachable!(), () = steps => {} }
    }

    /// Its queue holds ten datagrams as a rule.
    #[tokio::test(start_paused = true)]
    async fn a_manager_that_reads_late_is_told_all_the_same() {
        let name = format!("portcullis-test-late-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", &*format!("@{name}"))]);
        while manager.tell("WATCHDOG=1") {}
        let last_word = |text: &str| received(&listener).last().is_some_and(|last| last.starts_with(text));
        let steps = async {
            sleep(Duration::from_secs(2)).await;
            assert!(last_word("WATCHDOG=1"));
            sleep(Duration::from_secs(2)).await;
            assert!(last_word("READY=1"));
        };
        tokio::select! { () = manager.follow(|| Ok(()), || None) => unreachable!(), () = steps => {} }
        while manager.tell("WATCHDOG=1") {}
        let reads = async {
            sleep(LAST_WORD / 2).await;
            let _pings = received(&listener);
        };
        tokio::join!(manager.stopping(), reads);
        assert!(last_word("STOPPING=1"));
    }

    #[tokio::test]
    async fn a_manager_that_is_not_there_is_a_fault_and_none_is_nothing() {
        assert!(manager(&[]).fault.is_none());
        let gone = manager(&[("NOTIFY_SOCKET", "/nowhere/notify")]);
        assert!(gone.fault.as_deref().is_some_and(|fault| fault.contains("/nowhere/notify")), "{gone:?}");
        gone.stopping().await;
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let name = format!("portcullis-test-foreign-{}", std::process::id());
        let _listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let socket = format!("@{name}");
        let watchdog =
            |pid| manager(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", pid)]).watchdog;
        assert_eq!(watchdog("7"), Some(Duration::from_millis(1)));
        assert_eq!(watchdog("8"), None);
    }
}
