//! Policies: there, in force as they are written, and the same everywhere.

use crate::guard::RECOVERY_FILE;
use std::collections::BTreeMap;

use portcullis_api::{BreakGlass, Mode, PeerAuthentication, Policies, Timestamp};

use super::facts::Known;
use super::model::Finding;
use crate::text::{length, list};

pub(super) fn folder(known: &[&Known]) -> Vec<Finding> {
    known.iter().map(|known| folder_of(&known.policies, &known.proxy.default_mode, Some(known))).collect()
}

/// Whether there is a folder, and anything in it.
pub(super) fn folder_of(policies: &Policies, default: &Mode, about: Option<&Known>) -> Finding {
    let default = default.as_str();
    let Some(folder) = &policies.folder else {
        return Finding::warning(
            about,
            format!("it has no policy folder: mesh.defaultMode {default} holds for every port"),
        )
        .remedy("set `policies` in its configuration".to_owned());
    };
    let (peer, authorization) = (policies.policies.len(), policies.authorization_policies.len());
    if peer == 0 && authorization == 0 {
        return Finding::warning(
            about,
            format!("{folder} has no policy: mesh.defaultMode {default} holds for every port"),
        )
        .remedy(format!("apply one (`portcullis apply -f POLICY.yaml --policies {folder}`), or correct the mount"))
        .at(Some(folder.clone()));
    }
    let numbers = format!("PeerAuthentications: {peer}, AuthorizationPolicies: {authorization}, in {folder}");
    Finding::passed(about, numbers)
}

pub(super) fn files(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    let of = |known: &&Known| {
        let policies = &known.policies;
        let folder = policies.folder.as_deref()?;
        let Some(problem) = &policies.problem else {
            let loaded = policies.loaded_at.map_or_else(String::new, |at| format!(" since {at}"));
            return Some(Finding::passed(Some(known), format!("its files are in force{loaded}")));
        };
        let since =
            problem.since.map_or_else(String::new, |since| format!(" for {}", length(now.seconds_since(since))));
        let loaded = policies.loaded_at.map_or_else(|| "from before".to_owned(), |at| format!("of {at}"));
        let location = problem.message.lines().find_map(location);
        let place = location.clone().unwrap_or_else(|| folder.to_owned());
        Some(
            Finding::failed(
                Some(known),
                format!("its files have a mistake{since}; the last valid set, {loaded}, stays in force"),
            )
            .why(problem.message.lines().map(str::to_owned))
            .remedy(format!("correct {place}; `portcullis validate -f {folder}` lists every mistake"))
            .at(location),
        )
    };
    let findings: Vec<Finding> = known.iter().filter_map(of).collect();
    or_no_folder(findings)
}

/// The `file:line:column` that a message begins with.
pub(super) fn location(line: &str) -> Option<String> {
    let (place, _) = line.split_once(": ")?;
    let (_, last) = place.rsplit_once(':')?;
    last.parse::<u32>().is_ok().then(|| place.to_owned())
}

fn or_no_folder(findings: Vec<Finding>) -> Vec<Finding> {
    if findings.is_empty() { vec![Finding::skipped("no proxy has a policy folder")] } else { findings }
}

/// The hash that most sidecars have; among those that as many have, the one that was loaded last.
pub fn most_common_hash<'a>(all: impl Iterator<Item = &'a Policies>) -> Option<String> {
    let mut count: BTreeMap<&str, (usize, Option<Timestamp>)> = BTreeMap::new();
    for policies in all {
        if let Some(hash) = &policies.hash {
            let (proxies, loaded) = count.entry(hash).or_default();
            *proxies = proxies.saturating_add(1);
            *loaded = (*loaded).max(policies.loaded_at);
        }
    }
    count.into_iter().max_by_key(|(_, order)| *order).map(|(hash, _)| hash.to_owned())
}

pub(super) fn equal(known: &[&Known]) -> Vec<Finding> {
    let with_folder: Vec<&&Known> = known.iter().filter(|known| known.policies.folder.is_some()).collect();
    if with_folder.len() < 2 {
        return vec![Finding::skipped("fewer than two proxies have a policy folder: there is nothing to compare")];
    }
    let common = most_common_hash(with_folder.iter().map(|known| &known.policies));
    let of = |known: &&&Known| {
        let Some(hash) = &known.policies.hash else { return Finding::too_old(known) };
        if Some(hash) == common.as_ref() {
            return Finding::passed(Some(known), format!("it has the set {} that most have", short(hash)));
        }
        let loaded = known.policies.loaded_at.map_or_else(String::new, |at| format!(", loaded at {at}"));
        let folder = known.policies.folder.as_deref().unwrap_or_default();
        Finding::failed(Some(known), format!("it has another set of policies than most: {}{loaded}", short(hash)))
            .why(common.as_deref().map(|common| format!("most proxies have {}", short(common))))
            .remedy(format!(
                "bring {folder} up to date; if policy-files fails as well, correct that first; `portcullis proxy-status` shows who has what"
            ))
            .at(Some(folder.to_owned()))
    };
    with_folder.iter().map(of).collect()
}

/// As git shortens.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

pub(super) fn mesh_wide(known: &[&Known]) -> Vec<Finding> {
    let with_folder = known.iter().filter(|known| known.policies.folder.is_some());
    let of = |known: &&Known| {
        let (root, default) = (&known.proxy.root_namespace, known.proxy.default_mode);
        mesh_wide_of(&known.policies, root, default, Some(known))
    };
    or_no_folder(with_folder.map(of).collect())
}

/// Whether a policy without a selector in the root namespace decides where no other does.
pub(super) fn mesh_wide_of(policies: &Policies, root: &str, default: Mode, about: Option<&Known>) -> Finding {
    let is_mesh_wide = |policy: &&PeerAuthentication| {
        policy.namespace == root && policy.selector.as_ref().is_none_or(BTreeMap::is_empty) && !policy.dry_run
    };
    let found = policies.policies.iter().find(is_mesh_wide);
    let holds = format!("mesh.defaultMode {}", default.as_str());
    let (message, location) = match found {
        Some(policy) if policy.mode != "UNSET" => {
            let text =
                format!("PeerAuthentication {root}/{}: {} ({}:{})", policy.name, policy.mode, policy.file, policy.line);
            return Finding::passed(about, text);
        }
        Some(policy) => {
            let place = format!("{}:{}", policy.file, policy.line);
            (
                format!("{root}/{} leaves the mode UNSET, so {holds} holds where no other policy applies", policy.name),
                Some(place),
            )
        }
        None => (
            format!("no PeerAuthentication of {root} without a selector: {holds} holds where no other policy applies"),
            None,
        ),
    };
    if default == Mode::Strict {
        return Finding::passed(about, message);
    }
    let remedy = format!(
        "apply a PeerAuthentication in namespace {root} without a selector that sets a mode; `portcullis readiness` says who would break under STRICT"
    );
    Finding::warning(about, message).remedy(remedy).at(location)
}

/// Whether plaintext is let in for a limited time, at the workloads of these sidecars.
pub(super) fn break_glass(known: &[&Known], now: Timestamp) -> Vec<Finding> {
    known.iter().flat_map(|known| break_glass_of(known, now)).collect()
}

fn break_glass_of(known: &Known, now: Timestamp) -> Vec<Finding> {
    let Some(documents) = &known.policies.break_glass else { return vec![Finding::too_old(known)] };
    let is_own = |it: &&BreakGlass| {
        it.is_active
            && it.namespace == known.proxy.namespace
            && it.selector.iter().flatten().all(|(key, value)| known.proxy.labels.get(key) == Some(value))
    };
    let open: Vec<Finding> = documents
        .iter()
        .filter(is_own)
        .map(|it| {
            let left =
                it.until.map_or_else(String::new, |until| format!(" for {} more", length(until.seconds_since(now))));
            let who = it.owner.as_ref().map_or_else(String::new, |owner| format!(", {owner}"));
            let message = format!("{}/{} lets plaintext in{left}: {}{who}", it.namespace, it.name, it.reason);
            Finding::warning(Some(known), message)
                .remedy(format!(
                    "it ends by itself; end it now with `portcullis delete pa/{} -n {}`, or with break-glass --end",
                    it.name, it.namespace
                ))
                .at(Some(format!("{}:{}", it.file, it.line)))
        })
        .collect();
    if open.is_empty() { vec![Finding::passed(Some(known), "none".to_owned())] } else { open }
}

pub(super) fn ignored(known: &[&Known]) -> Vec<Finding> {
    let with_folder = known.iter().filter(|known| known.policies.folder.is_some());
    let of = |known: &&Known| {
        let Some(status) = &known.status else { return Finding::too_old(known) };
        let Some(ignored) = &status.ignored_files else { return Finding::too_old(known) };
        ignored_of(ignored.iter().map(|file| (file.file.as_str(), file.reason.as_str())), Some(known))
    };
    or_no_folder(with_folder.map(of).collect())
}

pub(super) fn ignored_of<'a>(files: impl Iterator<Item = (&'a str, &'a str)>, about: Option<&Known>) -> Finding {
    let (guards, files): (Vec<_>, Vec<_>) = files.partition(|(file, _)| file.ends_with(RECOVERY_FILE));
    if let Some((file, _)) = guards.first() {
        let message = format!("a guarded change is open ({file}): it may still be taken back");
        return Finding::warning(about, message).remedy(
            "`portcullis diff` says which process watches it; if that is gone, end it with `portcullis apply --take-back`, --resume or \
             --accept"
                .to_owned(),
        );
    }
    let files: Vec<String> = files
        .into_iter()
        .map(|(file, reason)| match reason {
            "hidden" => format!("{file} (its name begins with a dot)"),
            "extension" => format!("{file} (it does not end in .yaml, .yml or .json)"),
            other => format!("{file} ({other})"),
        })
        .collect();
    if files.is_empty() {
        return Finding::passed(about, "no file is ignored".to_owned());
    }
    Finding::warning(about, format!("ignored files: {}", list(&files, 5)))
        .remedy("rename them if they are policies, or move them out of the folder".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(hash: Option<&str>, loaded: i64) -> Policies {
        let loaded_at = Some(Timestamp::from_unix(loaded));
        Policies { hash: hash.map(str::to_owned), loaded_at, ..Policies::default() }
    }

    #[test]
    fn a_guarded_change_is_told_before_files_that_are_ignored() {
        let files = [("p/.x.yaml", "hidden"), ("p/.portcullis-guard.json", "hidden")];
        let found = ignored_of(files.into_iter(), None);
        assert!(found.message.contains("a guarded change is open (p/.portcullis-guard.json)"), "{}", found.message);
        assert!(found.remedy.unwrap().contains("--take-back"));
    }

    #[test]
    fn the_majority_is_in_step_and_of_equal_parts_the_newer() {
        let of = |all: &[Policies]| most_common_hash(all.iter());
        let (old, new, none) = (policies(Some("a"), 1), policies(Some("b"), 2), policies(None, 3));
        assert_eq!(of(&[old.clone(), old.clone(), new.clone(), none.clone()]).as_deref(), Some("a"));
        assert_eq!(of(&[new, old]).as_deref(), Some("b"));
        assert_eq!(of(&[none]), None);
    }

    #[test]
    fn the_place_of_a_mistake_is_the_beginning_of_its_line() {
        assert_eq!(location("/p/a.yaml:4:9: spec.mtls: no").as_deref(), Some("/p/a.yaml:4:9"));
        assert_eq!(location("/p/a.yaml: cannot be read"), None);
        assert_eq!(location("volume-changed"), None);
    }
}
