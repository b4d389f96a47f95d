//! How much data moves at once. The TLS stream and the copy buffers have to agree, so that a full buffer becomes full packets.

/// The largest packet that leaves no short one behind: loopback carries 65,483 bytes in one, and other networks get at most
/// 64,000 from the kernel, partly to be segmented later.
const PACKET_LEN: usize = 64_000;
/// Fewer packets at once cost more calls and wake-ups per byte; more cost more memory for each receiver that does not keep up.
const PACKETS: usize = 4;
/// Records of 16 KiB, but for the last.
const RECORDS_PER_PACKET: usize = 4;
/// Header, content type and tag of a TLS 1.3 record.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;

/// The most bytes of TLS records that are read or sent at once: four full packets.
pub const BATCH_LEN: usize = PACKETS * PACKET_LEN;
/// The application data in these records, which is the size of a copy buffer.
pub const BATCH_PLAINTEXT_LEN: usize = PACKETS * (PACKET_LEN - RECORDS_PER_PACKET * RECORD_OVERHEAD);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_a_full_buffer_fill_a_batch() {
        let records = BATCH_PLAINTEXT_LEN.div_ceil(1 << 14);
        assert_eq!(BATCH_PLAINTEXT_LEN + records * RECORD_OVERHEAD, BATCH_LEN);
    }
}
