//! `admin.tokenFile`: read whenever somebody wants a change, so that a token can be replaced at any time.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use portcullis_admin::{Token, TokenError};
use portcullis_reload::FileSet;

use super::private::Private;

/// The file, and what was said about it last.
pub(super) struct TokenFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    mode: Private,
    problem: Option<TokenError>,
}

impl TokenFile {
    /// Reads it once, so that a mistake is in the log before anybody needs the token.
    pub(super) fn new(path: PathBuf, require_private: bool) -> Self {
        let seen = Mutex::new(Seen { mode: Private::new("token", require_private), problem: None });
        let file = Self { path, seen };
        let _logged = file.read();
        file
    }

    /// The token as it is now. A problem is logged when it is new: a caller must not be able to fill the log with it.
    pub(super) fn read(&self) -> Result<Token, TokenError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read_with(&mut seen.mode);
        let problem = read.as_ref().err();
        if problem != seen.problem.as_ref() {
            if let Some(problem) = problem {
                tracing::error!(file = %self.path.display(), %problem, "admin.tokenFile cannot be used: nothing can be changed");
            }
            seen.problem = problem.cloned();
        }
        read
    }

    fn read_with(&self, mode: &mut Private) -> Result<Token, TokenError> {
        let reading = FileSet::Files(vec![self.path.clone()]).read();
        let files = reading.complete().map_err(|errors| TokenError::File(errors.to_string()))?;
        let [file] = files.as_slice() else { return Err(TokenError::Short) };
        mode.check(file).map_err(TokenError::File)?;
        Token::parse(&file.content)
    }
}
