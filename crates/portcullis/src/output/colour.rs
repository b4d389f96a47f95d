//! Colour: on a terminal only, unless the command line or the environment says otherwise.

use std::io::IsTerminal as _;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb` says no; `CLICOLOR_FORCE` says yes everywhere
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a cell says beside its words. Colour is never the only sign.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Style {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

impl Style {
    /// A text in this style, which must be clean.
    pub(crate) fn paint(self, text: &str, on: bool) -> String {
        match self.code().filter(|_| on) {
            Some(code) => format!("{code}{text}{RESET}"),
            None => text.to_owned(),
        }
    }

    /// The sequence that begins it; `None` for no change.
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Warn => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

/// Ends every style.
const RESET: &str = "\x1b[0m";

impl Colour {
    /// Whether standard output is coloured.
    pub(crate) fn is_on(self) -> bool {
        self.decide(|name| std::env::var(name).ok(), std::io::stdout().is_terminal())
    }

    fn decide(self, variable: impl Fn(&str) -> Option<String>, terminal: bool) -> bool {
        let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if is_set("NO_COLOR") => false,
            Self::Auto if is_set("CLICOLOR_FORCE") && variable("CLICOLOR_FORCE").as_deref() != Some("0") => true,
            Self::Auto => terminal && variable("TERM").as_deref() != Some("dumb"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_terminal() {
        let decide = |colour: Colour, set: &[(&str, &str)], terminal: bool| {
            let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            colour.decide(variable, terminal)
        };
        assert!(decide(Colour::Always, &[("NO_COLOR", "1")], false) && !decide(Colour::Never, &[], true));
        assert!(decide(Colour::Auto, &[], true) && !decide(Colour::Auto, &[], false));
        assert!(!decide(Colour::Auto, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(decide(Colour::Auto, &[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")], false));
        assert!(!decide(Colour::Auto, &[("CLICOLOR_FORCE", "0")], false));
        assert!(!decide(Colour::Auto, &[("TERM", "dumb")], true));
    }
}
