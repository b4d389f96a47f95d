//! A word in the log before the own certificate ends, and one when it has: whoever renews it has failed, and no file changes
//! that could be told of.

use std::time::Duration;

use portcullis_tls::{CredentialReader, Credentials, utc};
use tokio::time::sleep;

/// A longer sleep would miss that the clock was set, or that the machine slept.
const LOOK: Duration = Duration::from_secs(30);
/// What is left of a certificate's life when it is warned about: this part of it. Issuers renew at half life, so one that
/// gets here was not renewed, and there is still time to find out why.
const LEFT: i64 = 3;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Word {
    Soon,
    Over,
}

/// One certificate's life, in Unix time.
#[derive(Clone, Copy)]
struct Life {
    generation: u64,
    from: i64,
    until: i64,
}

impl Life {
    fn of(credentials: &Credentials) -> Self {
        Self {
            generation: credentials.generation(),
            from: credentials.svid().leaf.not_before_unix,
            until: credentials.not_after_unix(),
        }
    }

    fn warn_from(self) -> i64 {
        self.until.saturating_sub(self.until.saturating_sub(self.from) / LEFT)
    }

    fn word_at(self, now: i64) -> Option<Word> {
        if now > self.until {
            return Some(Word::Over);
        }
        (now >= self.warn_from()).then_some(Word::Soon)
    }

    /// How long nothing will have to be said.
    fn quiet(self, now: i64) -> Duration {
        let next = if now < self.warn_from() { self.warn_from() } else { self.until.saturating_add(1) };
        u64::try_from(next.saturating_sub(now))
            .ok()
            .filter(|left| *left > 0)
            .map_or(LOOK, Duration::from_secs)
            .min(LOOK)
    }
}

/// What was said last, and of which certificate.
#[derive(Default)]
struct Said(Option<(u64, Word)>);

impl Said {
    /// Each word once for each certificate.
    fn due(&mut self, life: Life, now: i64) -> Option<Word> {
        let word = life.word_at(now)?;
        let next = (life.generation, word);
        if self.0.is_some_and(|said| said >= next) {
            return None;
        }
        self.0 = Some(next);
        Some(word)
    }
}

/// Watches the certificate in force; returns when there will be no other.
pub(super) async fn tell(reader: CredentialReader) {
    let (mut generations, mut said) = (reader.subscribe(), Said::default());
    loop {
        let mut quiet = LOOK;
        if let Some(credentials) = reader.latest() {
            let (life, now) = (Life::of(&credentials), credentials.now_unix());
            if let Some(word) = said.due(life, now) {
                log(word, life, now);
            }
            quiet = life.quiet(now);
        }
        tokio::select! {
            () = sleep(quiet) => {}
            changed = generations.changed() => if changed.is_err() { return },
        }
    }
}

fn log(word: Word, life: Life, now: i64) {
    let until = utc(life.until);
    match word {
        Word::Soon => tracing::warn!(
            until,
            seconds_left = life.until.saturating_sub(now),
            "the own certificate ends soon and was not renewed; see `identity`"
        ),
        Word::Over => tracing::error!(
            until,
            "the own certificate has expired: no handshake succeeds until it is replaced; see `identity`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_certificate_is_warned_about_once_and_told_of_once() {
        let life = |generation, until| Life { generation, from: 0, until };
        let mut said = Said::default();
        let mut at = |life, now| said.due(life, now);
        assert_eq!(at(life(1, 900), 599), None);
        assert_eq!(at(life(1, 900), 600), Some(Word::Soon));
        assert_eq!(at(life(1, 900), 700), None);
        assert_eq!(at(life(1, 900), 900), None, "its last second");
        assert_eq!(at(life(1, 900), 901), Some(Word::Over));
        assert_eq!(at(life(1, 900), 999), None);
        assert_eq!(at(life(2, 1800), 1000), None, "renewed");
        assert_eq!(at(life(2, 1800), 1200), Some(Word::Soon));
        assert_eq!(at(life(3, 900), 1300), Some(Word::Over), "never warned about, since it came too late");
    }

    #[test]
    fn it_wakes_when_there_is_something_to_say() {
        let life = Life { generation: 1, from: 0, until: 90 };
        let quiet = |now| life.quiet(now).as_secs();
        assert_eq!(
            [quiet(0), quiet(50), quiet(60), quiet(85), quiet(90), quiet(91), quiet(500)],
            [30, 10, 30, 6, 1, 30, 30]
        );
    }
}
