//! The flags of this command, as the next one needs them: what a command prints to go on with can be pasted as it is.

use std::fmt::Display;
use std::time::Duration;

/// Flags, each with a space before it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Flags(String);

impl Flags {
    /// `--name value`, if there is a value.
    pub(crate) fn with(mut self, name: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.0.push_str(&format!(" {name} {}", quoted(&value.to_string())));
        }
        self
    }

    /// `--name=value`, or `--name` alone.
    pub(crate) fn with_optional(mut self, name: &str, value: Option<Option<impl Display>>) -> Self {
        match value {
            Some(Some(value)) => self.0.push_str(&format!(" {name}={}", quoted(&value.to_string()))),
            Some(None) => self.0.push_str(&format!(" {name}")),
            None => {}
        }
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// As the flags take it.
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        _ if length.subsec_millis() > 0 => format!("{}ms", length.as_millis()),
        1.. if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        1.. if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ => format!("{seconds}s"),
    }
}

/// For a shell.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_can_be_pasted() {
        let flags = Flags::default()
            .with("-c", Some("it's.yaml"))
            .with("-n", None::<&str>)
            .with_optional("--docker", Some(None::<&str>))
            .with("--window", Some(duration(Duration::from_secs(1_209_600))));
        assert_eq!(flags.as_str(), r" -c 'it'\''s.yaml' --docker --window 14d");
        let lengths = [0, 30, 7_200].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(lengths, ["0s", "30s", "2h"]);
        assert_eq!(duration(Duration::from_millis(1_500)), "1500ms");
    }
}
