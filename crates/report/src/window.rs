//! The window of a report: what of an observation is in it.

use portcullis_api::{DayCount, Observation, Observations, Timestamp};

/// How many days a ledger counts one by one.
const DAYS: i64 = 8;

/// The time before now that a report is about.
///
/// Whether a connection is in it is exact to the second. How many there were is exact if all of a client's connections are in the window;
/// otherwise the ledger knows days only, so every connection of the day (in UTC) on which the window begins is counted, and in a window
/// that is longer than the eight days which a ledger keeps apart, every connection before those. A client that was let through before the
/// window and seen in it counts with one connection at least: it may have been open all the time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Its length.
    pub seconds: u64,
}

/// The window by the clock of one sidecar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: Timestamp,
    end: Timestamp,
}

/// Connections in the window.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Connections {
    pub(crate) allowed: u64,
    pub(crate) refused: u64,
}

impl Window {
    /// The window as the sidecar sees it, whose clock made the times of its answer. An answer that does not tell is taken to be of now.
    pub(crate) fn of(self, answer: &Observations, now: Timestamp) -> Span {
        let end = if answer.proxy.now == Timestamp::default() { now } else { answer.proxy.now };
        let length = i64::try_from(self.seconds).unwrap_or(i64::MAX);
        Span { start: Timestamp::from_unix(end.unix().saturating_sub(length)), end }
    }
}

impl Span {
    /// The moment up to which the sidecar observed.
    pub(crate) const fn end(self) -> Timestamp {
        self.end
    }

    /// The last day that a ledger does not keep apart.
    pub(crate) const fn day_before_kept(self) -> i64 {
        self.end.day().saturating_sub(DAYS)
    }

    /// The connections of an observation that are in the window.
    pub(crate) fn connections(self, observation: &Observation) -> Connections {
        if observation.last_seen < self.start {
            return Connections::default();
        }
        if observation.first_seen >= self.start {
            return Connections { allowed: observation.allowed, refused: observation.refused };
        }
        let sum = |of: fn(&DayCount) -> u64, all: u64| {
            let kept = observation.days.iter().map(of).fold(0, u64::saturating_add);
            let within = observation.days.iter().filter(|day| day.day >= self.start.day());
            let counted = within.map(of).fold(0, u64::saturating_add);
            // Days that are not kept apart any more.
            let reaches_back = self.start.day() <= self.day_before_kept();
            if reaches_back { counted.saturating_add(all.saturating_sub(kept)) } else { counted }
        };
        let mut connections = Connections {
            allowed: sum(|day| day.allowed, observation.allowed),
            refused: sum(|day| day.refused, observation.refused),
        };
        // One that was opened before the window may have been open in it. The ledger does not tell, even if what was seen last was a
        // refusal.
        if connections.allowed == 0 && observation.allowed > 0 {
            connections.allowed = 1;
        }
        connections
    }
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Client, Direction, RefusedFor, Transport};

    use super::*;

    const DAY: i64 = Timestamp::SECONDS_A_DAY;
    /// Noon of day 20,000.
    const NOW: i64 = 20_000 * DAY + DAY / 2;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn seen(first: i64, last: i64, allowed: u64, days: &[(i64, u64)]) -> Observation {
        let days = days.iter().map(|(day, allowed)| DayCount { day: *day, allowed: *allowed, refused: 0 });
        Observation {
            direction: Direction::Inbound,
            port: 80,
            transport: Transport::Plaintext,
            peer: Client::default(),
            allowed,
            refused: 0,
            bytes_received: 0,
            bytes_sent: 0,
            first_seen: at(first),
            last_seen: at(last),
            last_refusal: None,
            days: days.collect(),
        }
    }

    fn allowed(window: i64, observation: &Observation) -> u64 {
        let window = Window { seconds: u64::try_from(window).unwrap() };
        window.of(&Observations::default(), at(NOW)).connections(observation).allowed
    }

    #[test]
    fn a_window_ends_to_the_second() {
        let gone = seen(NOW - 100, NOW - 61, 9, &[(20_000, 9)]);
        assert_eq!([allowed(60, &gone), allowed(61, &gone), allowed(100, &gone)], [0, 9, 9]);
    }

    #[test]
    fn the_day_on_which_a_window_begins_counts_as_a_whole() {
        let two_days = seen(NOW - 3 * DAY, NOW, 10, &[(19_997, 1), (19_998, 2), (19_999, 3), (20_000, 4)]);
        assert_eq!([allowed(DAY, &two_days), allowed(2 * DAY, &two_days), allowed(3600, &two_days)], [7, 9, 4]);
        assert_eq!(allowed(3 * DAY, &two_days), 10);
    }

    #[test]
    fn a_window_longer_than_the_kept_days_counts_what_is_before_them() {
        let old = seen(NOW - 90 * DAY, NOW, 100, &[(19_993, 1), (20_000, 4)]);
        assert_eq!([allowed(7 * DAY, &old), allowed(8 * DAY, &old), allowed(365 * DAY, &old)], [5, 100, 100]);
    }

    #[test]
    fn a_connection_that_was_opened_before_the_window_may_have_been_open_in_it() {
        let open = seen(NOW - 5 * DAY, NOW - 1, 1, &[(19_995, 1)]);
        assert_eq!(allowed(DAY, &open), 1);
        let last = RefusedFor { reason: "plaintext_in_strict".to_owned(), policy: "-".to_owned(), at: at(NOW - 1) };
        let mut refused = Observation { refused: 1, last_refusal: Some(last), ..open };
        refused.days.push(DayCount { day: 20_000, allowed: 0, refused: 1 });
        assert_eq!(allowed(DAY, &refused), 1);
        assert_eq!(allowed(DAY, &Observation { allowed: 0, ..refused }), 0);
    }

    #[test]
    fn the_window_of_a_saved_answer_ends_when_it_was_made() {
        let mut saved = Observations::default();
        saved.proxy.now = at(NOW - 30 * DAY);
        let window = Window { seconds: 60 };
        let observation = seen(NOW - 31 * DAY, NOW - 30 * DAY, 3, &[]);
        assert_eq!(window.of(&saved, at(NOW)).connections(&observation).allowed, 1);
        assert_eq!(window.of(&Observations::default(), at(NOW)).connections(&observation).allowed, 0);
    }
}
