//! The first bytes from a load balancer, with `proxyProtocol`.
//!
//! - What is settled stays so, however much comes behind it, and it is settled within the bound.
//! - The header ends within what has come, and what our own encoder writes for its addresses reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_wire::proxy_header::{MAX_V2_LEN, Origin, decode};
use portcullis_wire::proxy_v2::header;

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(bytes);
    assert!(whole != Ok(None) || bytes.len() < MAX_V2_LEN);
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = decode(&bytes[..cut]);
        assert!(before == Ok(None) || before == whole, "{cut}: {}", bytes.escape_ascii());
    }
    let Ok(Some(read)) = whole else { return };
    assert!(read.len <= bytes.len());
    assert_eq!(decode(&bytes[..read.len]), whole, "what follows was looked at");
    assert_eq!(decode(&bytes[..read.len - 1]), Ok(None), "a byte was not needed");
    if let Origin::Client { source, destination } = read.origin {
        let written = header(source, destination, None).expect("it has no texts");
        assert_eq!(decode(&written).expect("ours is valid").expect("and whole").origin, read.origin);
    }
});
