//! Commands on standard input, one a line; an answer on standard output for each. The end of input ends the program,
//! so nothing outlives who started it.

use std::io::{BufRead as _, Write as _};

use tokio::sync::mpsc;

/// Lines from standard input.
pub(crate) struct Control(mpsc::UnboundedReceiver<String>);

impl Control {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if line.is_err() || sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    pub(crate) async fn next(&mut self) -> Option<String> {
        self.0.recv().await
    }
}

/// One answer.
pub(crate) fn say(answer: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // Who does not read any more does not want to know.
    let _gone = writeln!(out, "{answer}").and_then(|()| out.flush());
}
