//! The checks: what each is called and says.

/// What checks are about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Category {
    /// A configuration, before a proxy is started with it.
    Configuration,
    /// The processes.
    Proxies,
    /// Redirect rules.
    Capture,
    /// Certificates and roots.
    Identity,
    /// Policies.
    Policy,
    /// What has no sidecar.
    Services,
    /// What is remembered of connections.
    Ledger,
}

impl Category {
    /// The heading.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "portcullis-configuration",
            Self::Proxies => "portcullis-proxies",
            Self::Capture => "portcullis-capture",
            Self::Identity => "portcullis-identity",
            Self::Policy => "portcullis-policy",
            Self::Services => "portcullis-services",
            Self::Ledger => "portcullis-ledger",
        }
    }
}

/// A check.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[allow(missing_docs, reason = "the table below says what each means")]
pub enum Id {
    ConfigValid,
    ConfigPaths,
    ConfigPolicies,
    ConfigIdentity,
    ConfigUdp,
    ProxyAnswers,
    ProxyReady,
    ProxyConfig,
    ProxyVersions,
    ProxyClocks,
    CaptureRules,
    CertificatePresent,
    CertificateChain,
    CertificateTime,
    IntermediateTime,
    RootTime,
    TrustBundles,
    CertificateSource,
    PolicyFolder,
    PolicyFiles,
    PolicyEqual,
    PolicyMeshWide,
    PolicyBreakGlass,
    PolicyIgnoredFiles,
    ServicesSidecars,
    ServicesPlaintext,
    ContainersSidecars,
    ContainersCaptured,
    LedgerWritten,
    LedgerComplete,
}

impl Id {
    /// Every check, in the order of the reference.
    pub const ALL: [Self; 30] = [
        Self::ConfigValid,
        Self::ConfigPaths,
        Self::ConfigPolicies,
        Self::ConfigIdentity,
        Self::ConfigUdp,
        Self::ProxyAnswers,
        Self::ProxyReady,
        Self::ProxyConfig,
        Self::ProxyVersions,
        Self::ProxyClocks,
        Self::CaptureRules,
        Self::CertificatePresent,
        Self::CertificateChain,
        Self::CertificateTime,
        Self::IntermediateTime,
        Self::RootTime,
        Self::TrustBundles,
        Self::CertificateSource,
        Self::PolicyFolder,
        Self::PolicyFiles,
        Self::PolicyEqual,
        Self::PolicyMeshWide,
        Self::PolicyBreakGlass,
        Self::PolicyIgnoredFiles,
        Self::ServicesSidecars,
        Self::ServicesPlaintext,
        Self::ContainersSidecars,
        Self::ContainersCaptured,
        Self::LedgerWritten,
        Self::LedgerComplete,
    ];

    const fn entry(self) -> (Category, &'static str, &'static str) {
        use Category::{Capture, Configuration, Identity, Ledger, Policy, Proxies, Services};
        match self {
            Self::ConfigValid => (Configuration, "config-valid", "the configuration is valid"),
            Self::ConfigPaths => (Configuration, "config-paths", "the files and folders that it names are there"),
            Self::ConfigPolicies => (Configuration, "config-policies", "the policy files are valid"),
            Self::ConfigIdentity => (Configuration, "config-identity", "certificate, key and roots fit"),
            Self::ConfigUdp => (Configuration, "config-udp", "no UDP of other hosts bypasses the proxy"),
            Self::ProxyAnswers => (Proxies, "proxy-answers", "every proxy answers"),
            Self::ProxyReady => (Proxies, "proxy-ready", "every proxy is ready"),
            Self::ProxyConfig => (Proxies, "proxy-config", "every proxy runs with its configuration as it is now"),
            Self::ProxyVersions => (Proxies, "proxy-versions", "proxies and this command have one version"),
            Self::ProxyClocks => (Proxies, "proxy-clocks", "clocks of proxies agree with the one here"),
            Self::CaptureRules => (Capture, "capture-rules", "redirect rules are in force"),
            Self::CertificatePresent => (Identity, "certificate-present", "every proxy has a certificate"),
            Self::CertificateChain => (Identity, "certificate-chain", "certificates lead to a trusted root"),
            Self::CertificateTime => (Identity, "certificate-time", "certificates are renewed in time"),
            Self::IntermediateTime => {
                (Identity, "intermediate-time", "intermediate certificates are not near their end")
            }
            Self::RootTime => (Identity, "root-time", "roots are not near their end"),
            Self::TrustBundles => (Identity, "trust-bundles", "trust bundles are the same everywhere"),
            Self::CertificateSource => (Identity, "certificate-source", "the sources of certificates are in order"),
            Self::PolicyFolder => (Policy, "policy-folder", "every proxy has policies"),
            Self::PolicyFiles => (Policy, "policy-files", "policy files are in force as they are now"),
            Self::PolicyEqual => (Policy, "policy-equal", "policies are the same everywhere"),
            Self::PolicyMeshWide => (Policy, "policy-mesh-wide", "a policy holds for the whole mesh"),
            Self::PolicyBreakGlass => (Policy, "policy-break-glass", "no break-glass is open"),
            Self::PolicyIgnoredFiles => (Policy, "policy-ignored-files", "every file of the policy folders is read"),
            Self::ServicesSidecars => (Services, "services-sidecars", "every service of the directory has a sidecar"),
            Self::ServicesPlaintext => (Services, "services-plaintext", "no sidecar sends plaintext to another one"),
            Self::ContainersSidecars => {
                (Services, "containers-sidecars", "every container on the networks of the mesh has a sidecar")
            }
            Self::ContainersCaptured => {
                (Services, "containers-captured", "every service with a sidecar runs behind it")
            }
            Self::LedgerWritten => (Ledger, "ledger-written", "what was observed outlives a restart"),
            Self::LedgerComplete => (Ledger, "ledger-complete", "nothing that was observed was given up"),
        }
    }

    /// Its stable name, and its anchor in the reference.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().1
    }

    /// What it is about.
    #[must_use]
    pub const fn category(self) -> Category {
        self.entry().0
    }

    /// What is true if it passes.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.entry().2
    }

    /// Where the reference explains it.
    #[must_use]
    pub fn documentation(self) -> String {
        format!("docs/reference/check.md#{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_used_twice_and_categories_are_together() {
        let names: BTreeSet<_> = Id::ALL.into_iter().map(Id::name).collect();
        assert_eq!(names.len(), Id::ALL.len());
        assert!(Id::ALL.windows(2).all(|pair| pair[0] < pair[1] && pair[0].category() <= pair[1].category()));
    }
}
