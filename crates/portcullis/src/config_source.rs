//! Where the proxy's own configuration comes from: a file, standard input, or a variable of the environment.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_config::{Settings, is_name};
use portcullis_yaml::{MAX_FILE_BYTES, Problem};

use crate::exit::{Exit, Failure};
use crate::files;

/// The variable that may hold the text of a configuration: a compose file then needs no other.
const VARIABLE: &str = "PORTCULLIS_CONFIG";
/// The variable that says whose configuration it is: `NAMESPACE/NAME`. Sidecars can then share one text.
const WORKLOAD_VARIABLE: &str = "PORTCULLIS_WORKLOAD";
/// Where a configuration is looked for last.
const DEFAULT: &str = "/etc/portcullis/config.yaml";

/// Where a configuration is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ConfigSource {
    File(PathBuf),
    Stdin,
    Variable,
}

impl ConfigSource {
    /// The file that was named (`-` is standard input), else the variable, else the default file if it is there.
    pub(crate) fn find(named: Option<&Path>) -> Option<Self> {
        if let Some(file) = named {
            return Some(if files::is_stdin(file) { Self::Stdin } else { Self::File(file.to_owned()) });
        }
        if env::var_os(VARIABLE).is_some_and(|text| !text.is_empty()) {
            return Some(Self::Variable);
        }
        Path::new(DEFAULT).exists().then(|| Self::File(DEFAULT.into()))
    }

    /// As [`find`](Self::find), where there must be one.
    ///
    /// # Errors
    /// If there is none: the command line names no configuration.
    pub(crate) fn required(named: Option<&Path>) -> Result<Self, Failure> {
        Self::find(named).ok_or_else(|| {
            let message = format!(
                "there is no configuration: name a file with -c FILE, put its text into ${VARIABLE}, or a file at {DEFAULT}"
            );
            Failure::message(Exit::Usage, message)
        })
    }

    /// The text. At most one byte more than the limit: enough for the parser to report that it is too large.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(file) => read_file(file),
            Self::Stdin => read_limited(io::stdin().lock()).context(files::STDIN),
            Self::Variable => {
                let text = env::var_os(VARIABLE).unwrap_or_default().into_encoded_bytes();
                let workload = env::var_os(WORKLOAD_VARIABLE).filter(|workload| !workload.is_empty());
                match workload {
                    Some(workload) => with_workload(text, &workload.to_string_lossy()),
                    None => Ok(text),
                }
            }
        }
    }

    /// What the text means: the settings, or every mistake in it. Paths in it are relative to the folder of the file, or to
    /// the working directory.
    pub(crate) fn parse(&self, text: &[u8]) -> Result<Settings, Vec<Problem>> {
        portcullis_config::read(text, self.file().and_then(Path::parent).unwrap_or_else(|| Path::new("")))
    }

    /// Reads and parses, where nothing but the settings is wanted.
    ///
    /// # Errors
    /// If it cannot be read, or is wrong: every mistake of it, with its position.
    pub(crate) fn load(&self) -> Result<LoadedConfig, Failure> {
        let text = self.read().map_err(|error| Failure::new(Exit::BadConfig, error))?;
        match self.parse(&text) {
            Ok(settings) => Ok(LoadedConfig { settings, text }),
            Err(problems) => {
                let message = format!("bad configuration\n{}", self.lines(&problems).trim_end());
                Err(Failure::message(Exit::BadConfig, message))
            }
        }
    }

    /// One line for each mistake, `file:line:column: ...`.
    pub(crate) fn lines(&self, problems: &[Problem]) -> String {
        problems.iter().map(|problem| format!("{self}:{problem}\n")).collect()
    }

    /// `None` unless it is a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Stdin | Self::Variable => None,
        }
    }
}

/// A configuration, and the text that it was read from.
pub(crate) struct LoadedConfig {
    pub(crate) settings: Settings,
    pub(crate) text: Vec<u8>,
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Stdin => f.write_str(files::STDIN),
            Self::Variable => f.write_str(VARIABLE),
        }
    }
}

/// The text with the section that it leaves to the variable. A text that has one itself has two then, which the parser refuses.
fn with_workload(mut text: Vec<u8>, workload: &str) -> anyhow::Result<Vec<u8>> {
    let names = workload.split_once('/').filter(|(namespace, name)| is_name(namespace) && is_name(name));
    let Some((namespace, name)) = names else {
        anyhow::bail!("${WORKLOAD_VARIABLE} is {workload:?}; expected NAMESPACE/NAME, such as shop/cart");
    };
    let section = format!(
        "\nworkload: {{name: \"{name}\", namespace: \"{namespace}\", serviceAccount: \"{name}\", labels: {{app: \"{name}\"}}}}\n"
    );
    text.extend_from_slice(section.as_bytes());
    Ok(text)
}

fn read_file(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => anyhow::bail!(
            "{shown}: there is no such file; name the configuration with -c FILE, or put its text into ${VARIABLE}"
        ),
        other => other.with_context(|| shown.to_string())?,
    };
    let is_file = opened.metadata().with_context(|| shown.to_string())?.is_file();
    anyhow::ensure!(is_file, "{shown}: is not a regular file; a configuration is one file");
    read_limited(opened).with_context(|| shown.to_string())
}

fn read_limited(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_the_section_that_the_text_leaves_out() {
        let read = |text: &str, workload| {
            let text = with_workload(text.as_bytes().to_vec(), workload).map_err(|error| error.to_string())?;
            let lines = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<String>();
            portcullis_config::read(&text, Path::new("")).map_err(lines)
        };
        let rest = "policies: p\ninbound: {transparent: \"[::]:15006\"}";
        assert_eq!(read(rest, "shop/cart").unwrap().own_id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert!(read(&format!("{rest}\nworkload: {{name: web, namespace: shop}}"), "shop/cart").is_err());
        for wrong in ["cart", "shop/", "shop/a b", "a/b/c", "shop/x\"}"] {
            assert!(read(rest, wrong).unwrap_err().contains("shop/cart"), "{wrong}");
        }
    }
}
