//! When all names are resolved at once, since an address is unknown. What an earlier round found does not count, however recent
//! it was: the owner of the address may have started a moment ago.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The shortest time between the starts of two rounds. An address that was found unknown stays unknown for as long.
pub const MIN_ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How many unknown addresses are remembered.
const MAX_UNKNOWN: usize = 4096;

/// All rounds, one at a time.
#[derive(Default)]
pub(super) struct Rounds(Mutex<Last>);

/// The last round.
#[derive(Default)]
struct Last {
    began: Option<Instant>,
    /// When the last round began that was not cancelled: one that is, because its connection ended, serves nobody.
    completed: Option<Instant>,
    unknown: HashMap<IpAddr, Instant>,
}

impl Rounds {
    /// Waits for a round that began after this call, which is one of its own if nobody else's did; `resolve` gets its start.
    /// Returns at once if the same address waited for a round that began within [`MIN_ROUND_INTERVAL`].
    pub(super) async fn wait(&self, unknown: IpAddr, resolve: impl AsyncFnOnce(Instant)) {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if last.completed.is_some_and(|began| began >= asked)
            || last.unknown.get(&unknown).is_some_and(|since| since.elapsed() < MIN_ROUND_INTERVAL)
        {
            return;
        }
        if let Some(began) = last.began {
            sleep_until(began + MIN_ROUND_INTERVAL).await;
        }
        let began = Instant::now();
        last.began = Some(began);
        resolve(began).await;
        last.completed = Some(began);
        if last.unknown.len() >= MAX_UNKNOWN {
            last.unknown.retain(|_, since| since.elapsed() < MIN_ROUND_INTERVAL);
        }
        if last.unknown.len() < MAX_UNKNOWN {
            last.unknown.insert(unknown, began);
        }
    }
}
