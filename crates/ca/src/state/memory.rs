//! The state itself, without files: what a record changes, and what it may not change.

use std::collections::BTreeMap;

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::csr::KeyHash;
use crate::token::TokenNumber;

/// Things are forgotten so long after their end, in seconds, since a clock may be set back.
const FORGET_AFTER: i64 = 3600;

/// A certificate that is about to be handed out.
#[derive(Clone, Debug)]
pub struct Issuance {
    /// For whom.
    pub id: SpiffeId,
    /// With which key.
    pub key: KeyHash,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// Its last second, in Unix time.
    pub not_after_unix: i64,
    /// The root that it leads to: see [`crate::Signer::anchor`].
    pub anchor: String,
    /// The single-use token that it was asked for with, and when that ends.
    pub token: Option<(TokenNumber, i64)>,
}

/// Why a certificate is not handed out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The token has served already.
    #[error("the token was used before")]
    TokenUsed,
    /// R51: one key, one identity.
    #[error("the key is held by {0}")]
    KeyHeld(SpiffeId),
}

/// What is known of one identity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Last second of the certificate that lasts longest, in Unix time; 0 if it never had one.
    pub not_after_unix: i64,
    /// The digest of the trust bundles that it was last known to use.
    pub bundle: Option<String>,
    /// Last second of the certificate that lasts longest, for each root that any leads to. What was issued before that was
    /// noted is below the root with the empty name.
    pub below: BTreeMap<String, i64>,
}

/// What is written down.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Record {
    Issued {
        id: String,
        key: String,
        serial: String,
        not_after: i64,
        token: Option<(String, i64)>,
        /// Empty in what was written before roots were noted.
        #[serde(default)]
        anchor: String,
    },
    Bundle {
        id: String,
        digest: String,
    },
}

/// The state as a snapshot writes it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    tokens: Vec<(String, i64)>,
    keys: Vec<(String, String, i64)>,
    identities: Vec<(String, i64, Option<String>)>,
    /// ID, root, end. Not in what was written before roots were noted.
    #[serde(default)]
    below: Option<Vec<(String, String, i64)>>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    tokens: BTreeMap<TokenNumber, i64>,
    keys: BTreeMap<KeyHash, (SpiffeId, i64)>,
    identities: BTreeMap<SpiffeId, Identity>,
}

impl Memory {
    pub(super) fn check(&self, issuance: &Issuance, now_unix: i64) -> Result<(), Refusal> {
        if issuance.token.is_some_and(|(number, _)| self.is_used(number)) {
            return Err(Refusal::TokenUsed);
        }
        match self.keys.get(&issuance.key) {
            Some((holder, until)) if *holder != issuance.id && *until >= now_unix => {
                Err(Refusal::KeyHeld(holder.clone()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_used(&self, number: TokenNumber) -> bool {
        self.tokens.contains_key(&number)
    }

    pub(super) fn issued(&mut self, issuance: &Issuance) -> Record {
        let Issuance { id, key, serial, not_after_unix, anchor, token } = issuance;
        if let Some((number, until)) = token {
            self.tokens.insert(*number, *until);
        }
        let held = self.keys.entry(*key).or_insert_with(|| (id.clone(), *not_after_unix));
        let until = if held.0 == *id { held.1.max(*not_after_unix) } else { *not_after_unix };
        *held = (id.clone(), until);
        let identity = self.identities.entry(id.clone()).or_default();
        identity.not_after_unix = identity.not_after_unix.max(*not_after_unix);
        let below = identity.below.entry(anchor.clone()).or_default();
        *below = (*below).max(*not_after_unix);
        Record::Issued {
            id: id.to_string(),
            key: key.to_string(),
            serial: serial.clone(),
            not_after: *not_after_unix,
            token: token.map(|(number, until)| (number.to_string(), until)),
            anchor: anchor.clone(),
        }
    }

    /// `None` if that is known already.
    pub(super) fn bundle(&mut self, id: &SpiffeId, digest: &str) -> Option<Record> {
        let identity = self.identities.entry(id.clone()).or_default();
        if identity.bundle.as_deref() == Some(digest) {
            return None;
        }
        identity.bundle = Some(digest.to_owned());
        Some(Record::Bundle { id: id.to_string(), digest: digest.to_owned() })
    }

    pub(super) const fn identities(&self) -> &BTreeMap<SpiffeId, Identity> {
        &self.identities
    }

    /// Repeats what was written down. Doing so twice does no harm. `None` if it makes no sense.
    pub(super) fn replay(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Issued { id, key, serial, not_after, token, anchor } => {
                let token = match token {
                    Some((number, until)) => Some((TokenNumber::parse(&number)?, until)),
                    None => None,
                };
                let (id, key) = (SpiffeId::parse(&id).ok()?, KeyHash::parse(&key)?);
                self.issued(&Issuance { id, key, serial, not_after_unix: not_after, anchor, token });
            }
            Record::Bundle { id, digest } => {
                self.bundle(&SpiffeId::parse(&id).ok()?, &digest);
            }
        }
        Some(())
    }

    pub(super) fn forget(&mut self, now_unix: i64) {
        let kept = |until: i64| until.saturating_add(FORGET_AFTER) >= now_unix;
        self.tokens.retain(|_, until| kept(*until));
        self.keys.retain(|_, (_, until)| kept(*until));
        self.identities.retain(|_, identity| {
            identity.below.retain(|_, until| kept(*until));
            kept(identity.not_after_unix)
        });
    }

    pub(super) fn image(&self) -> Image {
        let key = |(key, (id, until)): (&KeyHash, &(SpiffeId, i64))| (key.to_string(), id.to_string(), *until);
        let identity =
            |(id, known): (&SpiffeId, &Identity)| (id.to_string(), known.not_after_unix, known.bundle.clone());
        Image {
            tokens: self.tokens.iter().map(|(number, until)| (number.to_string(), *until)).collect(),
            keys: self.keys.iter().map(key).collect(),
            identities: self.identities.iter().map(identity).collect(),
            below: Some(
                self.identities
                    .iter()
                    .flat_map(|(id, known)| {
                        known.below.iter().map(|(root, until)| (id.to_string(), root.clone(), *until))
                    })
                    .collect(),
            ),
        }
    }

    pub(super) fn from_image(image: Image) -> Option<Self> {
        let mut memory = Self::default();
        for (number, until) in image.tokens {
            memory.tokens.insert(TokenNumber::parse(&number)?, until);
        }
        for (key, id, until) in image.keys {
            memory.keys.insert(KeyHash::parse(&key)?, (SpiffeId::parse(&id).ok()?, until));
        }
        for (id, not_after_unix, bundle) in image.identities {
            // Without a list of roots all that is known is that there is a certificate.
            let below = match (&image.below, not_after_unix) {
                (None, until) if until > 0 => BTreeMap::from([(String::new(), until)]),
                _ => BTreeMap::new(),
            };
            memory.identities.insert(SpiffeId::parse(&id).ok()?, Identity { not_after_unix, bundle, below });
        }
        for (id, root, until) in image.below.unwrap_or_default() {
            memory.identities.get_mut(&SpiffeId::parse(&id).ok()?)?.below.insert(root, until);
        }
        Some(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_roots_were_noted_is_below_the_unknown_one() {
        let id = "spiffe://cluster.local/ns/shop/sa/cart";
        let image = format!(r#"{{"tokens":[],"keys":[],"identities":[["{id}",1800000000,null]]}}"#);
        let memory = Memory::from_image(serde_json::from_str(&image).unwrap()).unwrap();
        let id = SpiffeId::parse(id).unwrap();
        assert_eq!(memory.identities[&id].below, BTreeMap::from([(String::new(), 1_800_000_000)]));
        // Written again, it is the same.
        let again = serde_json::from_str(&serde_json::to_string(&memory.image()).unwrap()).unwrap();
        assert_eq!(Memory::from_image(again).unwrap().identities, memory.identities);
        let mut memory = Memory::default();
        let record = format!(
            r#"{{"Issued":{{"id":"{id}","key":"{}","serial":"40","not_after":1800000000,"token":null}}}}"#,
            "0a".repeat(32)
        );
        memory.replay(serde_json::from_str(&record).unwrap()).unwrap();
        assert_eq!(memory.identities[&id].below, BTreeMap::from([(String::new(), 1_800_000_000)]));
    }
}
