//! Whether a tunnel is to go on: its peer answers, somebody uses it, it is not too old.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::{CLIENT_IDLE, IDLE, MAX_AGE, PING_EVERY, PONG_WITHIN};

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TunnelEnd {
    /// The peer closed it, or it ended as it was told to.
    Closed,
    /// The connection was lost.
    Lost,
    /// The peer broke HTTP/2.
    Protocol,
    /// The peer went beyond a limit, as an attack does.
    Flood,
    /// The peer did not answer a PING.
    Unresponsive,
}

impl TunnelEnd {
    /// Every variant, for tables.
    pub const ALL: [Self; 5] = [Self::Closed, Self::Lost, Self::Protocol, Self::Flood, Self::Unresponsive];

    /// The stable label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::Flood => "flood",
            Self::Unresponsive => "unresponsive",
        }
    }

    /// Classifies an error of the connection.
    pub(crate) fn of(error: &h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::NO_ERROR) => Self::Closed,
            Some(h2::Reason::ENHANCE_YOUR_CALM) => Self::Flood,
            Some(_) => Self::Protocol,
            None => Self::Lost,
        }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    /// No new streams from now on.
    Drain,
    /// The peer is dead.
    GiveUp,
}

/// When something is due, without sockets.
#[derive(Debug)]
struct Schedule {
    /// When the next PING is sent, or the sent one has to be answered.
    ping: Instant,
    waiting: bool,
    /// When the tunnel had its last stream.
    used: Instant,
    /// When it is too old.
    old: Instant,
    draining: bool,
    idle: Duration,
}

#[derive(Debug, Eq, PartialEq)]
enum Step {
    Nothing,
    SendPing,
    Due(Due),
}

impl Schedule {
    fn new(now: Instant, idle: Duration, jitter: f32) -> Self {
        let old = now + MAX_AGE + MAX_AGE.mul_f32(jitter / 10.0);
        Self { ping: now + PING_EVERY, waiting: false, used: now, old, draining: false, idle }
    }

    fn answered(&mut self, now: Instant) {
        self.waiting = false;
        self.ping = now + PING_EVERY;
    }

    /// What is due now. It is asked at each PING, which is often enough for minutes and hours.
    fn step(&mut self, now: Instant, in_use: bool) -> Step {
        if in_use {
            self.used = now;
        }
        if now < self.ping {
            return Step::Nothing;
        }
        if self.waiting {
            return Step::Due(Due::GiveUp);
        }
        if !self.draining && (now >= self.old || now >= self.used + self.idle) {
            self.draining = true;
            return Step::Due(Due::Drain);
        }
        self.waiting = true;
        self.ping = now + PONG_WITHIN;
        Step::SendPing
    }
}

/// Keeps a tunnel alive, and says when it is not.
pub(crate) struct Upkeep {
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    schedule: Schedule,
}

impl Upkeep {
    /// For the server's side, whose client releases an unused tunnel first.
    pub(crate) fn server(pings: Option<PingPong>) -> Self {
        Self::new(pings, IDLE)
    }

    pub(crate) fn client(pings: Option<PingPong>) -> Self {
        Self::new(pings, CLIENT_IDLE)
    }

    fn new(pings: Option<PingPong>, idle: Duration) -> Self {
        let schedule = Schedule::new(Instant::now(), idle, fastrand::f32());
        Self { pings, timer: Box::pin(sleep_until(schedule.ping)), schedule }
    }

    /// Sends PINGs, reads their answers, and is ready when something is due. To be polled with the connection.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, in_use: bool) -> Poll<Due> {
        loop {
            if let Some(pings) = &mut self.pings
                && self.schedule.waiting
                && let Poll::Ready(answer) = pings.poll_pong(cx)
            {
                // An error is one of the connection, which reports it itself.
                if answer.is_ok() {
                    self.schedule.answered(Instant::now());
                }
            }
            match self.schedule.step(Instant::now(), in_use) {
                Step::Due(due) => return Poll::Ready(due),
                Step::SendPing => {
                    if let Some(pings) = &mut self.pings {
                        let _gone = pings.send_ping(Ping::opaque());
                    }
                    continue;
                }
                Step::Nothing => {}
            }
            if self.timer.deadline() != self.schedule.ping {
                self.timer.as_mut().reset(self.schedule.ping);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ping_without_an_answer_gives_up_and_an_answered_one_does_not() {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, IDLE, 0.0);
        assert_eq!(schedule.step(began + PING_EVERY / 2, false), Step::Nothing);
        let first = began + PING_EVERY;
        assert_eq!(schedule.step(first, true), Step::SendPing);
        assert_eq!(schedule.step(first + PONG_WITHIN / 2, true), Step::Nothing);
        schedule.answered(first + PONG_WITHIN / 2);
        let second = first + PONG_WITHIN / 2 + PING_EVERY;
        assert_eq!(schedule.step(second, true), Step::SendPing);
        assert_eq!(schedule.step(second + PONG_WITHIN, true), Step::Due(Due::GiveUp));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_tunnel_and_an_old_one_are_drained_once() {
        for (in_use, limit) in [(false, IDLE), (true, MAX_AGE)] {
            let began = Instant::now();
            let mut schedule = Schedule::new(began, IDLE, 0.0);
            let mut now = began;
            let mut drained = None;
            while now < began + 2 * MAX_AGE {
                match schedule.step(now, in_use) {
                    Step::SendPing => schedule.answered(now),
                    Step::Due(due) => {
                        assert_eq!((due, drained), (Due::Drain, None));
                        drained = Some(now);
                    }
                    Step::Nothing => now += Duration::from_secs(1),
                }
            }
            let after = drained.unwrap() - began;
            assert!(after >= limit && after < limit + 2 * PING_EVERY, "{after:?}");
        }
    }
}
