//! Lines out of a stream, each within a bound, however the stream is cut.

/// Bytes that came and are no whole line yet.
#[derive(Debug)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    /// So many of them hold no end of a line.
    searched: usize,
    most: usize,
}

/// A line is longer than it may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Lines {
    /// Of at most so many bytes, without the end of the line.
    pub(crate) fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), searched: 0, most }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing waits for the rest of its line.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole line, without its end.
    pub(crate) fn take(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| end + self.searched) else {
            self.searched = self.bytes.len();
            return if self.searched > self.most { Err(TooLong) } else { Ok(None) };
        };
        if end > self.most {
            return Err(TooLong);
        }
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        line.truncate(end);
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_stream_is_cut() {
        let text = b"one\n\ntwo\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::new(4);
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.take().unwrap() {
                    found.push(line);
                }
            }
            assert_eq!(found, [&b"one"[..], b"", b"two"], "{size}");
            assert!(!lines.is_empty());
        }
    }

    #[test]
    fn no_line_is_longer_than_the_bound() {
        let mut lines = Lines::new(3);
        lines.push(b"abc");
        assert_eq!(lines.take(), Ok(None));
        lines.push(b"\n");
        assert_eq!(lines.take(), Ok(Some(b"abc".to_vec())));
        lines.push(b"abcd");
        assert_eq!(lines.take(), Err(TooLong));
        let mut lines = Lines::new(3);
        lines.push(b"abcd\n");
        assert_eq!(lines.take(), Err(TooLong));
    }
}
