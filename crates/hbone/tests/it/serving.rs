//! A server on one end of an in-memory connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_hbone::{Event, Request, ServerTunnel, TunnelEnd};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

/// What a test waits for comes within this time, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Serving {
    /// How many streams were given out.
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) ended: JoinHandle<TunnelEnd>,
}

impl Serving {
    pub(crate) async fn end(self) -> TunnelEnd {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("the tunnel ends").unwrap()
    }
}

/// Serves one tunnel, each request by `handle` in a task of its own.
pub(crate) fn serve<F>(io: DuplexStream, handle: impl Fn(Request) -> F + Send + 'static) -> Serving
where
    F: Future<Output = ()> + Send + 'static,
{
    let requests = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&requests);
    let ended = tokio::spawn(async move {
        let Ok(mut tunnel) = ServerTunnel::handshake(io).await else { return TunnelEnd::Lost };
        loop {
            match tunnel.next().await {
                Event::Request(request) => {
                    count.fetch_add(1, Ordering::SeqCst);
                    drop(tokio::spawn(handle(request)));
                }
                Event::Ended(end) => return end,
            }
        }
    });
    Serving { requests, ended }
}
