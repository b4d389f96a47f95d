//! The line of `.env` by which plain `docker-compose` commands use the generated file. Text in, text out.

/// What Compose reads: the files of the project, with colons.
const VARIABLE: &str = "COMPOSE_FILE";
const COMMENT: &str = "# portcullis compose: with this line, plain docker-compose commands keep the sidecars";

/// The value of `COMPOSE_FILE` in the text of a `.env`: the last line counts.
#[must_use]
pub fn compose_file(env: &str) -> Option<&str> {
    env.lines().rev().find_map(value).filter(|value| !value.is_empty())
}

/// The text in which Compose is told to use `file`, in place of what was there before. The earlier lines stay.
#[must_use]
pub fn with_compose_file(env: &str, file: &str) -> String {
    if compose_file(env) == Some(file) {
        return env.to_owned();
    }
    let newline = if env.is_empty() || env.ends_with('\n') { "" } else { "\n" };
    format!("{env}{newline}{COMMENT}\n{VARIABLE}={file}\n")
}

/// The text without what [`with_compose_file`] has added: an earlier value counts again.
#[must_use]
pub fn without_compose_file(env: &str, file: &str) -> String {
    let ours = |line: &str| line == COMMENT || value(line) == Some(file);
    env.split_inclusive('\n').filter(|line| !ours(line.trim_end_matches(['\n', '\r']))).collect()
}

/// The value, if the line sets the variable.
fn value(line: &str) -> Option<&str> {
    let line = line.trim();
    let value = line.strip_prefix("export ").unwrap_or(line).trim_start().strip_prefix(VARIABLE)?;
    let value = value.trim_start().strip_prefix('=')?.trim();
    let unquoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    Some(unquoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_removed_again_and_the_rest_stays() {
        for env in ["", "A=1\n", "COMPOSE_FILE=docker-compose.yml\nPASSWORD='x y'\n", "# COMPOSE_FILE=a\n"] {
            let added = with_compose_file(env, "compose.mesh.yaml");
            assert_eq!(compose_file(&added), Some("compose.mesh.yaml"), "{added}");
            assert_eq!(with_compose_file(&added, "compose.mesh.yaml"), added);
            assert_eq!(without_compose_file(&added, "compose.mesh.yaml"), env);
        }
        assert_eq!(with_compose_file("A=1", "m").lines().next(), Some("A=1"));
    }

    #[test]
    fn the_last_line_counts_in_every_form_in_which_it_may_be_written() {
        for (env, expected) in [
            ("", None),
            ("COMPOSE_FILE=", None),
            ("COMPOSE_FILES=a\n#COMPOSE_FILE=b", None),
            ("COMPOSE_FILE=a\nCOMPOSE_FILE=b:c", Some("b:c")),
            ("export COMPOSE_FILE = \"a b\"\r\n", Some("a b")),
        ] {
            assert_eq!(compose_file(env), expected, "{env}");
        }
    }
}
