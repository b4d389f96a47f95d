//! The name of an address: the hosts file, then the DNS (PTR).
//!
//! Whoever has an address may choose its name, so a name is only shown, never trusted, and only if it has the form of one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant, timeout};

use super::query::{is_no_such_name, resolver};
use super::settings::Settings;
use super::{LOOKUP_TIMEOUT, Resolver};
use crate::error::LookupError;

/// The longest name that DNS has.
const MAX_NAME: usize = 253;

impl Resolver {
    /// The name of an address, in lower case and without a dot at its end; `None` if it has none, or one that is no host name.
    /// Takes [`LOOKUP_TIMEOUT`] at most.
    ///
    /// # Errors
    /// If nobody answered, or the answer is an error.
    pub async fn name_of(&self, address: IpAddr) -> Result<Option<String>, LookupError> {
        let address = address.to_canonical();
        let settings = self.settings();
        if let Some(name) = settings.name_of(address) {
            return Ok(host_name(name));
        }
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let servers = self.in_order(&settings.servers);
        let mut failed = LookupError::NoServer;
        for (index, server) in servers.iter().enumerate() {
            let left = u32::try_from(servers.len().saturating_sub(index)).unwrap_or(u32::MAX).max(1);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match ask(*server, &settings, address, share).await {
                Ok(name) => return Ok(name.as_deref().and_then(host_name)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

async fn ask(
    server: SocketAddr,
    settings: &Settings,
    address: IpAddr,
    within: Duration,
) -> Result<Option<String>, LookupError> {
    let failed = |why: String| LookupError::Unreachable { server, why };
    let resolver = resolver(server, settings, within).map_err(|error| failed(error.to_string()))?;
    match timeout(within, resolver.lookup(Name::from(address), RecordType::PTR)).await {
        Err(_elapsed) => Err(failed("no answer in time".to_owned())),
        Ok(Ok(lookup)) => Ok(lookup.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some(name.to_ascii()),
            _ => None,
        })),
        Ok(Err(error)) if is_no_such_name(&error) => Ok(None),
        Ok(Err(error)) => Err(failed(error.to_string())),
    }
}

/// The name, if it has the form of one.
fn host_name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name =
        text.len() <= MAX_NAME && text.split('.').all(|label| !label.is_empty() && label.bytes().all(is_part));
    is_name.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_names() {
        assert_eq!(host_name("Cron-Report.shop_default."), Some("cron-report.shop_default".to_owned()));
        let long = "x".repeat(254);
        for wrong in ["", ".", "a..b", "a b", "<script>", "a\\032b", "\u{202e}moc", "a\nb", &long] {
            assert_eq!(host_name(wrong), None, "{wrong:?}");
        }
    }
}
