//! `portcullis demo app` and `demo get`: the apps of the compose quick start.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

struct App {
    process: Child,
    url: String,
}

impl App {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["demo", "app", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().rsplit(' ').next().unwrap();
        Self { url: format!("http://{address}"), process }
    }

    /// Asks it to end; the exit code.
    fn end(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ended = self.process.kill();
    }
}

fn get(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["demo", "get", url, "--timeout", "10s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn an_app_says_who_it_is_and_what_another_one_says() {
    let cart = App::start(&["--name", "cart"]);
    let web = App::start(&["--name", "web", "--calls", &format!("{}/", cart.url)]);
    let (code, body) = said(&get(&web.url).output().unwrap());
    assert_eq!(code, Some(0));
    assert_eq!(body, format!("hello from web\n{}/ says: hello from cart\n", cart.url));
    let nothing = get(&format!("{}/nothing", cart.url)).output().unwrap();
    assert_eq!(said(&nothing), (Some(1), String::new()), "what failed is not on standard output");
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("cart has /"), "{nothing:?}");
    let gone = cart.url.clone();
    assert_eq!(cart.end(), Some(0));
    let failed = get(&web.url).output().unwrap();
    let errors = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && errors.contains("cannot be asked"), "{errors}");
    assert_eq!(said(&get(&gone).output().unwrap()).0, Some(69));
    assert_eq!(web.end(), Some(0));
}

#[test]
fn open_requests_are_finished_and_idle_connections_are_not_awaited() {
    let app = App::start(&[]);
    let begun = Instant::now();
    let asking = get(&format!("{}/slow?seconds=2", app.url)).spawn().unwrap();
    let silent = TcpStream::connect(app.url.trim_start_matches("http://")).unwrap();
    // So that the request is there before the end; if it is not, the answer below is missing.
    std::thread::sleep(Duration::from_millis(700));
    let address = app.url.clone();
    assert_eq!(app.end(), Some(0));
    let (code, body) = said(&asking.wait_with_output().unwrap());
    assert!(code == Some(0) && body.contains("after 2 s"), "{body}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(silent);
    assert!(TcpListener::bind(address.trim_start_matches("http://")).is_ok(), "the address is free again");
}
