//! Annotations that say who wanted an exception, why, and until when.
//!
//! Any resource may carry them. Nothing is decided by them: an exception that has passed its end still holds, and is reported.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// What the annotations of one resource say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Documentation {
    /// `portcullis/owner`, or `owner`.
    pub owner: Option<String>,
    /// `portcullis/reason`, or `reason`.
    pub reason: Option<String>,
    /// `portcullis/expires`, or `expires`.
    pub expires: Option<Expiry>,
}

/// When an exception ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expiry {
    /// As it is written.
    pub text: String,
    /// The first moment at which it is over, in Unix time; `None` if what is written is no date, so that it never is.
    pub unix: Option<i64>,
}

impl Documentation {
    /// The annotations that an exception should have, without the prefix.
    pub const NAMES: [&'static str; 3] = ["owner", "reason", "expires"];
    /// The prefix of the names, which may be left out.
    pub const PREFIX: &'static str = "portcullis/";

    /// Reads them; `annotation` gives the value of an annotation by its whole name. The prefixed name wins, and an empty value is none.
    #[must_use]
    pub fn read<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let value = |name: &str| {
            let text = |name: &str| annotation(name).map(str::trim).filter(|text| !text.is_empty());
            text(&format!("{}{name}", Self::PREFIX)).or_else(|| text(name)).map(str::to_owned)
        };
        let [owner, reason, expires] = Self::NAMES.map(value);
        Self { owner, reason, expires: expires.map(Expiry::new) }
    }

    /// The names of those that are missing.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let present = [self.owner.is_some(), self.reason.is_some(), self.expires.is_some()];
        Self::NAMES.into_iter().zip(present).filter(|(_, present)| !present).map(|(name, _)| name).collect()
    }
}

impl Expiry {
    /// A day, which counts to its end, or a moment in RFC 3339.
    fn new(text: String) -> Self {
        let day = Date::parse(&text, format_description!("[year]-[month]-[day]")).ok();
        let end_of_day = day.and_then(Date::next_day).map(|next| next.midnight().assume_utc());
        let end = end_of_day.or_else(|| OffsetDateTime::parse(&text, &Rfc3339).ok());
        Self { unix: end.map(OffsetDateTime::unix_timestamp), text }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now_unix: i64) -> bool {
        self.unix.is_some_and(|end| end <= now_unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &'static str)]) -> Documentation {
        Documentation::read(|name| annotations.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn the_prefix_may_be_left_out_and_wins_where_it_is_not() {
        let both =
            read(&[("owner", "team-a"), ("portcullis/owner", "team-b"), ("reason", " "), ("portcullis/reason", "")]);
        assert_eq!((both.owner.as_deref(), both.missing()), (Some("team-b"), vec!["reason", "expires"]));
        assert_eq!(read(&[]), Documentation::default());
    }

    #[test]
    fn a_day_counts_to_its_end_and_what_is_no_date_never_ends() {
        let over = |text: &'static str, now| read(&[("expires", text)]).expires.unwrap().is_over(now);
        // 2026-12-31T00:00:00Z.
        let day = 1_798_675_200;
        assert!(!over("2026-12-31", day + 86_399) && over("2026-12-31", day + 86_400));
        assert!(!over("2026-12-31T01:00:00+01:00", day - 1) && over("2026-12-31T01:00:00+01:00", day));
        for wrong in ["tomorrow", "2026-02-30", "31.12.2026", "9999-12-31"] {
            assert!(!over(wrong, i64::MAX - 1), "{wrong}");
        }
    }
}
