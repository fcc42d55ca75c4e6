//! Bytes into lines, with bounded memory whatever the program writes.
//!
//! A line ends at a line feed or a carriage return, so that progress bars become lines. A line longer than
//! the limit is cut and its rest skipped. What is no UTF-8 is replaced.

use quintet_contract::event::MAX_LOG_LINE_BYTES;

/// Puts lines together from pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed right after it belongs to the same line end.
    after_return: bool,
}

impl LineSplitter {
    /// Takes a piece and hands on the lines that it ends.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&str)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes.first() == Some(&b'\n') {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.append(bytes);
            };
            self.append(&bytes[..end]);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end(&mut take);
        }
    }

    /// The input ended, perhaps in the middle of a line.
    pub(crate) fn finish(&mut self, mut take: impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.end(&mut take);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        // A little more than is shown, so that a character across the limit is cut whole.
        let room = (MAX_LOG_LINE_BYTES + 4).saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self, take: &mut impl FnMut(&str)) {
        take(cut(&String::from_utf8_lossy(&self.line)));
        self.line.clear();
    }
}

/// At most the limit, at the border of a character.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOG_LINE_BYTES)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.feed(piece, |line| lines.push(line.to_owned()));
        }
        splitter.finish(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_end_at_line_feeds_and_carriage_returns() {
        assert_eq!(split(&[b"a\nb\r\nc\rd"]), ["a", "b", "c", "d"]);
        assert_eq!(split(&[b"a\r", b"\nb\n", b"\n"]), ["a", "b", ""]);
    }

    #[test]
    fn long_lines_are_cut_and_what_follows_is_read() {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        let chunk = "é".repeat(32 * 1024);
        for _ in 0..100 {
            splitter.feed(chunk.as_bytes(), |line| lines.push(line.to_owned()));
            assert!(splitter.line.capacity() < 4 * MAX_LOG_LINE_BYTES);
        }
        splitter.feed(b"\nnext\n", |line| lines.push(line.to_owned()));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "é".repeat(MAX_LOG_LINE_BYTES / 2));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn what_is_no_text_is_replaced_and_stays_within_the_limit() {
        assert_eq!(split(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
        let lines = split(&[&[0xff; 3 * MAX_LOG_LINE_BYTES]]);
        assert!(lines[0].len() <= MAX_LOG_LINE_BYTES);
    }

    proptest! {
        #[test]
        fn where_the_pieces_are_cut_does_not_matter(
            text in "[a-c\r\n]{0,40}", cuts in proptest::collection::vec(1usize..7, 0..20),
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(split(&pieces), split(&[text.as_bytes()]));
        }
    }
}
