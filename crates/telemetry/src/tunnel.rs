//! Counts HBONE tunnels: the connections that carry others.

use prometheus::IntGauge;

use crate::connection::Direction;
use crate::family::CounterFamily;

/// HBONE tunnels by the side that this proxy has.
pub struct TunnelMetrics {
    pub(crate) open: [IntGauge; 2],
    pub(crate) closed: CounterFamily<2>,
}

/// Counts one tunnel as open until it is dropped.
pub struct OpenTunnel {
    open: IntGauge,
}

impl TunnelMetrics {
    /// One more is open. `None` cannot be, since both directions have a gauge.
    #[must_use]
    pub fn opened(&self, direction: Direction) -> Option<OpenTunnel> {
        let open = self.open.get(direction as usize)?.clone();
        open.inc();
        Some(OpenTunnel { open })
    }

    /// One ended.
    pub fn closed(&self, direction: Direction, reason: &'static str) {
        self.closed.with(&[direction.reporter(), reason]).add(1);
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.open.dec();
    }
}
