//! Which workloads a command is about: `[TYPE/]NAME[.NAMESPACE]`, `-n`, `-A`, as istioctl and kubectl take them.

use portcullis_api::ProxyInfo;

use super::values;
use crate::exit::{Exit, Failure};

/// Words before the slash, and what they stand for.
const TYPES: [(&str, TargetKind); 12] = [
    ("workload", TargetKind::Workload),
    ("proxy", TargetKind::Workload),
    ("pod", TargetKind::Workload),
    ("pods", TargetKind::Workload),
    ("po", TargetKind::Workload),
    ("deployment", TargetKind::Workload),
    ("deployments", TargetKind::Workload),
    ("deploy", TargetKind::Workload),
    ("service", TargetKind::Service),
    ("services", TargetKind::Service),
    ("svc", TargetKind::Service),
    ("se", TargetKind::Service),
];

/// What a name is the name of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TargetKind {
    /// `workload.name`.
    Workload,
    /// `workload.service`.
    Service,
}

/// The name of a workload or service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Name {
    kind: Option<TargetKind>,
    name: String,
    namespace: Option<String>,
}

/// `-n` and `-A`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct NamespaceArgs {
    /// Namespace of the workloads [default: all]
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    pub(crate) namespace: Option<String>,
    /// Every namespace, which is the default
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// Workloads by name and namespace.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SelectionArgs {
    /// The workload: [TYPE/]NAME[.NAMESPACE], such as cart, cart.shop or service/cart.shop [default: all]
    #[arg(value_name = "TARGET", value_parser = Name::parse)]
    pub(crate) target: Option<Name>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

impl Name {
    /// Parses `[TYPE/]NAME[.NAMESPACE]`, also with `.svc.cluster.local` behind it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = match text.split_once('/') {
            None => (None, text),
            Some((kind, rest)) => {
                let known = TYPES.iter().find(|(word, _)| *word == kind).map(|(_, kind)| *kind);
                (
                    Some(known.ok_or_else(|| {
                        format!("{kind:?} is not a type; write workload, pod, deployment or service")
                    })?),
                    rest,
                )
            }
        };
        let rest = rest
            .split_once(".svc")
            .filter(|(_, end)| end.is_empty() || end.starts_with('.'))
            .map_or(rest, |(short, _)| short);
        let (name, namespace) = rest.rsplit_once('.').map_or((rest, None), |(name, namespace)| (name, Some(namespace)));
        for part in [Some(name), namespace].into_iter().flatten() {
            values::namespace(part).map_err(|rule| format!("{part:?} is not a name: {rule}"))?;
        }
        Ok(Self { kind, name: name.to_owned(), namespace: namespace.map(str::to_owned) })
    }

    /// The same name, as that of `kind`.
    pub(crate) fn of(self, kind: TargetKind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Whether this is the name of the workload.
    pub(crate) fn is(&self, proxy: &ProxyInfo) -> bool {
        let is_name = match self.kind {
            Some(TargetKind::Workload) => self.name == proxy.name,
            Some(TargetKind::Service) => self.name == proxy.service,
            None => self.name == proxy.name || self.name == proxy.service,
        };
        is_name && self.namespace.as_ref().is_none_or(|namespace| *namespace == proxy.namespace)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, ".{namespace}"))
    }
}

impl NamespaceArgs {
    /// As if it were on the command line.
    pub(crate) const fn of(namespace: Option<String>) -> Self {
        Self { namespace, all_namespaces: false }
    }

    pub(crate) fn has(&self, proxy: &ProxyInfo) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == proxy.namespace)
    }
}

impl SelectionArgs {
    pub(crate) fn has(&self, proxy: &ProxyInfo) -> bool {
        match &self.target {
            // `cart.shop` names its namespace itself.
            Some(target) if target.namespace.is_some() => target.is(proxy),
            Some(target) => target.is(proxy) && self.namespace.has(proxy),
            None => self.namespace.has(proxy),
        }
    }

    /// Those of `answers` that are meant.
    ///
    /// # Errors
    /// If a workload is named, and no proxy that answers is its.
    pub(crate) fn select<T>(&self, answers: Vec<T>, proxy: impl Fn(&T) -> &ProxyInfo) -> Result<Vec<T>, Failure> {
        let (meant, others): (Vec<T>, Vec<T>) = answers.into_iter().partition(|answer| self.has(proxy(answer)));
        if let (Some(target), true) = (&self.target, meant.is_empty()) {
            let mut known: Vec<_> = others.iter().map(|other| title(proxy(other))).collect();
            known.sort();
            let message = format!("no proxy that answers is that of {target}; these answer: {}", known.join(", "));
            return Err(Failure::message(Exit::Failure, message));
        }
        Ok(meant)
    }
}

/// `cart.shop`.
pub(crate) fn title(proxy: &ProxyInfo) -> String {
    format!("{}.{}", proxy.name, proxy.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, namespace: &str, service: &str) -> ProxyInfo {
        let [name, namespace, service] = [name, namespace, service].map(str::to_owned);
        ProxyInfo { name, namespace, service, ..ProxyInfo::default() }
    }

    #[test]
    fn names_are_read_as_istioctl_reads_them() {
        let read = |text: &str| Name::parse(text).map(|name| (name.kind, name.name, name.namespace));
        let named =
            |kind, name: &str, namespace: Option<&str>| Ok((kind, name.to_owned(), namespace.map(str::to_owned)));
        assert_eq!(read("cart"), named(None, "cart", None));
        assert_eq!(read("cart.shop"), named(None, "cart", Some("shop")));
        assert_eq!(read("pod/cart.v1.shop"), named(Some(TargetKind::Workload), "cart.v1", Some("shop")));
        assert_eq!(read("svc/cart.shop.svc.cluster.local"), named(Some(TargetKind::Service), "cart", Some("shop")));
        for wrong in ["", "cart.", ".shop", "gateway/cart", "Cart", "pod/", "cart/x"] {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_namespace_in_the_name_wins_over_the_flag() {
        let select = |target: &str, namespace: Option<&str>| {
            let namespace = NamespaceArgs { namespace: namespace.map(str::to_owned), all_namespaces: false };
            let args = SelectionArgs { target: Some(Name::parse(target).unwrap()), namespace };
            let all =
                vec![proxy("cart", "shop", "cart"), proxy("cart", "test", "cart"), proxy("cart-v1", "shop", "cart")];
            args.select(all, |proxy| proxy).map(|meant| meant.iter().map(title).collect::<Vec<_>>())
        };
        assert_eq!(select("cart", None).unwrap(), ["cart.shop", "cart.test", "cart-v1.shop"]);
        assert_eq!(select("workload/cart", Some("shop")).unwrap(), ["cart.shop"]);
        assert_eq!(select("service/cart.test", Some("shop")).unwrap(), ["cart.test"]);
        let unknown = select("web", None).unwrap_err().error.to_string();
        assert!(unknown.ends_with("these answer: cart-v1.shop, cart.shop, cart.test"), "{unknown}");
    }
}
