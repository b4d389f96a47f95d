//! Bootstrap tokens, with which a workload proves its identity before it has a certificate.
//!
//! A JWT for one ID, signed by the CA's own key with ES256. Short-lived, and valid for one certificate unless it
//! is reusable. Algorithm and key are fixed, so the header of a token selects neither.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use portcullis_identity::{SpiffeId, TrustDomain};
use rcgen::{KeyPair, PublicKeyData as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The audience, as in Istio's projected service account tokens.
const AUDIENCE: &str = "istio-ca";

/// The longest accepted token, in bytes.
const MAX_LEN: usize = 8 * 1024;

/// How far the issuer's clock may be ahead, in seconds.
const SKEW: i64 = 60;

/// Why a token is refused. The caller does not see the reason.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// No JWT, or claims are missing or of the wrong type.
    #[error("it is no token of this kind")]
    Malformed,
    /// Another algorithm than ES256, such as `none` or HS256.
    #[error("it is signed with another algorithm than ES256")]
    Algorithm,
    /// Not signed by this CA's token key.
    #[error("its signature is wrong; it may be of another CA, or of an older token key")]
    Signature,
    /// Made by another CA.
    #[error("it was issued by another CA")]
    Issuer,
    /// Made for another service.
    #[error("it is for another audience than {AUDIENCE}")]
    Audience,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It was issued in the future.
    #[error("it is not valid yet; check the clocks")]
    NotYetValid,
    /// Its subject is not a SPIFFE ID.
    #[error("its subject is not a SPIFFE ID")]
    Subject,
}

impl TokenError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Malformed => "token-malformed",
            Self::Algorithm => "token-algorithm",
            Self::Signature => "token-signature",
            Self::Issuer => "token-issuer",
            Self::Audience => "token-audience",
            Self::Expired => "token-expired",
            Self::NotYetValid => "token-not-yet-valid",
            Self::Subject => "token-subject",
        }
    }
}

/// Why the token key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// It is no private key in PEM.
    #[error("{0}")]
    Pem(#[from] portcullis_tls::PemError),
    /// It is not of the kind that ES256 needs.
    #[error("the key is not ECDSA on P-256, which ES256 needs")]
    Kind,
    /// No key or token can be made.
    #[error("the key or signature cannot be made: {0}")]
    Make(String),
}

/// The claims of a verified token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// The identity.
    pub id: SpiffeId,
    /// Its number.
    pub number: TokenNumber,
    /// The second at which it ends, in Unix time.
    pub expires_unix: i64,
    /// Whether it is good for more than one certificate.
    pub reusable: bool,
}

/// 128 random bits that no other token has.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct TokenNumber([u8; 16]);

impl TokenNumber {
    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        crate::hex::parse(text).map(Self)
    }

    /// A new one.
    ///
    /// # Errors
    /// If the operating system's random generator fails.
    pub fn random() -> Result<Self, TokenKeyError> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| TokenKeyError::Make("the operating system's random generator failed".to_owned()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::text(&self.0))
    }
}

impl fmt::Debug for TokenNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenNumber({self})")
    }
}

#[derive(Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reusable: bool,
}

/// Makes and verifies the tokens of one CA.
pub struct TokenKey {
    sign: EncodingKey,
    verify: DecodingKey,
    public: Vec<u8>,
    issuer: String,
}

impl PartialEq for TokenKey {
    /// Whether both verify tokens alike.
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public && self.issuer == other.issuer
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// A new key, as its file.
    ///
    /// # Errors
    /// If none can be made.
    pub fn generate() -> Result<Zeroizing<String>, TokenKeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        Ok(Zeroizing::new(pair.map_err(|error| TokenKeyError::Make(error.to_string()))?.serialize_pem()))
    }

    /// Reads the key of the CA of this trust domain.
    ///
    /// # Errors
    /// If it is not a P-256 key in PEM.
    pub fn read(file: &[u8], trust_domain: &TrustDomain) -> Result<Self, TokenKeyError> {
        let der = portcullis_tls::private_key(file)?;
        let pair = KeyPair::try_from(&*der).map_err(|_| TokenKeyError::Kind)?;
        if *pair.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(TokenKeyError::Kind);
        }
        Ok(Self {
            sign: EncodingKey::from_ec_der(&Zeroizing::new(pair.serialize_der())),
            verify: DecodingKey::from_ec_der(pair.der_bytes()),
            public: pair.der_bytes().to_vec(),
            issuer: format!("portcullis-ca:{trust_domain}"),
        })
    }

    /// Makes a token.
    ///
    /// # Errors
    /// If the random generator or the signature fails.
    pub fn issue(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        reusable: bool,
        now_unix: i64,
    ) -> Result<(String, Token), TokenKeyError> {
        let number = TokenNumber::random()?;
        let expires_unix = now_unix.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: id.to_string(),
            aud: AUDIENCE.to_owned(),
            iat: now_unix,
            exp: expires_unix,
            jti: number.to_string(),
            reusable,
        };
        let text = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.sign)
            .map_err(|error| TokenKeyError::Make(error.to_string()))?;
        Ok((text, Token { id: id.clone(), number, expires_unix, reusable }))
    }

    /// Verifies a token at a time. Does not check whether it was used before.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn verify(&self, text: &str, now_unix: i64) -> Result<Token, TokenError> {
        if text.len() > MAX_LEN {
            return Err(TokenError::Malformed);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        // Claims are checked below: with the caller's time, and each with a reason of its own.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(text, &self.verify, &validation).map_err(|error| reason(&error))?;
        let Claims { iss, sub, aud, iat, exp, jti, reusable } = claims.claims;
        let number = TokenNumber::parse(&jti).ok_or(TokenError::Malformed)?;
        if iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        if aud != AUDIENCE {
            return Err(TokenError::Audience);
        }
        if exp <= now_unix {
            return Err(TokenError::Expired);
        }
        if iat > now_unix.saturating_add(SKEW) {
            return Err(TokenError::NotYetValid);
        }
        let id = SpiffeId::parse(&sub).map_err(|_| TokenError::Subject)?;
        Ok(Token { id, number, expires_unix: exp, reusable })
    }
}

fn reason(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            TokenError::Algorithm
        }
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn domain() -> TrustDomain {
        TrustDomain::parse("cluster.local").unwrap()
    }

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap()
    }

    fn key() -> TokenKey {
        TokenKey::read(TokenKey::generate().unwrap().as_bytes(), &domain()).unwrap()
    }

    /// A token with claims of the caller's choice, well signed.
    fn with(key: &TokenKey, change: impl FnOnce(&mut serde_json::Value)) -> Result<Token, TokenError> {
        let mut claims = serde_json::json!({
            "iss": key.issuer, "sub": id().as_str(), "aud": AUDIENCE, "iat": NOW, "exp": NOW + 60, "jti": "0".repeat(32),
        });
        change(&mut claims);
        let text = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key.sign).unwrap();
        key.verify(&text, NOW)
    }

    #[test]
    fn a_token_says_what_it_was_made_with() {
        let key = key();
        for reusable in [false, true] {
            let (text, made) = key.issue(&id(), HOUR, reusable, NOW).unwrap();
            assert_eq!(key.verify(&text, NOW).unwrap(), made);
            assert_eq!(key.verify(&text, NOW + 3600), Err(TokenError::Expired));
            assert_eq!(key.verify(&text, NOW - 3600), Err(TokenError::NotYetValid));
        }
        assert!(with(&key, |_| ()).is_ok());
    }

    #[test]
    fn every_wrong_claim_has_its_reason() {
        let key = key();
        let refused = |name: &str, value: serde_json::Value| with(&key, |claims| claims[name] = value).unwrap_err();
        assert_eq!(refused("aud", "istiod".into()), TokenError::Audience);
        assert_eq!(refused("aud", serde_json::json!([AUDIENCE])), TokenError::Malformed);
        assert_eq!(refused("iss", "portcullis-ca:other".into()), TokenError::Issuer);
        assert_eq!(refused("sub", "cart".into()), TokenError::Subject);
        assert_eq!(refused("jti", "short".into()), TokenError::Malformed);
        assert_eq!(refused("exp", (NOW - 1).into()), TokenError::Expired);
        assert_eq!(refused("exp", serde_json::Value::Null), TokenError::Malformed);
    }

    #[test]
    fn other_keys_and_algorithms_are_refused() {
        let (key, other) = (key(), key());
        let (text, _) = other.issue(&id(), HOUR, false, NOW).unwrap();
        assert_eq!(key.verify(&text, NOW), Err(TokenError::Signature));
        // HS256 with our public key as the secret, and no signature at all.
        let (text, _) = key.issue(&id(), HOUR, false, NOW).unwrap();
        let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode(&text).unwrap().claims;
        let secret = EncodingKey::from_secret(key.verify.try_get_as_bytes().unwrap());
        let text = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert_eq!(key.verify(&text, NOW), Err(TokenError::Algorithm));
        let body = text.split('.').nth(1).unwrap();
        // {"alg":"none"}
        assert!(key.verify(&format!("eyJhbGciOiJub25lIn0.{body}."), NOW).is_err());
        for wrong in ["", ".", "..", "a.b.c", &"x".repeat(MAX_LEN + 1)] {
            assert_eq!(key.verify(wrong, NOW), Err(TokenError::Malformed), "{wrong:.9}");
        }
    }

    #[test]
    fn only_a_p256_key_signs_tokens() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        assert!(matches!(TokenKey::read(p384.as_bytes(), &domain()), Err(TokenKeyError::Kind)));
        assert!(matches!(TokenKey::read(b"x", &domain()), Err(TokenKeyError::Pem(_))));
    }
}
