//! The resources that a command line names with -f.

use std::path::PathBuf;

use portcullis_manifest::{Object, read};
use portcullis_policy::PolicySet;
use portcullis_tls::Clock;

use super::folder::{refuse, text_file};
use crate::exit::{Exit, Failure};
use crate::files::Policies;
use crate::output;

/// Reads the resources; every mistake in them is told with its position.
pub(super) fn objects(paths: &[PathBuf], namespace: Option<&str>) -> Result<Vec<Object>, Failure> {
    let Policies { sources, errors } = Policies::read(paths);
    refuse(&errors)?;
    let loaded = PolicySet::load_at(&sources, Clock::system().now_unix());
    refuse(&loaded.errors)?;
    // What the set says of conflicts is told of the whole set.
    let ignored: Vec<_> = loaded.warnings.iter().filter(|warning| warning.reason == "ignored-kind").collect();
    for warning in &ignored {
        output::note(&format!("warning: {warning}"));
    }
    let mut objects = Vec::new();
    for source in sources {
        let file = text_file(source)?;
        objects.extend(read(&file.text));
    }
    if objects.len() != loaded.documents.saturating_sub(ignored.len()) {
        let message = "there are resources of kinds that are not applied one by one, such as IstioOperator; put their file into the \
                       policy folder by hand";
        return Err(Failure::message(Exit::BadInput, message));
    }
    if objects.is_empty() {
        return Err(Failure::message(Exit::BadInput, "no objects passed to apply"));
    }
    if let Some(wanted) = namespace
        && let Some(other) = objects.iter().find(|object| object.id.namespace != wanted)
    {
        let own = &other.id.namespace;
        let message = format!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{wanted}\". You must pass \
             '--namespace={own}' to perform this operation."
        );
        return Err(Failure::message(Exit::BadInput, message));
    }
    Ok(objects)
}
