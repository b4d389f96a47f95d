//! `kubernetes`: the API server that policies and the service directory are watched on.

use std::path::PathBuf;

use portcullis_yaml::{Cursor, Problems};

use crate::fields::{SectionReader, section};
use crate::{HostPort, defaults, outbound, value};

/// `kubernetes`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kubernetes {
    /// `address` of the API server; `None`: what Kubernetes puts into the environment of every pod.
    pub address: Option<HostPort>,
    /// `serviceAccountFolder`: holds `token` and `ca.crt`.
    pub service_account_folder: PathBuf,
    /// `startup`.
    pub startup: KubernetesStartup,
    /// `copyFolder`: where the last valid set is kept for `startup: last-good`.
    pub copy_folder: Option<PathBuf>,
}

/// `kubernetes.startup`: what a sidecar begins with while the API server does not answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KubernetesStartup {
    /// `wait`: no listener is served until the API server has answered.
    #[default]
    Wait,
    /// `last-good`: with the copy of the last valid set, if there is one of this namespace.
    LastGood,
}

impl SectionReader<'_> {
    pub(crate) fn kubernetes(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<Kubernetes> {
        let fields = at.fields(&["address", "serviceAccountFolder", "startup", "copyFolder"], problems)?;
        let address = section(&fields, "address", None, problems, |at, p| outbound::host_port(at, p).map(Some));
        let folder =
            section(&fields, "serviceAccountFolder", defaults::SERVICE_ACCOUNT_FOLDER.into(), problems, |at, p| {
                self.path(at, p)
            });
        let words = [("wait", KubernetesStartup::Wait), ("last-good", KubernetesStartup::LastGood)];
        let startup =
            section(&fields, "startup", KubernetesStartup::Wait, problems, |at, p| value::word(at, &words, p));
        let copy_folder = section(&fields, "copyFolder", None, problems, |at, p| self.path(at, p).map(Some));
        let (startup, copy_folder) = (startup?, copy_folder?);
        if startup == KubernetesStartup::LastGood && copy_folder.is_none() {
            let message = "startup: last-good needs copyFolder, a folder that outlives the container";
            at.report("missing-field", message.to_owned(), problems);
        }
        Some(Kubernetes { address: address?, service_account_folder: folder?, startup, copy_folder })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(section: &str) -> Result<Kubernetes, Vec<String>> {
        let text = format!("workload: {{name: a, namespace: b}}\nkubernetes: {section}\n");
        let settings = crate::read(text.as_bytes(), Path::new("/conf"));
        let words = |problems: Vec<portcullis_yaml::Problem>| problems.iter().map(ToString::to_string).collect();
        settings.map_err(words).map(|settings| settings.kubernetes.unwrap())
    }

    #[test]
    fn an_empty_section_is_a_pod_that_waits() {
        let expected = Kubernetes {
            address: None,
            service_account_folder: defaults::SERVICE_ACCOUNT_FOLDER.into(),
            startup: KubernetesStartup::Wait,
            copy_folder: None,
        };
        assert_eq!(read("{}"), Ok(expected));
        let all =
            read("{address: \"[::1]:6443\", serviceAccountFolder: s, startup: last-good, copyFolder: c}").unwrap();
        assert_eq!(all.address, Some(HostPort { host: "::1".to_owned(), port: 6443 }));
        assert_eq!(all.service_account_folder, Path::new("/conf/s"));
        assert_eq!((all.startup, all.copy_folder), (KubernetesStartup::LastGood, Some("/conf/c".into())));
    }

    #[test]
    fn a_start_from_the_copy_needs_a_copy() {
        for (wrong, field) in [
            ("{startup: last-good}", "copyFolder"),
            ("{startup: now}", "last-good"),
            ("{address: cart}", "host:port"),
            ("{namespaces: [a]}", "namespaces"),
        ] {
            let problems = read(wrong).unwrap_err();
            assert!(problems[0].contains(field), "{wrong}: {problems:?}");
        }
    }
}
