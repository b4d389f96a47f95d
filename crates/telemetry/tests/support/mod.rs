//! A log that is kept, and the workload that its lines are about.
//!
//! What writes log lines and looks at them is alone in its process: `tracing` asks whichever thread comes to a line first
//! whether anybody wants it, and remembers a no from a thread without a subscriber for all of them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use portcullis_identity::SpiffeId;
use portcullis_telemetry::{LocalWorkload, Metrics, Service};

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn metrics() -> Metrics {
    let own = LocalWorkload {
        id: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
        name: "cart".to_owned(),
        namespace: "shop".to_owned(),
        labels: BTreeMap::new(),
        service: Service::new("cart", "shop"),
    };
    Metrics::new("0.0.0", own).unwrap()
}
