//! The lines of a log that is measured: each says who wrote it and which one it is, so that whoever
//! reads all files afterwards knows what is missing, doubled or torn.

/// A line of one writer, reused for all of them.
#[derive(Debug)]
pub struct NumberedLine {
    bytes: Vec<u8>,
}

const BEGIN: &[u8] = b"p=";
const END: &[u8] = b" end";
/// `p=12 n=123456789 `: the filling begins behind it.
const HEAD: usize = 17;

impl NumberedLine {
    /// The lines of this writer, of so many bytes each without their end.
    ///
    /// # Panics
    ///
    /// There are at most 100 writers, and a line has room for its numbers.
    #[must_use]
    pub fn new(writer: usize, length: usize) -> Self {
        assert!(writer < 100 && length > HEAD + END.len(), "{writer} {length}");
        let filling = "=".repeat(length - HEAD - END.len());
        Self { bytes: format!("p={writer:02} n=000000000 {filling} end").into_bytes() }
    }

    /// The line of this number, without its end.
    pub fn numbered(&mut self, number: usize) -> &str {
        let mut rest = number;
        for digit in self.bytes[7..16].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// Whether something of a numbered line is in this one.
    #[must_use]
    pub fn is_in(line: &[u8]) -> bool {
        find(line).is_some()
    }

    /// The writer and the number of the line that ends this one, if it is whole.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<(usize, usize)> {
        let own = &line[find(line)?..];
        let filling = own.get(HEAD..)?.strip_suffix(END)?;
        let is_whole =
            own[4..7] == *b" n=" && own[16] == b' ' && filling.iter().all(|&b| b == b'=');
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<usize>().ok();
        is_whole.then_some((number(&own[2..4])?, number(&own[7..16])?))
    }
}

fn find(line: &[u8]) -> Option<usize> {
    line.windows(BEGIN.len()).position(|at| at == BEGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_line_is_known_whatever_is_before_it_and_a_torn_one_is_not() {
        let mut lines = NumberedLine::new(7, 99);
        let line = lines.numbered(123_456).to_owned();
        assert_eq!(line.len(), 99);
        assert_eq!(NumberedLine::parse(line.as_bytes()), Some((7, 123_456)));
        let stamped = format!("2026-11-23T08:00:00.123Z INFO x[1] worker 1 gen 1: {line}");
        assert_eq!(NumberedLine::parse(stamped.as_bytes()), Some((7, 123_456)));
        for torn in [&line[..98], &line[1..], &line[..20], "", &format!("{}{line}", &line[..40])] {
            assert_eq!(NumberedLine::parse(torn.as_bytes()), None, "{torn}");
        }
        assert!(NumberedLine::is_in(&line.as_bytes()[..20]) && !NumberedLine::is_in(b"INFO ready"));
    }
}
