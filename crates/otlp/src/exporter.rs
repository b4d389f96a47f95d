//! The exporter's thread.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use portcullis_config::Otlp;
use portcullis_tls::Clock;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Client, SetupError};
use crate::encode::Encoder;
use crate::queue::LogQueue;
use crate::report::Report;
use crate::resource::ResourceParts;
use crate::worker::Worker;

/// What an exporter needs.
#[derive(Debug)]
pub struct ExporterParts<'a> {
    /// Where to, and how.
    pub settings: &'a Otlp,
    /// Roots of an https endpoint, in PEM: the file that the settings name, or the system's.
    pub roots: &'a [u8],
    /// Who sends.
    pub resource: ResourceParts,
    /// This workload's SPIFFE ID.
    pub own_id: String,
    /// For certificates, and dates in answers.
    pub clock: Clock,
}

/// A thread that sends what is in the queue. It runs until [`Exporter::finish`], or ends with the process.
#[derive(Debug)]
pub struct Exporter {
    stop: watch::Sender<Option<Instant>>,
    ended: mpsc::Receiver<()>,
}

impl Exporter {
    /// Starts it.
    ///
    /// # Errors
    /// The endpoint cannot be used, or there is no thread.
    pub fn start(parts: ExporterParts<'_>, queue: LogQueue) -> Result<Self, SetupError> {
        let ExporterParts { settings, roots, resource, own_id, clock } = parts;
        let version = resource.version.clone();
        let encoder = Encoder::new(settings, &resource, own_id);
        let client = Client::new(settings, roots, encoder.content_type(), &version, &clock)?;
        let (stop, stopped) = watch::channel(None);
        let (done, ended) = mpsc::channel();
        let worker = Worker {
            client,
            encoder,
            endpoint: settings.endpoint.to_string(),
            timeout: settings.timeout,
            clock,
            queue,
            stop: stopped,
            report: Report::default(),
        };
        let no_thread = |error: std::io::Error| SetupError::Thread(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let work = move || {
            runtime.block_on(worker.run());
            // A name look-up may still be under way, which has no deadline.
            runtime.shutdown_background();
            let _waiting = done.send(());
        };
        thread::Builder::new().name("otlp".to_owned()).spawn(work).map_err(no_thread)?;
        Ok(Self { stop, ended })
    }

    /// Sends what is left, for so long at most. Lines that come later are dropped and counted.
    pub fn finish(self, within: Duration) {
        let Self { stop, ended } = self;
        stop.send_replace(Some(Instant::now() + within));
        // The thread keeps the deadline itself; a little more is for its last steps.
        let _all_or_late = ended.recv_timeout(within + Duration::from_millis(250));
    }
}
