//! Client, two sidecars with mTLS between them, app; and, in turns with it, client and app alone.
//!
//! Wall time on a machine that is shared says little by itself: read it against the baseline of the same run, and look at
//! the processor time, which the sidecars' neighbours change much less. Not criterion's: it knows no processor time of
//! other processes.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are what this is for")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use portcullis_benches::{App, Client, Scene, binary};

const MIB: u32 = 1024 * 1024;
/// Turns of each load on each way. The median of them is shown.
const TURNS: u8 = 5;

/// A load: how many exchanges make an iteration, and the unit of its figures.
struct Load {
    name: &'static str,
    run: fn(SocketAddr, u32, &mut Vec<Duration>),
    exchanges: u32,
    /// The unit, and how many of it an exchange is.
    unit: (&'static str, f64),
}

const LOADS: [Load; 3] = [
    Load { name: "one way, 64 MiB at a time", run: stream, exchanges: 4, unit: ("GB", 64.0 * 1.048_576e-3) },
    Load { name: "1 KiB and back, one connection", run: held, exchanges: 5000, unit: ("request", 1.0) },
    Load { name: "1 KiB and back, a connection each", run: fresh, exchanges: 300, unit: ("connection", 1.0) },
];

fn stream(address: SocketAddr, exchanges: u32, times: &mut Vec<Duration>) {
    let mut client = Client::connect(address);
    for _ in 0..exchanges {
        times.push(timed(|| client.ask(64 * MIB, 1)));
    }
}

fn held(address: SocketAddr, exchanges: u32, times: &mut Vec<Duration>) {
    let mut client = Client::connect(address);
    client.ask(1024, 1024);
    for _ in 0..exchanges {
        times.push(timed(|| client.ask(1024, 1024)));
    }
}

fn fresh(address: SocketAddr, exchanges: u32, times: &mut Vec<Duration>) {
    for _ in 0..exchanges {
        times.push(timed(|| Client::connect(address).ask(1024, 1024)));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// What all turns of a load on one way came to.
#[derive(Default)]
struct Figures {
    turns: Vec<Duration>,
    exchanges: Vec<Duration>,
    /// Of the client's sidecar and of the app's.
    cpu: [f64; 2],
}

fn measure(load: &Load, app: &App, scene: &Scene) -> [Figures; 2] {
    let mut all = [Figures::default(), Figures::default()];
    let cpu = || [scene.outbound.cpu_seconds(), scene.inbound.cpu_seconds()];
    // Warm: pages, buffers, connection tables.
    for address in [app.address, scene.entry] {
        (load.run)(address, load.exchanges.div_ceil(10), &mut Vec::new());
    }
    for _ in 0..TURNS {
        for (figures, address) in all.iter_mut().zip([app.address, scene.entry]) {
            let before = cpu();
            figures.turns.push(timed(|| (load.run)(address, load.exchanges, &mut figures.exchanges)));
            for ((sum, after), before) in figures.cpu.iter_mut().zip(cpu()).zip(before) {
                *sum += after - before;
            }
        }
    }
    for figures in &mut all {
        figures.turns.sort();
        figures.exchanges.sort();
    }
    all
}

impl Load {
    fn report(&self, [direct, proxied]: &[Figures; 2]) {
        let (unit, of_exchange) = self.unit;
        let turn = f64::from(self.exchanges) * of_exchange;
        let line = |what: &str, value: &dyn Fn(&Figures) -> f64| {
            let (direct, proxied) = (value(direct), value(proxied));
            println!("  {what:26}{direct:12.2}{proxied:12.2}{:10.2}", proxied / direct);
        };
        println!("\n{:28}{:>12}{:>12}{:>10}", self.name, "direct", "sidecars", "ratio");
        line(&format!("{unit}s a second"), &|figures| turn / at(&figures.turns, 0.5).as_secs_f64());
        line("median exchange, us", &|figures| at(&figures.exchanges, 0.5).as_secs_f64() * 1e6);
        line("99th percentile, us", &|figures| at(&figures.exchanges, 0.99).as_secs_f64() * 1e6);
        for (sidecar, seconds) in ["client's", "app's"].into_iter().zip(proxied.cpu) {
            let milliseconds = seconds * 1e3 / turn / f64::from(TURNS);
            println!("  {:38}{milliseconds:12.3}", format!("CPU ms a {unit}, {sidecar} sidecar"));
        }
    }
}

/// A quantile of sorted times.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an index into a few thousand times"
)]
fn at(sorted: &[Duration], quantile: f64) -> Duration {
    let index = (sorted.len() as f64 * quantile) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn main() -> ExitCode {
    let binary = match binary() {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("bench proxy: there is nothing to measure: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("binary: {}", binary.display());
    let app = App::start();
    let scene = Scene::start(&binary, app.address);
    for load in &LOADS {
        load.report(&measure(load, &app, &scene));
    }
    ExitCode::SUCCESS
}
