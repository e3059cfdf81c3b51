//! Finds the ends of messages in a gRPC stream. The messages are binary and have no line breaks, so their
//! frames decide: a message leaves when it is whole.

use agentsecrets_types::body::BodyError;

/// A flag, then the message's length in four bytes.
const HEADER: usize = 5;
/// The flags of a message that is not compressed, and of the trailers that gRPC-Web sends as one. Of the forms
/// of a text UTF-16 alone holds such a byte, so that a header may be read inside it: `RedactedBody::take` sees to that.
const PLAIN: [u8; 2] = [0, 0x80];

/// Follows the frames of one stream.
#[derive(Default)]
pub(super) struct Messages {
    header: Vec<u8>,
    left: usize,
}

impl Messages {
    /// Takes in the next bytes of the stream, up to the end of a message: how many these are, or nothing where
    /// no message ends among them.
    ///
    /// # Errors
    /// When these are no messages that can be searched: a compressed one cannot be looked into.
    pub(super) fn end(&mut self, data: &[u8]) -> Result<Option<usize>, BodyError> {
        let mut rest = data;
        while !rest.is_empty() {
            if self.left == 0 {
                if self.header.is_empty() && !rest.first().is_some_and(|flag| PLAIN.contains(flag)) {
                    return Err(BodyError::Coding("its messages are compressed, or are none"));
                }
                let (header, after) = rest.split_at((HEADER - self.header.len()).min(rest.len()));
                self.header.extend_from_slice(header);
                rest = after;
                let Some(length) = self.header.get(1..HEADER).and_then(|bytes| bytes.try_into().ok()) else {
                    break;
                };
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.header.clear();
            }
            let message = self.left.min(rest.len());
            self.left -= message;
            rest = rest.get(message..).unwrap_or_default();
            if self.left == 0 {
                return Ok(Some(data.len() - rest.len()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ends_follow_frames() {
        let stream = [&b"\0\0\0\0\x03abc"[..], b"\0\0\0\0\0", b"\0\0\0\0\x02de"].concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let (mut passed, mut ends) = (0, Vec::new());
            for mut chunk in stream.chunks(size) {
                while let Some(end) = messages.end(chunk).ok().flatten() {
                    passed += end;
                    ends.push(passed);
                    chunk = &chunk[end..];
                }
                passed += chunk.len();
            }
            assert_eq!(ends, [8, 13, 20], "{size}");
        }
    }

    #[test]
    fn compressed_message_is_refused_at_its_first_byte() {
        for stream in [&b"\x01\0\0\0\x01a"[..], b"{"] {
            assert!(Messages::default().end(stream).is_err(), "{stream:?}");
        }
        let mut messages = Messages::default();
        assert_eq!(messages.end(b"\0\0\0\0\x01ab").ok(), Some(Some(6)));
        assert!(messages.end(b"b").is_err());
    }
}
