//! What a generated file was made from, as it says itself: a later run makes it again with one service more or less.

use serde_yaml::{Mapping, Value};

use crate::error::{Error, Problem};
use crate::file::ComposeFile;
use crate::request::{JoinedCa, Request};
use crate::spec::{keys, set};
use crate::yaml::{list, scalar};

/// The key at the top of a generated file. Compose leaves `x-` keys alone.
pub(crate) const KEY: &str = "x-portcullis";

/// `x-portcullis` of a generated file.
#[derive(Clone, Debug)]
pub struct Record {
    /// The name of the file that it was made from, in the same folder.
    pub original: String,
    /// A digest of that file's text: it tells whether the original was changed since.
    pub digest: String,
    /// What was asked for.
    pub request: Request,
}

impl Record {
    /// The value of the key.
    pub(crate) fn value(&self) -> Value {
        let Request { services, namespace, trust_domain, image, policies, joined } = &self.request;
        let mut record = keys([
            ("original", Value::from(self.original.as_str())),
            ("digest", Value::from(self.digest.as_str())),
            ("services", list(services.iter().map(String::as_str))),
            ("namespace", Value::from(namespace.as_str())),
            ("trustDomain", Value::from(trust_domain.to_string())),
            ("image", Value::from(image.as_str())),
            ("policies", Value::from(policies.as_str())),
        ]);
        if let Some(JoinedCa { address, token_file }) = joined {
            set(&mut record, "ca", Value::from(address.as_str()));
            set(&mut record, "tokenFile", Value::from(token_file.as_str()));
        }
        Value::Mapping(record)
    }
}

impl ComposeFile {
    /// What this file was made from, if it was made by an earlier run.
    ///
    /// # Errors
    /// If the record was changed by hand, so that it cannot be read.
    pub fn record(&self) -> Result<Option<Record>, Error> {
        let Some(written) = self.document().get(KEY) else { return Ok(None) };
        // The author's own settings of all services could be there as well; only a generated file names its original.
        if written.get("original").is_none() {
            return Ok(None);
        }
        let written = written.as_mapping().ok_or_else(|| unusable("original"))?;
        let services = written.get("services").and_then(Value::as_sequence).ok_or_else(|| unusable("services"))?;
        let trust_domain = text(written, "trustDomain")?;
        let request = Request {
            services: services.iter().filter_map(scalar).collect(),
            namespace: text(written, "namespace")?,
            trust_domain: trust_domain.parse().map_err(|_| unusable("trustDomain"))?,
            image: text(written, "image")?,
            policies: text(written, "policies")?,
            joined: match written.get("ca") {
                None => None,
                Some(_) => Some(JoinedCa { address: text(written, "ca")?, token_file: text(written, "tokenFile")? }),
            },
        };
        Ok(Some(Record { original: text(written, "original")?, digest: text(written, "digest")?, request }))
    }
}

fn text(record: &Mapping, key: &'static str) -> Result<String, Error> {
    record.get(key).and_then(scalar).filter(|text| !text.is_empty()).ok_or_else(|| unusable(key))
}

fn unusable(key: &'static str) -> Error {
    Error::Refused(vec![Problem::Record(key)])
}
