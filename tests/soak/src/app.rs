//! The app: does on each connection what its header asks for, checks every byte, and counts by tag what it saw.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::control::{Control, say};
use crate::pattern::{Bytes, Direction, Fault, expect_end};
use crate::protocol::{Header, Kind, PATIENCE};

/// What happened to the connections of one tag.
#[derive(Clone, Debug, Default)]
struct Counts {
    opened: u64,
    open: u64,
    done: u64,
    bytes: u64,
    corrupt: u64,
    short: u64,
    resets: u64,
    other: u64,
    /// Bytes that came while the tag was forbidden.
    violations: u64,
    forbidden: bool,
    first_fault: Option<String>,
}

#[derive(Default)]
struct State {
    tags: Mutex<BTreeMap<char, Counts>>,
    /// Bytes of the floods that the sockets have taken.
    flooded: Mutex<u64>,
}

impl State {
    fn tags(&self) -> MutexGuard<'_, BTreeMap<char, Counts>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, tag: u8, change: impl FnOnce(&mut Counts)) {
        change(self.tags().entry(char::from(tag)).or_default());
    }

    /// Bytes of this tag have arrived.
    fn arrived(&self, tag: u8, bytes: u64) {
        self.count(tag, |counts| {
            counts.bytes += bytes;
            if counts.forbidden {
                counts.violations += bytes;
            }
        });
    }

    fn ended(&self, tag: u8, outcome: Result<(), Fault>) {
        self.count(tag, |counts| {
            counts.open -= 1;
            match &outcome {
                Ok(()) => counts.done += 1,
                Err(Fault::Corrupt(_)) => counts.corrupt += 1,
                Err(Fault::Short(_) | Fault::Empty) => counts.short += 1,
                Err(fault) if fault.is_reset() => counts.resets += 1,
                Err(_) => counts.other += 1,
            }
            if let (Err(fault), None) = (outcome, &counts.first_fault) {
                counts.first_fault = Some(fault.to_string());
            }
        });
    }

    fn report(&self) -> serde_json::Value {
        let tags: serde_json::Map<_, _> = self
            .tags()
            .iter()
            .map(|(tag, counts)| {
                let Counts { opened, open, done, bytes, corrupt, short, resets, other, violations, .. } = counts;
                let value = json!({
                    "opened": opened, "open": open, "done": done, "bytes": bytes, "corrupt": corrupt, "short": short,
                    "resets": resets, "other": other, "violations": violations, "first_fault": counts.first_fault,
                });
                (tag.to_string(), value)
            })
            .collect();
        json!({ "tags": tags, "flooded": *self.flooded.lock().unwrap_or_else(PoisonError::into_inner) })
    }
}

/// Serves until standard input ends.
pub(crate) async fn run(listen: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(4096)?;
    say(&json!({ "listen": listener.local_addr()?.to_string() }));
    let state = Arc::<State>::default();
    let (resume, resumed) = watch::channel(false);
    tokio::spawn(serve(listener, Arc::clone(&state), resumed));
    let mut control = Control::new();
    while let Some(line) = control.next().await {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("forbid", tag) => state.count(tag.as_bytes()[0], |counts| counts.forbidden = true),
            ("allow", tag) => state.count(tag.as_bytes()[0], |counts| counts.forbidden = false),
            ("resume", _) => drop(resume.send(true)),
            ("stats", _) => {}
            _ => panic!("the app knows no {line:?}"),
        }
        say(&state.report());
    }
    Ok(())
}

async fn serve(listener: TcpListener, state: Arc<State>, resumed: watch::Receiver<bool>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => panic!("the app itself cannot accept: {error}"),
        };
        let (state, resumed) = (Arc::clone(&state), resumed.clone());
        tokio::spawn(async move { connection(stream, &state, resumed).await });
    }
}

async fn connection(mut stream: TcpStream, state: &State, resumed: watch::Receiver<bool>) {
    let _best_effort = stream.set_nodelay(true);
    let header = match timeout(PATIENCE, Header::read(&mut stream)).await {
        Ok(Ok(header)) => header,
        // A client of another protocol, or a connection without a byte.
        Ok(Err(fault)) => {
            state.count(b'?', |counts| counts.open += 1);
            return state.ended(b'?', Err(fault));
        }
        Err(_late) => return,
    };
    state.count(header.tag, |counts| {
        counts.opened += 1;
        counts.open += 1;
    });
    state.arrived(header.tag, 32);
    let outcome = converse(&mut stream, &header, state, resumed).await;
    state.ended(header.tag, outcome);
}

async fn converse(
    stream: &mut TcpStream,
    header: &Header,
    state: &State,
    mut resumed: watch::Receiver<bool>,
) -> Result<(), Fault> {
    let mut up = Bytes::new(header.seed, Direction::Up);
    let mut down = Bytes::new(header.seed, Direction::Down);
    match header.kind {
        Kind::Exchange | Kind::AppEnds => {
            receive(stream, &mut up, header, state).await?;
            stream.write_all(&up.digest()).await?;
            down.send(stream, header.down).await?;
            if header.kind == Kind::Exchange {
                expect_end(stream).await?;
                stream.shutdown().await?;
            } else {
                stream.shutdown().await?;
                expect_end(stream).await?;
            }
        }
        Kind::Pulse => pulse(stream, &mut up, &mut down, header, state).await?,
        Kind::Duplex => {
            let (mut reader, mut writer) = stream.split();
            tokio::try_join!(up.receive(&mut reader, header.up), down.send(&mut writer, header.down))?;
            state.arrived(header.tag, header.up);
            stream.write_all(&up.digest()).await?;
            expect_end(stream).await?;
            stream.shutdown().await?;
        }
        Kind::Flood => {
            for _ in 0..header.down / 1024 {
                down.send(stream, 1024).await?;
                *state.flooded.lock().unwrap_or_else(PoisonError::into_inner) += 1024;
            }
            stream.shutdown().await?;
            expect_end(stream).await?;
        }
        Kind::Stall => {
            let _gone = resumed.wait_for(|resumed| *resumed).await.is_ok();
            receive(stream, &mut up, header, state).await?;
            stream.write_all(&up.digest()).await?;
            expect_end(stream).await?;
        }
        Kind::EarlyEnd => {
            down.send(stream, header.down).await?;
            stream.shutdown().await?;
            receive(stream, &mut up, header, state).await?;
            expect_end(stream).await?;
        }
        Kind::AppResets => {
            receive(stream, &mut up, header, state).await?;
            down.send(stream, header.down / 2).await?;
            stream.set_zero_linger()?;
        }
        Kind::ClientResets => {
            receive(stream, &mut up, header, state).await?;
            expect_end(stream).await?;
        }
    }
    Ok(())
}

async fn receive(stream: &mut TcpStream, up: &mut Bytes, header: &Header, state: &State) -> Result<(), Fault> {
    let mut left = header.up;
    while left > 0 {
        let part = left.min(64 * 1024);
        up.receive(stream, part).await?;
        state.arrived(header.tag, part);
        left -= part;
    }
    Ok(())
}

async fn pulse(
    stream: &mut TcpStream,
    up: &mut Bytes,
    down: &mut Bytes,
    header: &Header,
    state: &State,
) -> Result<(), Fault> {
    let mut chunk = vec![0; 4096];
    loop {
        let read = u64::try_from(up.receive_some(stream, &mut chunk).await?).unwrap();
        if read == 0 {
            break;
        }
        state.arrived(header.tag, read);
        down.send(stream, read).await?;
    }
    stream.write_all(&up.digest()).await?;
    Ok(stream.shutdown().await?)
}
