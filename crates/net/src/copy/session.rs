//! Both directions of a copy together: what a failure of one means for the other, and the time limits.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_buffers::Charge;
use tokio::time::{Instant, Sleep};

use super::flow::{EndPropagation, Flow, FlowContext, FlowFault, Memory};
use super::limits::{ByteCounts, CopyLimits};
use super::outcome::{Copied, CopyEnd, IoOperation, Side};
use crate::duplex::Duplex;

/// How long a side that failed while we wrote to it may stay silent before what it sent earlier counts as read to its
/// end. The kernel tells at once; this is for streams that do not.
const FAILED_SIDE_DRAIN: Duration = Duration::from_secs(1);

pub(super) struct Session<'a, D, U> {
    downstream: &'a mut D,
    upstream: &'a mut U,
    from_downstream: Flow,
    from_upstream: Flow,
    limits: &'a CopyLimits,
    counts: &'a ByteCounts,
    /// The first failure and the side that it is about.
    failure: Option<(Side, CopyEnd)>,
    last_moved: Instant,
    charge: Charge<'a>,
}

impl<'a, D: Duplex, U: Duplex> Session<'a, D, U> {
    pub(super) fn new(
        downstream: &'a mut D,
        upstream: &'a mut U,
        limits: &'a CopyLimits,
        counts: &'a ByteCounts,
        charge: Charge<'a>,
    ) -> Self {
        let (from_downstream, from_upstream) = (Flow::new(), Flow::new());
        let last_moved = Instant::now();
        Self { downstream, upstream, from_downstream, from_upstream, limits, counts, failure: None, last_moved, charge }
    }

    /// Moves what can be moved now. `timer` is at the caller's because a timer must not move; whatever it is set to, it is
    /// set right here.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Copied> {
        let mut memory = Memory { spare: None, has_room: self.charge.usage().has_room() };
        loop {
            // A failure is noted before the other direction is polled, since a failure may eat the kernel's only mention
            // of a reset, and the other direction then sees a clean end where there was none. What a cut-off means, on
            // the other hand, depends on the other direction, so that is decided when both have been polled.
            let upwards = self.poll_from_downstream(cx, &mut memory);
            let mut again = self.record_failure(Side::Downstream, upwards);
            let downwards = self.poll_from_upstream(cx, &mut memory);
            again |= self.record_failure(Side::Upstream, downwards);
            again |= self.handle_truncation(Side::Downstream, upwards);
            again |= self.handle_truncation(Side::Upstream, downwards);
            if !again {
                break;
            }
        }
        if self.from_downstream.take_moved() | self.from_upstream.take_moved() {
            self.last_moved = Instant::now();
        }
        self.charge();
        match self.end() {
            Some(end) => Poll::Ready(self.copied(end)),
            None => self.poll_timer(cx, timer).map(|end| self.copied(end)),
        }
    }

    /// Charges what is kept until the next turn.
    fn charge(&mut self) {
        let unwritten = self.from_downstream.unwritten() + self.from_upstream.unwritten();
        self.charge.set(unwritten + self.downstream.held() + self.upstream.held());
        self.charge.set_limited(self.from_downstream.is_limited() || self.from_upstream.is_limited());
    }

    fn poll_from_downstream(&mut self, cx: &mut Context<'_>, memory: &mut Memory) -> Option<FlowFault> {
        let end_propagation = self.end_propagation();
        let (reader, writer) = (&mut *self.downstream, &mut *self.upstream);
        let mut flow = FlowContext { reader, writer, count: &self.counts.from_downstream, end_propagation };
        fault(self.from_downstream.poll(cx, &mut flow, memory))
    }

    fn poll_from_upstream(&mut self, cx: &mut Context<'_>, memory: &mut Memory) -> Option<FlowFault> {
        let end_propagation = self.end_propagation();
        let (reader, writer) = (&mut *self.upstream, &mut *self.downstream);
        let mut flow = FlowContext { reader, writer, count: &self.counts.from_upstream, end_propagation };
        fault(self.from_upstream.poll(cx, &mut flow, memory))
    }

    /// After a failure the other side is going to be reset; a clean end before that would be a lie.
    const fn end_propagation(&self) -> EndPropagation {
        if self.failure.is_some() { EndPropagation::No } else { EndPropagation::Yes }
    }

    /// Takes note of a failure, other than a cut-off, in the direction that reads from `reader`. True if the directions
    /// are to be polled again because of it.
    fn record_failure(&mut self, reader: Side, fault: Option<FlowFault>) -> bool {
        match fault {
            Some(fault) if !fault.is_truncation() => self.fail(reader, fault),
            _ => false,
        }
    }

    /// The same for a cut-off. It is no failure if our direction to the reader had ended already.
    fn handle_truncation(&mut self, reader: Side, fault: Option<FlowFault>) -> bool {
        let Some(fault) = fault.filter(|fault| fault.is_truncation()) else {
            return false;
        };
        let (flow, opposite) = match reader {
            Side::Downstream => (&mut self.from_downstream, &self.from_upstream),
            Side::Upstream => (&mut self.from_upstream, &self.from_downstream),
        };
        if opposite.has_delivered_end() {
            flow.end_truncated();
            return true;
        }
        self.fail(reader, fault)
    }

    /// The first failure is the cause, later ones are its consequences.
    fn fail(&mut self, reader: Side, fault: FlowFault) -> bool {
        if self.failure.is_some() {
            return false;
        }
        let side = if fault.operation == IoOperation::Read { reader } else { reader.other() };
        self.failure = Some((side, failure(side, fault)));
        true
    }

    /// Why the copy is over, if it is. What a failed side sent before it failed is delivered first.
    const fn end(&self) -> Option<CopyEnd> {
        match self.failure {
            Some((Side::Downstream, end)) if self.from_downstream.is_over() => Some(end),
            Some((Side::Upstream, end)) if self.from_upstream.is_over() => Some(end),
            None if self.from_downstream.is_over() && self.from_upstream.is_over() => Some(CopyEnd::Clean),
            _ => None,
        }
    }

    /// How long nothing may move now, and what it is called when it took longer.
    fn limit(&self) -> Option<(Duration, CopyEnd)> {
        let idle = self.limits.idle.map(|idle| (idle, CopyEnd::IdleTimeout));
        if let Some((_, end)) = self.failure {
            return Some((FAILED_SIDE_DRAIN, end));
        }
        if !(self.from_downstream.has_delivered_end() || self.from_upstream.has_delivered_end()) {
            return idle;
        }
        let half = (self.limits.half_close, CopyEnd::HalfCloseTimeout);
        Some(idle.filter(|(idle, _)| *idle < half.0).unwrap_or(half))
    }

    /// The timer is not touched while bytes move. It fires at most once in the length of a limit, and is set to where
    /// the limit really ends then. It is brought forward only when a shorter limit begins.
    fn poll_timer(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<CopyEnd> {
        let Some((limit, end)) = self.limit() else {
            return Poll::Pending;
        };
        // A limit beyond what a clock can say is none.
        let Some(due) = self.last_moved.checked_add(limit) else {
            return Poll::Pending;
        };
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(end);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }

    const fn copied(&self, end: CopyEnd) -> Copied {
        Copied { end, from_downstream: self.from_downstream.end(), from_upstream: self.from_upstream.end() }
    }
}

fn fault(polled: Poll<Result<(), FlowFault>>) -> Option<FlowFault> {
    match polled {
        Poll::Ready(Err(fault)) => Some(fault),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    }
}

fn failure(side: Side, fault: FlowFault) -> CopyEnd {
    let FlowFault { operation, kind } = fault;
    match (operation, kind) {
        _ if fault.is_truncation() => CopyEnd::Truncated { by: side },
        // On a socket that was whole until now these all mean that the peer's side of it is gone.
        (_, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe) => {
            CopyEnd::Reset { by: side }
        }
        (IoOperation::Shutdown, ErrorKind::NotConnected) => CopyEnd::Reset { by: side },
        _ => CopyEnd::Error { side, operation, kind },
    }
}
