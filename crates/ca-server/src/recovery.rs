//! Recovery after a failed write of the state, such as on a full disk.

use std::sync::Arc;
use std::time::Duration;

use crate::service::Services;

/// Pause before the first attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Waits for a failure, and then tries to recover until that succeeds. Runs until it is dropped.
pub(crate) async fn run(services: Arc<Services>) {
    loop {
        services.state_failed.notified().await;
        if let Some(problem) = services.store.broken() {
            tracing::error!(problem, "the state cannot be written: no certificate is issued until it can");
            recover(&services).await;
            tracing::info!("the state can be written again; certificates are issued");
        }
    }
}

async fn recover(services: &Services) {
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let store = Arc::clone(&services.store);
        let recovered = tokio::task::spawn_blocking(move || store.recover().map_err(|error| error.to_string())).await;
        match recovered.map_err(|error| error.to_string()).and_then(std::convert::identity) {
            Ok(()) => return,
            Err(problem) => {
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                let retry_seconds = pause.as_secs();
                tracing::error!(problem, retry_seconds, "the state still cannot be written: no certificate is issued");
            }
        }
    }
}
