//! A destination that the configuration names, prepared once for all connections.

use std::sync::Arc;

use portcullis_config::{UpstreamMode, UpstreamTarget};

use crate::resolved_route::ResolvedRoute;

/// A configured destination.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) reach: Reach,
}

/// How a configured destination is reached.
#[derive(Debug)]
pub(crate) enum Reach {
    /// As the configuration says.
    Route(Arc<ResolvedRoute>),
    /// As the service directory says.
    Directory {
        /// Only the endpoints of this subset.
        subset: Option<Arc<str>>,
    },
}

impl Upstream {
    pub(crate) fn new(target: &UpstreamTarget) -> Arc<Self> {
        let reach = match &target.mode {
            UpstreamMode::Fixed(mode) => Reach::Route(ResolvedRoute::new(mode.clone(), target.service.as_deref())),
            UpstreamMode::Auto { subset } => Reach::Directory { subset: subset.as_deref().map(Arc::from) },
        };
        Arc::new(Self { host: Arc::from(target.address.host.as_str()), port: target.address.port, reach })
    }
}
