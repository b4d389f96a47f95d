//! The destination of a redirected connection, recorded before anything can end it.

use portcullis_net::{OrigDst, original_destination};
use portcullis_telemetry::{ConnRecord, Ending};
use std::net::SocketAddr;
use tokio::net::TcpStream;

use crate::outcome;

/// The original destination. If there is none, the record names the listener that was dialled instead.
pub(crate) fn destination(stream: &TcpStream, record: &mut ConnRecord) -> Result<SocketAddr, Ending> {
    record.dst_addr = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
    let destination = match original_destination(stream) {
        Ok(Some(destination)) => destination.get(),
        Ok(None) => return Err(outcome::no_original_destination(None)),
        Err(error) => return Err(outcome::no_original_destination(Some(&error))),
    };
    if record.dst_addr.is_some_and(|listener| listener != destination) {
        record.set_captured();
    }
    record.dst_addr = Some(destination);
    record.port = Some(destination.port());
    Ok(destination)
}

#[cfg(test)]
mod tests {
    use portcullis_telemetry::Direction;
    use tokio::net::TcpListener;

    use super::*;

    /// What a redirect does to it is tested in network namespaces.
    #[tokio::test]
    async fn the_record_of_a_direct_dial_names_the_listener_in_canonical_form() {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let dialled = SocketAddr::new("127.0.0.1".parse().unwrap(), listener.local_addr().unwrap().port());
        let (_client, (accepted, from)) = tokio::try_join!(TcpStream::connect(dialled), listener.accept()).unwrap();
        let mut record = ConnRecord::open(&crate::state::tests::metrics(), Direction::Inbound, from);
        let found = destination(&accepted, &mut record);
        assert_eq!(record.dst_addr, Some(dialled));
        // Only connection tracking knows that there is no other destination.
        match found {
            Ok(destination) => {
                assert_eq!(destination, dialled);
                assert_eq!(record.port, Some(dialled.port()));
            }
            Err(ending) => assert_eq!(ending.reason, "no_original_destination"),
        }
    }
}
