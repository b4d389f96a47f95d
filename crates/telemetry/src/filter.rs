//! Which log lines are written: the words of `--log-level` and of the admin page that changes them.
//!
//! The parsers of `tracing-subscriber` take a misspelt level for the name of a target, and so silence everything without a
//! word. So the words are read here, and what is not known is refused. Its `EnvFilter` also knows spans and patterns, which
//! nothing here has, at the price of an engine for regular expressions in the binary.

use std::collections::BTreeMap;
use std::fmt;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// The levels, from nothing to everything.
const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];
/// Warns of each failed attempt; the sidecar says it once, in its own words.
const QUIET: &str = "kube_runtime";
/// Longest filter that is read; also what bounds the number of targets that can be named in it.
const MAX_LEN: usize = 1024;

/// A level for everything, and others for single targets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    level: Option<LevelFilter>,
    targets: BTreeMap<String, LevelFilter>,
}

/// Why a filter is not one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses `level` or `target=level`, or several of them between commas.
    ///
    /// # Errors
    /// If it is empty or too long, names two levels for one thing, or has a word that is neither.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_LEN {
            return Err(FilterError(format!("a log filter has at most {MAX_LEN} bytes")));
        }
        let mut filter = Self { level: None, targets: BTreeMap::new() };
        for part in text.split(',').map(str::trim) {
            let twice = match part.split_once('=') {
                None => filter.level.replace(level(part)?).is_some(),
                Some((target, word)) => filter.targets.insert(self::target(target)?, level(word)?).is_some(),
            };
            if twice {
                return Err(FilterError(format!("{part:?} says again what was said already")));
            }
        }
        Ok(filter)
    }

    /// What holds when `change` is asked for: with a level for everything it replaces this filter, and with targets alone
    /// it is added.
    ///
    /// # Errors
    /// If that would be too long.
    pub fn changed_by(&self, change: Self) -> Result<Self, FilterError> {
        let mut changed = change;
        if changed.level.is_none() {
            changed.level = self.level;
            for (target, level) in &self.targets {
                changed.targets.entry(target.clone()).or_insert(*level);
            }
        }
        // Also the way to keep somebody from adding targets without end.
        Self::parse(&changed.to_string())
    }

    /// As a subscriber takes it. What neither has a level of its own nor one for everything is not written.
    pub(crate) fn targets(&self) -> Targets {
        let quiet = self.level.filter(|level| *level <= LevelFilter::INFO).map(|level| level.min(LevelFilter::ERROR));
        let targets = quiet.into_iter().fold(Targets::new(), |targets, level| targets.with_target(QUIET, level));
        let targets = targets.with_targets(self.targets.clone());
        self.level.into_iter().fold(targets, Targets::with_default)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        if let Some(level) = self.level {
            write!(f, "{level}")?;
            comma = ",";
        }
        for (target, level) in &self.targets {
            write!(f, "{comma}{target}={level}")?;
            comma = ",";
        }
        Ok(())
    }
}

fn level(word: &str) -> Result<LevelFilter, FilterError> {
    let known = LEVELS.into_iter().find(|level| level.to_string().eq_ignore_ascii_case(word));
    known.ok_or_else(|| {
        let levels = LEVELS.map(|level| level.to_string()).join(", ");
        FilterError(format!("{word:?} is no log level; there are: {levels}"))
    })
}

/// Targets are module paths, or words of ours such as `access`.
fn target(name: &str) -> Result<String, FilterError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    if name.is_empty() || !name.bytes().all(good) {
        return Err(FilterError(format!("{name:?} is no target of log lines; write for example access=debug")));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_library_is_quiet_unless_it_is_asked_for() {
        for (text, writes) in [
            ("info", false),
            ("warn,access=debug", false),
            ("info,kube_runtime=warn", true),
            ("debug", true),
            ("kube_runtime=debug", true),
        ] {
            let targets = Filter::parse(text).unwrap().targets();
            assert_eq!(targets.would_enable("kube_runtime::watcher", &Level::WARN), writes, "{text}");
        }
        let off = Filter::parse("off").unwrap().targets();
        assert!(!off.would_enable("kube_runtime::watcher", &Level::ERROR));
    }

    #[test]
    fn levels_and_targets_are_read_and_shown_in_one_form() {
        for (text, shown) in [
            ("debug", "debug"),
            ("INFO", "info"),
            ("access=off", "access=off"),
            (" warn, portcullis_proxy::inbound=trace ,access=info", "warn,access=info,portcullis_proxy::inbound=trace"),
        ] {
            assert_eq!(Filter::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_level_is_refused_and_not_taken_for_a_target() {
        let long = "a".repeat(MAX_LEN + 1);
        for wrong in [
            "",
            "debg",
            "info,",
            "info,warn",
            "access=loud",
            "=info",
            "a=b=c",
            "a=info,a=warn",
            "[x]=info",
            "a b=info",
            &long,
        ] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
        let error = Filter::parse("de\nbug").unwrap_err().to_string();
        assert!(!error.contains('\n') && error.contains("off, error, warn"), "{error}");
    }

    #[test]
    fn a_level_replaces_everything_and_a_target_is_added() {
        let changed = |from: &str, change: &str| {
            Filter::parse(from).unwrap().changed_by(Filter::parse(change).unwrap()).unwrap().to_string()
        };
        assert_eq!(changed("info", "access=debug"), "info,access=debug");
        assert_eq!(changed("info,access=debug", "access=off,watch=trace"), "info,access=off,watch=trace");
        assert_eq!(changed("info,access=debug", "warn"), "warn");
        assert_eq!(changed("access=debug", "watch=info"), "access=debug,watch=info");
    }

    #[test]
    fn a_line_passes_by_its_nearest_target_and_else_by_the_level_for_everything() {
        let passes =
            |filter: &str, target: &str, level| Filter::parse(filter).unwrap().targets().would_enable(target, &level);
        assert!(passes("info", "access", Level::INFO) && !passes("info", "access", Level::DEBUG));
        assert!(!passes("info,access=warn", "access", Level::INFO) && passes("info,access=warn", "watch", Level::INFO));
        assert!(passes("off,portcullis_proxy=debug", "portcullis_proxy::inbound", Level::DEBUG));
        assert!(!passes(
            "portcullis_proxy=debug,portcullis_proxy::inbound=off",
            "portcullis_proxy::inbound",
            Level::ERROR
        ));
        assert!(!passes("access=debug", "watch", Level::ERROR), "no level for everything");
    }

    #[test]
    fn targets_cannot_be_added_without_end() {
        let mut filter = Filter::parse("info").unwrap();
        let refused = (0..1000).find(|n| match filter.changed_by(Filter::parse(&format!("target{n}=info")).unwrap()) {
            Ok(changed) => {
                filter = changed;
                false
            }
            Err(_) => true,
        });
        assert!(refused.is_some_and(|n| n > 10), "{refused:?}");
    }
}
