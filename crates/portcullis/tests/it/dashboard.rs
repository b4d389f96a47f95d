//! The page: of one sidecar at its admin address, and of all of them by `portcullis dashboard`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{BIN, Scene, eventually, free_address, passed};

/// `portcullis dashboard` on a free port, ended with the test.
struct Dashboard {
    child: Child,
    url: String,
}

impl Dashboard {
    fn start(arguments: &[String]) -> Self {
        let mut command = Command::new(BIN);
        let port = free_address().port().to_string();
        command.args(["dashboard", "--no-browser", "--port", &port]).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }

    fn get(&self, path: &str) -> String {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let answer = Command::new("curl").args(["-sS", "-m", "10", "-i", &url]).output().unwrap();
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_page_of_a_sidecar_names_the_client_without_mtls_and_what_changed() {
    let scene = Scene::new("PERMISSIVE");
    let (_web, through_web) = scene.web();
    assert!(passed(through_web, b"hello"));
    assert!(passed(scene.inbound, b"plain"));
    let page = || scene.cart.get("/").unwrap_or_default();
    eventually("the page shows both", || {
        (page().contains("traffic goes without mTLS") && page().contains("web")).then_some(())
    });
    assert!(page().contains("NOT READY") && page().contains("src=\"/dashboard.js\""), "{}", page());
    scene.set_mode("STRICT");
    let changes = || scene.cart.get("/changes").unwrap_or_default();
    eventually("the change is told", || (changes().contains("PERMISSIVE -> STRICT")).then_some(()));
    // What was let through before is over.
    eventually("the lock is closed", || (page().contains("Yes: every port is STRICT")).then_some(()));
}

#[test]
fn one_page_shows_all_sidecars_and_tells_who_does_not_answer() {
    let scene = Scene::new("STRICT");
    let (web, through_web) = scene.web();
    assert!(passed(through_web, b"hello"));
    let down = free_address();
    let admins = [scene.cart.admin, web.admin, down].map(|admin| format!("--admin={admin}"));
    let dashboard = Dashboard::start(&admins);
    let page = dashboard.get("/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("2 of 3 sidecars answered"), "{page}");
    assert!(page.contains(&format!("{down} did not answer")), "{page}");
    eventually("the edge is drawn", || (dashboard.get("/").contains("all mTLS")).then_some(()));
    assert!(dashboard.get("/quitquitquit").starts_with("HTTP/1.1 404"));
    assert!(dashboard.get("/config_dump").starts_with("HTTP/1.1 404"));
}
