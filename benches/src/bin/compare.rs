//! The one load generator for every proxy that is compared, the app behind them, and the plaintext relay that is the floor.
//! `benches/compare/run` starts it; by hand: `compare app`, `compare relay TARGET`, `compare load TARGET WORK ...`.
//!
//! A request says how long it is and how long an answer it wants, both in its first eight bytes. Each process runs on one
//! thread.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench that cannot do its work has failed"
)]

use std::env;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request's length and the answer's.
const HEADER: usize = 8;
/// What the floor copies with, as the table of the goals has it; app and client as well, so that they are not in the way.
const BUFFER: usize = 256 * 1024;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    runtime.block_on(async {
        match arguments[..] {
            ["app"] => serve(|stream| async move { app(stream).await }).await,
            ["relay", target] => {
                let target = target.parse().unwrap();
                serve(move |stream| relay(stream, target)).await;
            }
            ["load", target, ref work @ ..] => load(target.parse().unwrap(), work).await,
            _ => panic!("compare app | relay TARGET | load TARGET bytes|requests|exchanges|connections|hold ..."),
        }
    });
}

/// Listens on a free port, says which, and serves for ever.
async fn serve<F>(each: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        // The end of one connection is not an error of the listener.
        tokio::spawn(each(stream));
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await.map(drop)
}

async fn app(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = Vec::new();
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await?;
        let [a, b, c, d, answer @ ..] = header;
        receive(&mut stream, u32::from_be_bytes([a, b, c, d]), &mut chunk).await?;
        send(&mut stream, &[], u32::from_be_bytes(answer), &mut chunk).await?;
    }
}

async fn receive(stream: &mut TcpStream, length: u32, chunk: &mut Vec<u8>) -> io::Result<()> {
    let mut left = usize::try_from(length).unwrap();
    while left > 0 {
        let size = left.min(BUFFER);
        if chunk.len() < size {
            chunk.resize(size, 0);
        }
        match stream.read(&mut chunk[..size]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}

/// `head` goes with the first bytes: a request is one write, as it would be of an app that cares.
async fn send(stream: &mut TcpStream, head: &[u8], length: u32, chunk: &mut Vec<u8>) -> io::Result<()> {
    let mut left = usize::try_from(length).unwrap();
    let first = left.min(BUFFER - HEADER);
    if chunk.len() < head.len() + first {
        chunk.resize(head.len() + first, 0);
    }
    chunk[..head.len()].copy_from_slice(head);
    stream.write_all(&chunk[..head.len() + first]).await?;
    left -= first;
    while left > 0 {
        let size = left.min(BUFFER);
        chunk.resize(chunk.len().max(size), 0);
        stream.write_all(&chunk[..size]).await?;
        left -= size;
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    chunk: Vec<u8>,
}

impl Client {
    async fn connect(target: SocketAddr) -> Self {
        let stream = TcpStream::connect(target).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, chunk: Vec::new() }
    }

    async fn ask(&mut self, request: u32, answer: u32) {
        let header = [request.to_be_bytes(), answer.to_be_bytes()].concat();
        send(&mut self.stream, &header, request, &mut self.chunk).await.unwrap();
        receive(&mut self.stream, answer, &mut self.chunk).await.unwrap();
    }
}

async fn load(target: SocketAddr, work: &[&str]) {
    let number = |index: usize| work[index].parse::<usize>().unwrap();
    match work[0] {
        "bytes" => bytes(target, number(1), number(2), work[3] == "up").await,
        "requests" => requests(target, number(1), Duration::from_millis(number(2).try_into().unwrap())).await,
        "exchanges" => exchanges(target, number(1), number(2)).await,
        "connections" => connections(target, number(1), number(2)).await,
        "hold" => hold(target, number(1)).await,
        other => panic!("no work {other}"),
    }
}

/// So many streams carry so many megabytes each, one way.
async fn bytes(target: SocketAddr, streams: usize, megabytes: usize, up: bool) {
    let mut clients = Vec::new();
    for _ in 0..streams {
        let mut client = Client::connect(target).await;
        client.ask(1, 1).await;
        clients.push(client);
    }
    println!("ready");
    wait_for_a_line().await;
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for mut client in clients {
        tasks.spawn(async move {
            // One request: what is measured is a stream, not the pauses between requests.
            let length = u32::try_from(megabytes * 1_000_000).unwrap();
            let (request, answer) = if up { (length, 1) } else { (1, length) };
            client.ask(request, answer).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{{\"seconds\": {seconds}, \"units\": {}}}", streams * megabytes);
}

/// So many connections, each with one request under way all the time: 128 bytes there and back.
async fn requests(target: SocketAddr, count: usize, within: Duration) {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(target).await;
        client.ask(120, 128).await;
        clients.push(client);
    }
    println!("ready");
    wait_for_a_line().await;
    let (begun, stop, mut tasks) = (Instant::now(), Arc::new(AtomicBool::new(false)), JoinSet::new());
    for mut client in clients {
        let stop = Arc::clone(&stop);
        tasks.spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.ask(120, 128).await;
                times.push(u32::try_from(begun.elapsed().as_micros()).unwrap());
            }
            times
        });
    }
    tokio::time::sleep(within).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.unwrap());
    }
    let seconds = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: usize| f64::from(times[times.len() * share / 100]) / 1000.0;
    let (units, p50, p99) = (times.len(), at(50), at(99));
    println!("{{\"seconds\": {seconds}, \"units\": {units}, \"p50_ms\": {p50}, \"p99_ms\": {p99}}}");
}

/// New connections, so many at once: each carries a byte there and back.
/// As many requests as were asked for, on each of the connections: for counting what they cost exactly.
async fn exchanges(target: SocketAddr, count: usize, each: usize) {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(target).await;
        client.ask(120, 128).await;
        clients.push(client);
    }
    println!("ready");
    wait_for_a_line().await;
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for mut client in clients {
        tasks.spawn(async move {
            for _ in 0..each {
                client.ask(120, 128).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    println!("{{\"seconds\": {}, \"units\": {}}}", begun.elapsed().as_secs_f64(), count * each);
}

async fn connections(target: SocketAddr, at_once: usize, count: usize) {
    Client::connect(target).await.ask(1, 1).await;
    println!("ready");
    wait_for_a_line().await;
    let (begun, left, mut tasks) = (Instant::now(), Arc::new(AtomicUsize::new(count)), JoinSet::new());
    for _ in 0..at_once {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                Client::connect(target).await.ask(1, 1).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    println!("{{\"seconds\": {}, \"units\": {count}}}", begun.elapsed().as_secs_f64());
}

/// So many idle connections, each of which has carried a byte; held until a line comes, and then they must be alive.
async fn hold(target: SocketAddr, count: usize) {
    Client::connect(target).await.ask(1, 1).await;
    println!("ready");
    wait_for_a_line().await;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(target).await;
        client.ask(1, 1).await;
        client.chunk = Vec::new();
        clients.push(client);
    }
    println!("held");
    wait_for_a_line().await;
    for client in &mut clients {
        client.ask(1, 1).await;
    }
    println!("{{\"seconds\": {}, \"units\": {count}}}", begun.elapsed().as_secs_f64());
}

async fn wait_for_a_line() {
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()).map(drop)).await.unwrap().unwrap();
}
