//! Who else may touch a file that holds a secret.

use portcullis_reload::FileContent;

/// The rule for one file: who may write it is trusted by it, so anybody is too many; who may read it knows the secret.
pub(super) struct Private {
    what: &'static str,
    required: bool,
    warned: bool,
}

impl Private {
    /// `what` is said in messages; with `required` a file that others may read is refused, not only warned about.
    pub(super) const fn new(what: &'static str, required: bool) -> Self {
        Self { what, required, warned: false }
    }

    /// Refuses a file that anybody may write; warns once about one that others may read, or refuses it if so required.
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
    fn who_may_write_is_refused_and_who_may_read_only_if_so_required() {
        let file = |mode| FileContent { path: "token".into(), content: b"x".to_vec().into(), mode };
        for (mode, lenient, strict) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, true, false),
            (0o644, true, false),
            (0o602, false, false),
        ] {
            assert_eq!(Private::new("token", false).check(&file(mode)).is_ok(), lenient, "{mode:o}");
            assert_eq!(Private::new("token", true).check(&file(mode)).is_ok(), strict, "{mode:o}");
        }
    }
}
