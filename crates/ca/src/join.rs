//! Join tokens, with which another host gets the trust bundle and its first bootstrap tokens.
//!
//! `pcjoin1.NUMBER.ROOT.SECRET`: a public number for lists and logs, the SHA-256 of the root certificate at which the CA's server
//! certificate ends, and 256 random bits. The joining host compares the root first, and sends the secret afterwards. The CA keeps
//! the SHA-256 of the secret only; a hash without salt is enough, since the secret is random.

use std::fmt;

use zeroize::Zeroizing;

use crate::hex;

/// The first part of each token. Another format gets another one.
const PREFIX: &str = "pcjoin1";
/// The parts of a token.
const FORM: &str = "pcjoin1.NUMBER.ROOT.SECRET";

/// Why a text is no join token. Never repeats the text, which may hold a secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JoinTokenError {
    /// Something else.
    #[error("it is no join token: one begins with `{PREFIX}.`; `portcullis ca join-token create` makes it")]
    Prefix,
    /// A part is missing, or there is one more.
    #[error("it has {0} parts, and a join token has four: {FORM}; copy all of it")]
    Parts(usize),
    /// A part is not hexadecimal, or of another length.
    #[error("its part {part} is not {digits} digits of lower-case hexadecimal: {FORM}; copy all of it")]
    Part {
        /// Which one.
        part: &'static str,
        /// How long it is.
        digits: usize,
    },
}

/// The public number of a join token: 48 random bits.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct JoinNumber([u8; 6]);

impl JoinNumber {
    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::parse(text).map(Self)
    }
}

impl fmt::Display for JoinNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl fmt::Debug for JoinNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinNumber({self})")
    }
}

/// The SHA-256 of a token's secret: what the CA keeps of it.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::parse(text).map(Self)
    }

    /// Whether both are the same, in a time that says nothing of them.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A join token.
pub struct JoinToken {
    number: JoinNumber,
    root: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("number", &self.number).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// A new one for a CA whose server certificate ends at `root`: the SHA-256 of that certificate in hexadecimal. `None` if that is no
    /// SHA-256, or the random generator of the operating system fails.
    #[must_use]
    pub fn random(root: &str) -> Option<Self> {
        let (mut number, mut secret) = ([0; 6], Zeroizing::new([0; 32]));
        aws_lc_rs::rand::fill(&mut number).ok()?;
        aws_lc_rs::rand::fill(secret.as_mut_slice()).ok()?;
        Some(Self { number: JoinNumber(number), root: hex::parse(root)?, secret })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn parse(text: &str) -> Result<Self, JoinTokenError> {
        let parts: Vec<&str> = text.splitn(6, '.').collect();
        if parts.first() != Some(&PREFIX) {
            return Err(JoinTokenError::Prefix);
        }
        let [_, number, root, secret] = parts.as_slice() else { return Err(JoinTokenError::Parts(parts.len())) };
        let wrong = |part, digits| JoinTokenError::Part { part, digits };
        Ok(Self {
            number: JoinNumber::parse(number).ok_or_else(|| wrong("NUMBER", 12))?,
            root: hex::parse(root).ok_or_else(|| wrong("ROOT", 64))?,
            secret: Zeroizing::new(hex::parse(secret).ok_or_else(|| wrong("SECRET", 64))?),
        })
    }

    /// The whole token: a secret.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex::text(self.secret.as_slice()));
        Zeroizing::new(format!("{PREFIX}.{}.{}.{}", self.number, hex::text(&self.root), secret.as_str()))
    }

    /// Its public number.
    #[must_use]
    pub const fn number(&self) -> JoinNumber {
        self.number
    }

    /// The SHA-256 of the root certificate that the CA must show.
    #[must_use]
    pub const fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// What the CA keeps of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash(portcullis_tls::sha256(self.secret.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_token_is_read_as_it_was_written_and_never_shown() {
        let token = JoinToken::random(ROOT).unwrap();
        let text = token.text();
        let read = JoinToken::parse(&text).unwrap();
        assert_eq!(
            (read.number(), hex::text(read.root()), read.text()),
            (token.number(), ROOT.to_owned(), text.clone())
        );
        assert!(read.secret_hash().matches(&token.secret_hash()));
        assert!(!read.secret_hash().matches(&JoinToken::random(ROOT).unwrap().secret_hash()));
        let secret = text.rsplit('.').next().unwrap();
        let shown = format!("{token:?} {:?} {}", token.secret_hash(), token.secret_hash());
        assert!(!shown.contains(secret), "{shown}");
        assert!(JoinToken::random("short").is_none());
    }

    #[test]
    fn every_wrong_part_is_named_and_not_repeated() {
        let whole = JoinToken::random(ROOT).unwrap().text();
        let parts: Vec<&str> = whole.split('.').collect();
        let with = |at: usize, part: &str| {
            let mut parts = parts.clone();
            parts[at] = part;
            JoinToken::parse(&parts.join(".")).unwrap_err()
        };
        assert_eq!(with(0, "pcjoin2"), JoinTokenError::Prefix);
        assert_eq!(with(1, "5"), JoinTokenError::Part { part: "NUMBER", digits: 12 });
        assert_eq!(with(2, &ROOT.to_uppercase()), JoinTokenError::Part { part: "ROOT", digits: 64 });
        assert_eq!(with(3, "5ecret"), JoinTokenError::Part { part: "SECRET", digits: 64 });
        assert!(!with(3, "5ecret").to_string().contains("5ecret"));
        assert_eq!(JoinToken::parse(&parts[..3].join(".")).unwrap_err(), JoinTokenError::Parts(3));
        assert_eq!(JoinToken::parse("eyJhbGciOiJub25lIn0.a.b").unwrap_err(), JoinTokenError::Prefix);
        assert!(JoinToken::parse(&format!("{}.", whole.as_str())).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_written_back_byte_for_byte(text in "(pcjoin1)?[.]?[0-9a-f.]{0,20}|pcjoin1[.][0-9a-f]{12}[.][0-9a-f]{64}[.][0-9a-fA-F]{63,65}") {
            if let Ok(token) = JoinToken::parse(&text) {
                let written = token.text();
                prop_assert_eq!(written.as_str(), text);
            }
        }
    }
}
