//! A join token, as a caller of the CA sends it.
//!
//! - An accepted token is written back byte for byte, and accepted exactly if a second, naive reading accepts it.
//! - No error repeats digits of what was given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ca::{JoinNumber, JoinToken};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let accepted = JoinToken::parse(text);
    assert_eq!(accepted.is_ok(), naive(text), "{text:?}");
    match accepted {
        Ok(token) => {
            assert_eq!(token.text().as_str(), text);
            assert_eq!(JoinNumber::parse(&token.number().to_string()), Some(token.number()));
            let secret = &text[text.len() - 64..];
            assert!(!format!("{token:?} {} {:?}", token.secret_hash(), token.secret_hash()).contains(secret));
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.contains(char::is_control));
            // Words of a message may stand in what was given; digits of a secret stand in no message.
            let digits = text.split(|letter: char| !letter.is_ascii_hexdigit()).filter(|run| run.len() >= 12);
            assert!(digits.into_iter().all(|run| !shown.contains(run)), "{shown}");
        }
    }
});

fn naive(text: &str) -> bool {
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4 && parts[0] == "pcjoin1" && is_hex(parts[1], 12) && is_hex(parts[2], 64) && is_hex(parts[3], 64)
}
