//! What a holder of a network namespace and the sidecar in it tell each other.
//!
//! A sidecar cannot see that its namespace was replaced by another one, and not whether the engine could start it in the new one: the
//! engine refuses to start what joins a container that does not run, and does not try again. So the holder announces its namespace on a
//! socket in a folder that both have, as soon as the redirect rules are in force: `net:[NUMBER]`, as the kernel calls it, and then
//! nothing. The connection ends when the holder does.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Sidecars that are told at once. One is meant; a few more are those that ask while another one ends.
const MOST: usize = 16;
/// What the kernel calls a namespace has less than this.
const LONGEST: usize = 64;
/// Between two attempts to reach the holder.
pub(crate) const RETRY: Duration = Duration::from_millis(200);
/// A holder answers at once.
const DEADLINE: Duration = Duration::from_secs(2);

/// A network namespace, as the kernel calls it. The number of one that is gone may be given to another one; that of our own cannot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// That of this process.
    ///
    /// # Errors
    /// If `/proc` does not say it.
    pub(crate) fn own() -> io::Result<Self> {
        Ok(Self(fs::read_link("/proc/self/ns/net")?.to_string_lossy().into_owned()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Binds the socket of a holder. One that an earlier holder has left is replaced.
///
/// # Errors
/// If it cannot be bound there.
pub(crate) fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Tells every sidecar that asks, until this is dropped.
pub(crate) async fn announce(listener: UnixListener, own: Namespace) {
    let mut told = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if told.len() < MOST => match accepted {
                Ok((stream, _)) => { told.spawn(tell(stream, own.clone())); }
                // Such as too many open files. The sidecar asks again.
                Err(_) => tokio::time::sleep(DEADLINE).await,
            },
            Some(_) = told.join_next() => {}
        }
    }
}

/// Tells one, and keeps the connection until the other side ends it.
async fn tell(mut stream: UnixStream, Namespace(own): Namespace) {
    let line = format!("{own}\n");
    if timeout(DEADLINE, stream.write_all(line.as_bytes())).await.is_ok_and(|written| written.is_ok()) {
        let _ended = stream.read(&mut [0; 1]).await;
    }
}

/// A holder that is there.
pub(crate) struct Holder {
    stream: UnixStream,
    /// The namespace that it holds.
    pub(crate) namespace: Namespace,
}

impl Holder {
    /// Asks the holder of this socket.
    ///
    /// # Errors
    /// If none answers.
    pub(crate) async fn ask(path: &Path) -> io::Result<Self> {
        let asked = async {
            let mut stream = UnixStream::connect(path).await?;
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                let byte = stream.read_u8().await?;
                line.push(byte);
                if line.len() > LONGEST {
                    return Err(io::Error::other("it says more than the name of a namespace"));
                }
            }
            let namespace = Namespace(String::from_utf8_lossy(&line).trim_end().to_owned());
            Ok(Self { stream, namespace })
        };
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Until it ends.
    pub(crate) async fn ended(&mut self) {
        let _anything = self.stream.read(&mut [0; 1]).await;
    }
}

/// Until a holder answers on this socket whose namespace is not `own`: the namespace that it has.
pub(crate) async fn replaced(path: &Path, own: &Namespace) -> Namespace {
    loop {
        match Holder::ask(path).await {
            Ok(mut holder) if holder.namespace == *own => holder.ended().await,
            Ok(holder) => return holder.namespace,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sidecar_learns_the_namespace_and_the_end_of_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holder.sock");
        assert!(Holder::ask(&path).await.is_err());
        for _ in 0..2 {
            let listener = UnixListener::from_std(listen(&path).unwrap()).unwrap();
            let holder = tokio::spawn(announce(listener, Namespace::own().unwrap()));
            let mut asked = Holder::ask(&path).await.unwrap();
            assert_eq!(asked.namespace, Namespace::own().unwrap());
            assert!(timeout(Duration::from_millis(50), asked.ended()).await.is_err(), "it is there");
            holder.abort();
            timeout(Duration::from_secs(10), asked.ended()).await.unwrap();
            assert!(Holder::ask(&path).await.is_err());
        }
    }
}
