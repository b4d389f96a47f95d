//! What has no sidecar.

use super::facts::{Known, MeshedService, Runs};
use super::model::Finding;
use crate::text::list;

pub(super) fn directory(known: &[&Known]) -> Vec<Finding> {
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        let places: Vec<String> = status
            .without_sidecar
            .iter()
            .map(|place| format!("{}/{} ({}:{})", place.namespace, place.name, place.file, place.line))
            .collect();
        let Some(first) = status.without_sidecar.first() else {
            return Finding::passed(Some(known), "its directory declares no service without one".to_owned());
        };
        Finding::warning(Some(known), format!("without a sidecar: {}", list(&places, 5)))
            .why(["connections to them are plaintext".to_owned()])
            .remedy(format!(
                "`portcullis compose add {}`, then label its endpoint `security.istio.io/tlsMode: istio`",
                first.name
            ))
            .at(Some(format!("{}:{}", first.file, first.line)))
    };
    known.iter().map(of).collect()
}

pub(super) fn containers(containers: Option<&[String]>) -> Vec<Finding> {
    let Some(containers) = containers else {
        return vec![Finding::skipped("no container engine was asked (--docker)")];
    };
    let Some(first) = containers.first() else {
        return vec![Finding::passed(None, "every container has one, or none is on these networks".to_owned())];
    };
    let finding = Finding::warning(None, format!("without a sidecar: {}", list(containers, 10)))
        .why(["what they send is plaintext, and no policy holds for what they receive".to_owned()])
        .remedy(format!("`portcullis compose add {first}` for those that belong to the mesh"));
    vec![finding]
}

/// Whether what has a sidecar runs behind it: an engine that restarts containers keeps no order and repeats nothing.
/// `is_down`: not one sidecar runs, so a stack is meant that does not run, and not a job in it that has ended.
pub(super) fn captured(meshed: Option<&Result<Vec<MeshedService>, String>>, is_down: bool) -> Vec<Finding> {
    match meshed {
        None => vec![Finding::skipped("no container engine was asked (--docker)")],
        Some(Err(error)) => vec![Finding::unchecked(None, error.clone())],
        Some(Ok(services)) if services.is_empty() => {
            vec![Finding::skipped("no compose project of this engine has sidecars")]
        }
        Some(Ok(services)) => services.iter().map(|meshed| service(meshed, is_down)).collect(),
    }
}

fn service(meshed: &MeshedService, is_down: bool) -> Finding {
    let MeshedService { project, service, runs, explanation, remedy } = meshed;
    let message = format!("{service} (project {project}): {explanation}");
    match runs {
        Runs::Captured => Finding::passed(None, message),
        Runs::Stopped if !is_down => Finding::warning(None, message)
            .why(["a job that has ended by itself is as it should be; this would run it again".to_owned()])
            .remedy(remedy.clone()),
        Runs::Stopped | Runs::Wrong => Finding::failed(None, message).remedy(remedy.clone()),
    }
}
