//! The token that a change requires on an address other than loopback.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Shortest token: 16 random characters cannot be guessed over a network.
const MIN_LEN: usize = 16;
/// Longest one; a request's head must hold it.
const MAX_LEN: usize = 4096;

/// A token. It is not shown by `Debug`, and wiped from memory when dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<Vec<u8>>);

/// Why there is no usable token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read, or has a mode that cannot be accepted.
    #[error("{0}")]
    File(String),
    /// Too few characters.
    #[error("it has fewer than {MIN_LEN} characters; make one with: openssl rand -hex 32")]
    Short,
    /// Too many.
    #[error("it has more than {MAX_LEN} characters")]
    Long,
    /// Bytes that are not valid in a header.
    #[error("it is not one line of visible ASCII characters without a space")]
    Form,
}

impl Token {
    /// Parses the content of a token file; surrounding white space is ignored.
    ///
    /// # Errors
    /// If it is too short, too long, or not valid in a header.
    pub fn parse(content: &[u8]) -> Result<Self, TokenError> {
        let token = content.trim_ascii();
        if token.len() < MIN_LEN {
            return Err(TokenError::Short);
        }
        if token.len() > MAX_LEN {
            return Err(TokenError::Long);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Form);
        }
        Ok(Self(Zeroizing::new(token.to_vec())))
    }

    /// Whether these are the same, in a time that depends on the lengths alone.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        self.0.as_slice().ct_eq(shown).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_that_cannot_be_guessed() {
        let token = Token::parse(b"0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcdef\n"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        for (content, error) in [
            (b"\n\n  \n                ".to_vec(), TokenError::Short),
            (b"0123456789abcde\n".to_vec(), TokenError::Short),
            (b"0123456789 abcdef".to_vec(), TokenError::Form),
            (b"0123456789abcdef\n0123456789abcdef".to_vec(), TokenError::Form),
            ("0123456789abcdefé".as_bytes().to_vec(), TokenError::Form),
            (vec![b'a'; MAX_LEN + 1], TokenError::Long),
        ] {
            assert_eq!(Token::parse(&content).unwrap_err(), error);
        }
    }
}
