//! Permission bits of a file that holds a secret: a key or a token.

use portcullis_reload::FileContent;

/// Checks the mode of one file: a world-writable file can be replaced, and a reader of it has the secret.
pub(super) struct SecretFileMode {
    what: &'static str,
    required: bool,
    warned: bool,
}

impl SecretFileMode {
    /// `what` names the secret in messages; with `required` a file that others can read is refused, not only warned about.
    pub(super) const fn new(what: &'static str, required: bool) -> Self {
        Self { what, required, warned: false }
    }

    /// Refuses a file that anybody can write; warns once about one that others can read, or refuses it if so required.
    pub(super) fn check(&mut self, file: &FileContent) -> Result<(), String> {
        let (shown, mode, what) = (file.path.display(), file.mode, self.what);
        if mode & 0o002 != 0 {
            return Err(format!("{shown}: anybody may write this {what} (mode {mode:o}); chmod 600 it"));
        }
        if mode & 0o044 == 0 {
            return Ok(());
        }
        if self.required {
            return Err(format!("{shown}: others may read this {what} (mode {mode:o}); chmod 600 it"));
        }
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(file = %shown, mode = %format_args!("{mode:o}"), "others may read this {what}; chmod 600 it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_others_can_write_are_refused_and_readable_ones_only_if_required() {
        let file = |mode| FileContent { path: "token".into(), content: b"x".to_vec().into(), mode };
        for (mode, lenient, strict) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, true, false),
            (0o644, true, false),
            (0o602, false, false),
        ] {
            assert_eq!(SecretFileMode::new("token", false).check(&file(mode)).is_ok(), lenient, "{mode:o}");
            assert_eq!(SecretFileMode::new("token", true).check(&file(mode)).is_ok(), strict, "{mode:o}");
        }
    }
}
