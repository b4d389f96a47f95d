//! `admin.tokenFile`: read for every request that changes something, so that the token can be replaced at any time.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use portcullis_admin::{Token, TokenError};
use portcullis_reload::FileSet;

use super::file_mode::SecretFileMode;

/// The file, and the problem with it that was logged last.
pub(super) struct TokenFile {
    path: PathBuf,
    state: Mutex<TokenState>,
}

struct TokenState {
    mode: SecretFileMode,
    problem: Option<TokenError>,
}

impl TokenFile {
    /// Reads it once, so that a mistake is logged before the token is needed.
    pub(super) fn new(path: PathBuf, require_private: bool) -> Self {
        let state = Mutex::new(TokenState { mode: SecretFileMode::new("token", require_private), problem: None });
        let file = Self { path, state };
        let _logged = file.read();
        file
    }

    /// The current token. A problem is logged once, so that callers cannot fill the log with it.
    pub(super) fn read(&self) -> Result<Token, TokenError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read_with(&mut state.mode);
        let problem = read.as_ref().err();
        if problem != state.problem.as_ref() {
            if let Some(problem) = problem {
                tracing::error!(file = %self.path.display(), %problem, "admin.tokenFile cannot be used: nothing can be changed");
            }
            state.problem = problem.cloned();
        }
        read
    }

    fn read_with(&self, mode: &mut SecretFileMode) -> Result<Token, TokenError> {
        let reading = FileSet::Files(vec![self.path.clone()]).read();
        let files = reading.complete().map_err(|errors| TokenError::File(errors.to_string()))?;
        let [file] = files.as_slice() else { return Err(TokenError::Short) };
        mode.check(file).map_err(TokenError::File)?;
        Token::parse(&file.content)
    }
}
