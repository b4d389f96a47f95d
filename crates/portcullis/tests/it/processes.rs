//! The commands that run beside the proxy in a container (`wait`, `run`, `hold`, `healthcheck`), as real processes: readiness,
//! signals and exit codes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{BIN, Scene, eventually, free_address, portcullis};

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Waits until it listens to a signal: before, that would end it.
    fn listening(self, signal: u32) -> Self {
        eventually("it listens to signals", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            (caught & (1 << (signal - 1)) != 0).then_some(())
        });
        self
    }

    fn ended(&mut self) -> Option<i32> {
        eventually("it ends", || self.0.try_wait().unwrap()).code()
    }

    fn children(&self) -> String {
        let id = self.0.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Stands for a proxy: answers each request with what is its turn, the last one for ever, and remembers what was asked.
struct Stub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn start(answers: &'static [(&'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let book = Arc::clone(&asked);
        thread::spawn(move || {
            let mut turns = answers.iter().chain(std::iter::repeat(answers.last().unwrap()));
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 1024];
                let length = stream.read(&mut head).unwrap_or(0);
                let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or_default().to_owned();
                book.lock().unwrap().push(line);
                let (status, body) = turns.next().unwrap();
                let _gone = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { address, asked }
    }

    fn ready() -> Self {
        Self::start(&[("200 OK", "ready\n")])
    }

    fn url(&self) -> String {
        format!("http://{}/healthz/ready", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

mod wait {
    use super::*;

    #[test]
    fn it_ends_when_the_proxy_is_ready_and_tells_each_change_once() {
        let stub = Stub::start(&[
            ("503 Service Unavailable", "pending: listeners\n"),
            ("503 Service Unavailable", "pending: listeners\n"),
            ("503 Service Unavailable", "pending: credentials\n"),
            ("200 OK", "ready\n"),
        ]);
        let ended = portcullis(&["wait", "--url", &stub.url()]);
        let notes = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{notes}");
        assert_eq!(notes.lines().count(), 2, "{notes}");
        assert!(notes.contains("pending: listeners") && notes.contains("pending: credentials"), "{notes}");
    }

    #[test]
    fn not_ready_and_unreachable_have_different_exit_codes() {
        let stub = Stub::start(&[("503 Service Unavailable", "pending: listeners\n")]);
        let late = portcullis(&["wait", "--timeout", "300ms", "--url", &stub.url()]);
        assert_eq!(late.status.code(), Some(1));
        assert!(text(&late.stderr).contains("not ready after 0.3 s"), "{}", text(&late.stderr));
        let unused = format!("http://{}/", free_address());
        let gone = portcullis(&["wait", "--timeout", "300ms", "--url", &unused]);
        assert_eq!(gone.status.code(), Some(69), "{}", text(&gone.stderr));
    }

    /// A holder that says to whom asks first which namespace it has, and ends when it is dropped.
    struct Holder {
        socket: PathBuf,
        asked: mpsc::Receiver<()>,
        _end: mpsc::Sender<()>,
    }

    impl Holder {
        fn start(folder: &Path, namespace: String) -> Self {
            let socket = folder.join("holder.sock");
            let _left = fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket).unwrap();
            let (end, ended) = mpsc::channel::<()>();
            let (told, asked) = mpsc::channel();
            thread::spawn(move || {
                let (mut asking, _) = listener.accept().unwrap();
                writeln!(asking, "{namespace}").unwrap();
                told.send(()).unwrap();
                let _ended = ended.recv();
            });
            Self { socket, asked, _end: end }
        }
    }

    #[test]
    fn it_ends_at_once_in_a_namespace_that_its_holder_no_longer_has() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().to_owned();
        let url = format!("http://{}/", free_address());
        let holder = Holder::start(folder.path(), own);
        let words = ["wait", "--url", &url, "--holder", holder.socket.to_str().unwrap()];
        let mut wait = Running::start(Command::new(BIN).args(words).stderr(Stdio::piped()));
        holder.asked.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(wait.0.try_wait().unwrap().is_none(), "it is in the namespace of the holder, and waits");
        // The holder is restarted, and gets another namespace.
        drop(holder);
        let begun = Instant::now();
        let _replaced = Holder::start(folder.path(), "net:[1]".to_owned());
        assert_eq!(wait.ended(), Some(1));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let mut said = String::new();
        wait.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("was replaced by another one (net:[1])") && said.contains("up --detach"), "{said}");
    }

    #[test]
    fn a_holder_that_does_not_answer_is_not_an_answer() {
        let stub = Stub::start(&[("503 Service Unavailable", "pending: redirect rules\n"), ("200 OK", "ready\n")]);
        let ended = portcullis(&["wait", "--url", &stub.url(), "--holder", "/nowhere/holder.sock"]);
        assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    }

    #[test]
    fn a_proxy_that_stalls_delays_neither_the_deadline_nor_a_signal() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let begun = Instant::now();
        assert_eq!(portcullis(&["wait", "--timeout", "200ms", "--url", &url]).status.code(), Some(69));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let mut wait = Running::start(Command::new(BIN).args(["wait", "--url", &url])).listening(15);
        signal(&wait.0, "TERM");
        assert_eq!(wait.ended(), Some(128 + 15));
    }
}

mod run {
    use super::*;

    fn run(stub: &Stub, script: &str) -> Output {
        portcullis(&["run", "--url", &stub.url(), "--", "sh", "-c", script])
    }

    /// A script that says where it is in its files, and then waits for signals.
    fn start(stub: &Stub, folder: &Path, script: &str) -> Running {
        let mut command = Command::new(BIN);
        command.args(["run", "--url", &stub.url(), "--", "sh", "-c", script]).current_dir(folder);
        let run = Running::start(&mut command);
        eventually("the program has begun", || folder.join("begun").exists().then_some(()));
        run
    }

    #[test]
    fn it_ends_as_the_program_ends() {
        let stub = Stub::ready();
        assert_eq!(run(&stub, "exit 0").status.code(), Some(0));
        assert_eq!(run(&stub, "exit 41").status.code(), Some(41));
        assert_eq!(run(&stub, "kill -KILL $$").status.code(), Some(128 + 9));
        assert_eq!(text(&run(&stub, "echo said").stdout), "said\n");
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, "no program").unwrap();
        for (program, code) in [(plain.to_str().unwrap(), 126), ("/nowhere/at/all", 127), ("no-such-program", 127)] {
            let ended = portcullis(&["run", "--url", &stub.url(), "--", program]);
            assert_eq!(ended.status.code(), Some(code), "{program}");
            assert!(text(&ended.stderr).contains(program), "{}", text(&ended.stderr));
        }
        assert_eq!(portcullis(&["run"]).status.code(), Some(64));
    }

    #[test]
    fn nothing_runs_before_the_proxy_is_ready_or_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("ran");
        let ran = |url: &str| {
            portcullis(&[
                "run",
                "--timeout",
                "300ms",
                "--url",
                url,
                "--quit-proxy",
                "--",
                "touch",
                mark.to_str().unwrap(),
            ])
        };
        let pending = Stub::start(&[("503 Service Unavailable", "pending\n")]);
        assert_eq!(ran(&pending.url()).status.code(), Some(1));
        assert_eq!(ran(&format!("http://{}/", free_address())).status.code(), Some(69));
        assert!(!mark.exists());
        let soon = Stub::start(&[("503 Service Unavailable", "pending\n"), ("200 OK", "ready\n")]);
        let ended = portcullis(&["run", "--url", &soon.url(), "--", "touch", mark.to_str().unwrap()]);
        assert_eq!(ended.status.code(), Some(0));
        assert!(mark.exists() && soon.asked().len() == 2, "{:?}", soon.asked());
    }

    #[test]
    fn signals_reach_the_program_and_its_answer_is_ours() {
        let stub = Stub::ready();
        for name in ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"] {
            let folder = tempfile::tempdir().unwrap();
            let script = format!("trap 'exit 7' {name}; touch begun; while :; do sleep 0.05; done");
            let mut run = start(&stub, folder.path(), &script);
            signal(&run.0, name);
            assert_eq!(run.ended(), Some(7), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let mut run = start(&stub, folder.path(), "touch begun; exec sleep 60");
        signal(&run.0, "TERM");
        assert_eq!(run.ended(), Some(128 + 15), "not trapped");
    }

    #[test]
    fn a_signal_while_it_waits_ends_it() {
        let stub = Stub::start(&[("503 Service Unavailable", "pending\n")]);
        for (name, number) in [("TERM", 15), ("INT", 2), ("USR1", 10)] {
            let mut command = Command::new(BIN);
            command.args(["run", "--url", &stub.url(), "--", "touch", "/nowhere/at/all"]);
            let mut run = Running::start(&mut command).listening(number);
            // What changes nothing for a process by default changes nothing here.
            signal(&run.0, "WINCH");
            signal(&run.0, name);
            assert_eq!(run.ended(), Some(128 + i32::try_from(number).unwrap()), "{name}");
        }
    }

    /// What a shell leaves behind for the program that takes its place, it gets from an orphan as PID 1.
    #[test]
    fn children_of_others_are_reaped_and_do_not_end_it() {
        let (stub, folder) = (Stub::ready(), tempfile::tempdir().unwrap());
        let script = "(exit 3) & sleep 0.3 & exec \"$0\" run --url \"$1\" -- sh -c 'touch begun; exec sleep 60'";
        let mut command = Command::new("sh");
        command.args(["-c", script, BIN, &stub.url()]).current_dir(folder.path());
        let mut run = Running::start(&mut command);
        eventually("the program has begun", || folder.path().join("begun").exists().then_some(()));
        eventually("one child is left", || (run.children().split_whitespace().count() == 1).then_some(()));
        signal(&run.0, "TERM");
        assert_eq!(run.ended(), Some(128 + 15));
    }

    #[test]
    fn a_job_stops_its_proxy_whatever_its_exit_code() {
        for (script, code) in [("exit 0", 0), ("exit 5", 5)] {
            let (stub, admin) = (Stub::ready(), Stub::start(&[("200 OK", "OK\n")]));
            let quit = format!("--quit-proxy=http://{}", admin.address);
            let ended = portcullis(&["run", "--url", &stub.url(), &quit, "--", "sh", "-c", script]);
            assert_eq!(ended.status.code(), Some(code), "{}", text(&ended.stderr));
            assert_eq!(admin.asked(), ["POST /quitquitquit HTTP/1.1"]);
        }
        let (stub, refuses) = (Stub::ready(), Stub::start(&[("403 Forbidden", "not from here\n")]));
        let quit = format!("--quit-proxy=http://{}", refuses.address);
        let ended = portcullis(&["run", "--url", &stub.url(), &quit, "--", "true"]);
        assert_eq!(ended.status.code(), Some(0), "what the job came to counts");
        assert!(text(&ended.stderr).contains("not from here"), "{}", text(&ended.stderr));
        let missing = portcullis(&["run", "--url", &stub.url(), &quit, "--", "no-such-program"]);
        assert_eq!((missing.status.code(), refuses.asked().len()), (Some(127), 2), "it is over for the proxy too");
    }

    #[test]
    fn a_real_proxy_ends_with_the_job() {
        let mut scene = Scene::new("STRICT");
        let admin = scene.cart.admin;
        let (url, quit) = (format!("http://{admin}/healthz/ready"), format!("--quit-proxy=http://{admin}"));
        let ended = portcullis(&["run", "--url", &url, &quit, "--", "true"]);
        assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
        let proxy = eventually("the proxy ends", || scene.cart.child.try_wait().unwrap());
        assert_eq!(proxy.code(), Some(0), "{}", scene.cart.read_log());
    }
}

mod hold {
    use super::*;

    #[test]
    fn it_ends_with_0_when_it_is_told_to() {
        for name in ["TERM", "INT"] {
            let mut hold = Running::start(Command::new(BIN).arg("hold")).listening(15).listening(2);
            signal(&hold.0, name);
            assert_eq!(hold.ended(), Some(0), "{name}");
        }
    }

    /// What the shell started is inherited by what takes its place, as PID 1 inherits orphans.
    #[test]
    fn it_reaps_what_others_left_behind() {
        let script = "true & sleep 0.3 & exec \"$0\" hold";
        let mut hold = Running::start(Command::new("sh").args(["-c", script, BIN])).listening(15);
        eventually("both children are reaped", || hold.children().is_empty().then_some(()));
        signal(&hold.0, "TERM");
        assert_eq!(hold.ended(), Some(0));
    }
}
