//! Which endpoint of a service is dialled.

use std::net::SocketAddr;

use crate::endpoints::Dialable;

/// The endpoint to dial: the closest one that was not tried yet. `None` if there is none left.
pub(crate) fn pick(endpoints: &[Dialable<'_>], tried: &[SocketAddr]) -> Option<usize> {
    let left = endpoints.iter().enumerate().filter(|(_, endpoint)| !tried.contains(&endpoint.address));
    left.min_by_key(|(_, endpoint)| endpoint.priority).map(|(index, _)| index)
}
