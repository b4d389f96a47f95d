//! The parameters of `/recent`.

use crate::query;

/// Which connections are asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecentQuery {
    /// `after`: those that ended after the one with this number.
    pub after: Option<u64>,
    /// `limit`: at most so many.
    pub limit: Option<usize>,
    /// `denied=true`: only those that were refused or failed.
    pub denied: bool,
    /// `conn`: only the one with this number in logs.
    pub conn: Option<u64>,
    /// `peer`: only those with this SPIFFE ID, address or service.
    pub peer: Option<String>,
}

impl RecentQuery {
    /// Reads the query of a request.
    ///
    /// # Errors
    /// The text of the error response.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in query::all(query, &["after", "limit", "denied", "conn", "peer"])? {
            let no_number = || format!("{name}={} is not a number", value.escape_debug());
            match name.as_str() {
                "after" => parsed.after = Some(value.parse().map_err(|_| no_number())?),
                "limit" => parsed.limit = Some(value.parse().map_err(|_| no_number())?),
                "conn" => parsed.conn = Some(value.parse().map_err(|_| no_number())?),
                "denied" => {
                    parsed.denied = value.parse().map_err(|_| "write denied=true or denied=false".to_owned())?
                }
                _ => parsed.peer = Some(value),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_in_any_order_and_a_mistake_is_refused() {
        assert_eq!(RecentQuery::parse(None), Ok(RecentQuery::default()));
        let query = "peer=spiffe%3a//a/b&denied=true&after=7&limit=20&conn=3";
        let peer = Some("spiffe://a/b".to_owned());
        assert_eq!(
            RecentQuery::parse(Some(query)),
            Ok(RecentQuery { after: Some(7), limit: Some(20), denied: true, conn: Some(3), peer })
        );
        for wrong in ["afer=1", "after=-1", "after=", "limit=x", "denied=yes", "denied", "conn=1&conn=2", "peer=%f"] {
            assert!(RecentQuery::parse(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
