//! The codes: what each means, and what to do about it.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Wrong.
    Error,
}

impl Level {
    /// Every level, the least first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// Its name, as istioctl writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[allow(missing_docs, reason = "the table below says what each means")]
pub enum Code {
    Kia0002,
    Kia0003,
    Kia0004,
    Kia0207,
    Kia0208,
    Kia0401,
    Kia0501,
    Kia0505,
    Kia0506,
    Invalid,
    PortsNeedSelector,
    DocumentIgnored,
    FileIgnored,
    NoEffect,
    Doubtful,
    ServicePort,
    RootSelector,
    NoSidecar,
    ExceptionUndocumented,
    ExceptionExpired,
    ExceptionEndsNever,
    DryRunNotPortable,
    BreakGlassNotPortable,
}

/// What the table says of a code.
struct Entry {
    id: &'static str,
    level: Level,
    meaning: &'static str,
    remedy: &'static str,
}

const fn entry(id: &'static str, level: Level, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { id, level, meaning, remedy }
}

impl Code {
    /// Every code, in the order of the reference.
    pub const ALL: [Self; 23] = [
        Self::Kia0002,
        Self::Kia0003,
        Self::Kia0004,
        Self::Kia0207,
        Self::Kia0208,
        Self::Kia0401,
        Self::Kia0501,
        Self::Kia0505,
        Self::Kia0506,
        Self::Invalid,
        Self::PortsNeedSelector,
        Self::DocumentIgnored,
        Self::FileIgnored,
        Self::NoEffect,
        Self::Doubtful,
        Self::ServicePort,
        Self::RootSelector,
        Self::NoSidecar,
        Self::ExceptionUndocumented,
        Self::ExceptionExpired,
        Self::ExceptionEndsNever,
        Self::DryRunNotPortable,
        Self::BreakGlassNotPortable,
    ];

    const fn entry(self) -> Entry {
        use Level::{Error, Info, Warning};
        match self {
            Self::Kia0002 => entry(
                "KIA0002",
                Error,
                "More than one selector-less object in the same namespace",
                "Put both into one; one policy holds in each scope, and none are merged",
            ),
            Self::Kia0003 => entry(
                "KIA0003",
                Error,
                "More than one object applied to the same workload",
                "Put both into one, or make their selectors exclude each other",
            ),
            Self::Kia0004 => entry(
                "KIA0004",
                Warning,
                "No matching workload found for the selector in this namespace",
                "Correct the labels, or remove the policy; only namespaces with a WorkloadEntry, or with a sidecar that was asked, are checked",
            ),
            Self::Kia0207 => entry(
                "KIA0207",
                Error,
                "PeerAuthentication with TLS strict mode found, it should be permissive",
                "Clients of this DestinationRule speak plaintext to a STRICT namespace: change its tls.mode, or the mode",
            ),
            Self::Kia0208 => entry(
                "KIA0208",
                Error,
                "PeerAuthentication with TLS strict mode found, it should be permissive",
                "Clients of this mesh-wide DestinationRule speak plaintext to a STRICT mesh: change its tls.mode, or the mode",
            ),
            Self::Kia0401 => entry(
                "KIA0401",
                Error,
                "Mesh-wide Destination Rule enabling mTLS is missing",
                "Add one for *.local with tls.mode ISTIO_MUTUAL; not needed with auto mTLS, so it is looked for with --no-auto-mtls only",
            ),
            Self::Kia0501 => entry(
                "KIA0501",
                Error,
                "Destination Rule enabling namespace-wide mTLS is missing",
                "Add one for *.NAMESPACE.svc.cluster.local with tls.mode ISTIO_MUTUAL; looked for with --no-auto-mtls only",
            ),
            Self::Kia0505 => entry(
                "KIA0505",
                Error,
                "Destination Rule disabling namespace-wide mTLS is missing",
                "A DestinationRule makes clients speak mTLS to a namespace that has it off: set tls.mode DISABLE for the namespace, or remove the rule",
            ),
            Self::Kia0506 => entry(
                "KIA0506",
                Error,
                "Destination Rule disabling mesh-wide mTLS is missing",
                "A DestinationRule makes clients speak mTLS to a mesh that has it off: remove it, or set tls.mode DISABLE",
            ),
            Self::Invalid => entry(
                "PC0001",
                Error,
                "The sidecar refuses the whole set because of this mistake",
                "Correct it as the text says; until then the last valid set stays in force",
            ),
            Self::PortsNeedSelector => entry(
                "PC0002",
                Error,
                "portLevelMtls without a selector",
                "Add spec.selector.matchLabels: ports belong to workloads, and Istio refuses such a policy too",
            ),
            Self::DocumentIgnored => {
                entry("PC0003", Info, "A document of another kind is ignored", "Move it out of the policy folder")
            }
            Self::FileIgnored => entry(
                "PC0004",
                Warning,
                "A file is not read: its name begins with a dot, or does not end in .yaml, .yml or .json",
                "Rename it, or move it out of the policy folder",
            ),
            Self::NoEffect => entry(
                "PC0005",
                Warning,
                "A policy has no effect because of another one",
                "Put both into one, or remove one",
            ),
            Self::Doubtful => entry(
                "PC0006",
                Warning,
                "Something works here in a way that is probably unintended, or that Istio ignores",
                "As the text says; the reason in brackets is that of `portcullis validate`",
            ),
            Self::ServicePort => entry(
                "PC0101",
                Warning,
                "A policy names the port of a service, which the workload has by another number",
                "Write the port on which the workload listens",
            ),
            Self::RootSelector => entry(
                "PC0102",
                Warning,
                "A policy with a selector in the root namespace has no effect",
                "Put it into the workload's namespace",
            ),
            Self::NoSidecar => entry(
                "PC0103",
                Warning,
                "A policy is for a namespace in which no sidecar answers (only with --admin, --proxies or --docker)",
                "Correct metadata.namespace, or start the workloads with their sidecars",
            ),
            Self::ExceptionUndocumented => entry(
                "PC0201",
                Warning,
                "An exception (PERMISSIVE, DISABLE, or a port with one of them) without owner, reason or end",
                "Add the annotations owner, reason and expires (YYYY-MM-DD)",
            ),
            Self::ExceptionExpired => entry(
                "PC0202",
                Error,
                "An exception has passed its end",
                "Remove the exception, or decide anew and set another end",
            ),
            Self::ExceptionEndsNever => entry(
                "PC0203",
                Warning,
                "The annotation expires is no date, so that the exception never ends",
                "Write it as YYYY-MM-DD or as an RFC 3339 time",
            ),
            Self::DryRunNotPortable => entry(
                "PC0301",
                Warning,
                "istio.io/dry-run on a PeerAuthentication, which Istio ignores: there it is enforced",
                "Do not apply this file to a cluster before the annotation is gone and the mode is meant",
            ),
            Self::BreakGlassNotPortable => entry(
                "PC0302",
                Warning,
                "portcullis/until on a PeerAuthentication, which Istio ignores: there it holds for ever",
                "Do not apply this file to a cluster; remove it when its time is over: `portcullis break-glass --end`",
            ),
        }
    }

    /// Its stable name.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.entry().id
    }

    /// How bad it is.
    #[must_use]
    pub const fn level(self) -> Level {
        self.entry().level
    }

    /// What it means.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.entry().meaning
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.entry().remedy
    }

    /// The code of that name.
    #[must_use]
    pub fn named(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.id() == id)
    }

    /// The table of the reference, in Markdown.
    #[must_use]
    pub fn reference() -> String {
        let row =
            |code: Self| format!("| `{}` | {} | {} | {} |\n", code.id(), code.level(), code.meaning(), code.remedy());
        let rows: String = Self::ALL.into_iter().map(row).collect();
        format!("| Code | Level | Meaning | Remedy |\n|---|---|---|---|\n{rows}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_code_is_used_twice_and_each_is_found_by_its_name() {
        let ids: BTreeSet<_> = Code::ALL.into_iter().map(Code::id).collect();
        assert_eq!(ids.len(), Code::ALL.len());
        assert!(Code::ALL.into_iter().all(|code| Code::named(code.id()) == Some(code)));
        assert_eq!(Code::named("KIA9999"), None);
    }
}
