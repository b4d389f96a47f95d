//! Warns in the log before the own certificate expires, and when it has: its renewal has failed, and no change of a file
//! would show it.

use std::time::Duration;

use portcullis_tls::{CredentialReader, Credentials, utc};
use tokio::time::sleep;

/// A longer sleep would miss that the clock was set, or that the machine slept.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// The warning is logged when one part in this many of a certificate's lifetime is left. Issuers renew at half of it, so this one
/// was not renewed, and there is still time to find out why.
const WARN_FRACTION: i64 = 3;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Warning {
    ExpiresSoon,
    Expired,
}

/// The validity of one certificate, in Unix time.
#[derive(Clone, Copy)]
struct Validity {
    generation: u64,
    from: i64,
    until: i64,
}

impl Validity {
    fn of(credentials: &Credentials) -> Self {
        Self {
            generation: credentials.generation(),
            from: credentials.svid().leaf.not_before_unix,
            until: credentials.not_after_unix(),
        }
    }

    fn warn_from(self) -> i64 {
        self.until.saturating_sub(self.until.saturating_sub(self.from) / WARN_FRACTION)
    }

    fn warning_at(self, now: i64) -> Option<Warning> {
        if now > self.until {
            return Some(Warning::Expired);
        }
        (now >= self.warn_from()).then_some(Warning::ExpiresSoon)
    }

    /// How long no warning can be due.
    fn sleep_at(self, now: i64) -> Duration {
        let next = if now < self.warn_from() { self.warn_from() } else { self.until.saturating_add(1) };
        u64::try_from(next.saturating_sub(now))
            .ok()
            .filter(|left| *left > 0)
            .map_or(MAX_SLEEP, Duration::from_secs)
            .min(MAX_SLEEP)
    }
}

/// The last warning, with the generation of its certificate.
#[derive(Default)]
struct LastWarning(Option<(u64, Warning)>);

impl LastWarning {
    /// The warning that is due now: each once for each certificate.
    fn due(&mut self, validity: Validity, now: i64) -> Option<Warning> {
        let warning = validity.warning_at(now)?;
        let next = (validity.generation, warning);
        if self.0.is_some_and(|last| last >= next) {
            return None;
        }
        self.0 = Some(next);
        Some(warning)
    }
}

/// Watches the certificate in force; returns when there will be no other.
pub(super) async fn watch(reader: CredentialReader) {
    let (mut generations, mut last) = (reader.subscribe(), LastWarning::default());
    loop {
        let mut until_next = MAX_SLEEP;
        if let Some(credentials) = reader.latest() {
            let (validity, now) = (Validity::of(&credentials), credentials.now_unix());
            if let Some(warning) = last.due(validity, now) {
                log(warning, validity, now);
            }
            until_next = validity.sleep_at(now);
        }
        tokio::select! {
            () = sleep(until_next) => {}
            changed = generations.changed() => if changed.is_err() { return },
        }
    }
}

fn log(warning: Warning, validity: Validity, now: i64) {
    let until = utc(validity.until);
    match warning {
        Warning::ExpiresSoon => tracing::warn!(
            until,
            seconds_left = validity.until.saturating_sub(now),
            "the own certificate ends soon and was not renewed; see `identity`"
        ),
        Warning::Expired => tracing::error!(
            until,
            "the own certificate has expired: no handshake succeeds until it is replaced; see `identity`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_certificate_is_warned_about_once_before_and_once_after_its_end() {
        let validity = |generation, until| Validity { generation, from: 0, until };
        let mut last = LastWarning::default();
        let mut at = |validity, now| last.due(validity, now);
        assert_eq!(at(validity(1, 900), 599), None);
        assert_eq!(at(validity(1, 900), 600), Some(Warning::ExpiresSoon));
        assert_eq!(at(validity(1, 900), 700), None);
        assert_eq!(at(validity(1, 900), 900), None, "its last second");
        assert_eq!(at(validity(1, 900), 901), Some(Warning::Expired));
        assert_eq!(at(validity(1, 900), 999), None);
        assert_eq!(at(validity(2, 1800), 1000), None, "renewed");
        assert_eq!(at(validity(2, 1800), 1200), Some(Warning::ExpiresSoon));
        assert_eq!(at(validity(3, 900), 1300), Some(Warning::Expired), "never warned about, since it came too late");
    }

    #[test]
    fn it_wakes_when_a_warning_may_be_due() {
        let validity = Validity { generation: 1, from: 0, until: 90 };
        let sleep = |now| validity.sleep_at(now).as_secs();
        assert_eq!(
            [sleep(0), sleep(50), sleep(60), sleep(85), sleep(90), sleep(91), sleep(500)],
            [30, 10, 30, 6, 1, 30, 30]
        );
    }
}
