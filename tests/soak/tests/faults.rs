//! A generator that claims no failure must be able to count one: behind a stand-in with each fault, it does.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// One process of the generator, ended when it is dropped.
struct Program {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis-soak"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, commands, answers }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").unwrap();
        self.answer()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a load says that goes through a stand-in with this fault, and what the app says.
fn through(fault: &str, load: &[&str], millis: u64) -> (Value, Value) {
    let mut app = Program::start(&["app", "127.0.0.1:0"]);
    let address = app.answer()["listen"].as_str().unwrap().to_owned();
    let mut relay = Program::start(&["relay", "127.0.0.1:0", &address, fault]);
    let target = format!("target={}", relay.answer()["listen"].as_str().unwrap());
    let mut load = Program::start(&[&["load"], load, &[&target]].concat());
    thread::sleep(Duration::from_millis(millis));
    let said = load.ask(if millis > 0 { "stop" } else { "wait" });
    // What the client has ended arrives at the app a little later.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = app.ask("stats");
        if seen["tags"]["m"]["open"] == 0 || Instant::now() > end {
            return (said, seen);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_a_fault_nothing_fails() {
    let (said, app) = through("none", &["exchange", "rate=100"], 1000);
    assert!(said["ok"].as_u64().unwrap() > 50, "{said}");
    assert_eq!((&said["failed"], &app["tags"]["m"]["corrupt"]), (&0.into(), &0.into()), "{said} {app}");
    for kind in ["kind=duplex", "kind=early-end", "kind=client-resets", "kind=app-resets"] {
        let (said, _) = through("none", &["once", kind, "count=20"], 0);
        assert_eq!((&said["ok"], &said["failed"]), (&20.into(), &0.into()), "{kind}: {said}");
    }
}

#[test]
fn every_fault_on_every_tenth_connection_is_counted() {
    for fault in ["corrupt", "lose", "truncate", "reset"] {
        // A byte that is lost at the end is waited for, so long that it is left to the large transfer.
        let waits = fault == "lose";
        for load in [&["exchange", "rate=100"][..], &["streams", "count=20", "interval=20"]].iter().filter(|_| !waits) {
            let (said, _) = through(fault, load, 800);
            assert!(said["failed"].as_u64().unwrap() > 0, "{fault} {load:?}: {said}");
        }
        let (said, _) = through(fault, &["once", "kind=duplex", "count=20"], 0);
        assert_eq!((&said["ok"], &said["failed"]), (&18.into(), &2.into()), "{fault}: {said}");
    }
}

/// What may fail is excused, but never for what is a lie about the app.
#[test]
fn a_lie_is_not_excused() {
    for (fault, excused) in [("reset", true), ("corrupt", false), ("truncate", false)] {
        let (said, _) = through(fault, &["streams", "count=20", "interval=20", "expect=may", "reopen=0"], 800);
        let counted = (said["failed"].as_u64().unwrap(), said["excused"].as_u64().unwrap());
        assert_eq!(counted, if excused { (0, 2) } else { (2, 0) }, "{fault}: {said}");
    }
}

#[test]
fn a_reset_that_comes_out_as_an_end_is_counted() {
    let (said, _) = through("soften", &["once", "kind=app-resets", "count=20"], 0);
    assert_eq!((&said["ok"], &said["failed"]), (&18.into(), &2.into()), "{said}");
    let (_, app) = through("soften", &["once", "kind=client-resets", "count=20"], 0);
    assert_eq!((&app["tags"]["m"]["resets"], &app["tags"]["m"]["short"]), (&18.into(), &2.into()), "{app}");
}
