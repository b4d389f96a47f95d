//! One file for each command: its arguments, what it does, how it answers.

pub(crate) mod ca;
pub(crate) mod certs;
pub(crate) mod completion;
pub(crate) mod compose;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod healthcheck;
pub(crate) mod hold;
pub(crate) mod identity;
pub(crate) mod intercept;
pub(crate) mod proxy;
pub(crate) mod run;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod wait;

use std::time::Duration;

use crate::exit::{Exit, Failure};

/// How a command ends: with an answer, or with a reason why there is none.
pub(crate) type Outcome = Result<Exit, Failure>;

/// A whole number and a unit: how long to wait. Written out, since `5` alone would leave open what was meant.
fn duration(text: &str) -> Result<Duration, String> {
    // A day is enough for anybody who waits.
    match with_unit(text, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]) {
        Some(total @ 1..=86_400_000) => Ok(Duration::from_millis(total)),
        _ => Err("write a whole number and ms, s, m or h, such as 60s; at most 24h".to_owned()),
    }
}

/// A whole number times its unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_is_a_number_with_its_unit() {
        for (text, milliseconds) in [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("24h", 86_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "60", "s", "0s", "-1s", "1.5s", "60S", "60 s", "25h", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
