//! The buffers on both sides of the record layer: plaintext that was received, and records to be sent.

/// Receives the plaintext of application data, in order.
pub trait PlaintextSink {
    /// Returns space for exactly `len` bytes at the position where the next plaintext belongs, if there is that much.
    ///
    /// A record is decrypted directly into it. The content is plaintext only after [`PlaintextSink::advance`]; otherwise it is
    /// to be ignored.
    fn space(&mut self, len: usize) -> Option<&mut [u8]>;

    /// The first `len` bytes of the last [`PlaintextSink::space`] are plaintext.
    fn advance(&mut self, len: usize);

    /// Copies plaintext that was decrypted elsewhere.
    fn append(&mut self, plaintext: &[u8]);
}

/// Records to be sent.
///
/// Memory that was reserved once stays initialised, so that a buffer that is reused is not zeroed for each use.
#[derive(Debug, Default)]
pub struct SendBuffer {
    storage: Vec<u8>,
    len: usize,
}

impl SendBuffer {
    /// The bytes to be sent.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.storage.get(..self.len).unwrap_or_default()
    }

    /// Returns space for `len` bytes behind the present content. What is written there counts after
    /// [`SendBuffer::advance`]; until then it holds arbitrary bytes.
    pub fn space(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.storage.len() < end {
            self.storage.resize(end, 0);
        }
        self.storage.get_mut(self.len..end).unwrap_or_default()
    }

    /// The first `len` bytes of the last [`SendBuffer::space`] are to be sent.
    pub fn advance(&mut self, len: usize) {
        self.len = (self.len + len).min(self.storage.len());
    }

    /// Appends a copy of `bytes`.
    pub fn append(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Removes the content and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::SendBuffer;

    #[test]
    fn content_is_what_was_advanced_over_also_in_memory_that_was_used_before() {
        let mut buffer = SendBuffer::default();
        buffer.append(b"a long content");
        buffer.clear();
        assert_eq!(buffer.as_slice(), b"");
        buffer.append(b"one");
        buffer.space(3).copy_from_slice(b"two");
        assert_eq!(buffer.as_slice(), b"one", "what was written does not count yet");
        buffer.advance(3);
        assert_eq!(buffer.as_slice(), b"onetwo");
    }
}
