//! Bytes into lines, with bounded memory whatever the program writes.
//!
//! A line ends at a line feed or a carriage return, so that progress bars become lines. A line longer than
//! the limit is cut and its rest skipped. What is no UTF-8 is replaced.

use std::borrow::Cow;

/// A buffer that has grown beyond this for one long line is freed after it.
const KEPT_BYTES: usize = 64 * 1024;

/// Puts lines together from pieces of any size.
#[derive(Debug)]
pub struct LineSplitter {
    limit: usize,
    line: Vec<u8>,
    /// How long the line is, with what was skipped of it.
    length: usize,
    /// The last byte was a carriage return: a line feed right after it belongs to the same line end.
    after_return: bool,
}

/// A line without its end.
#[derive(Clone, Copy, Debug)]
pub struct Line<'l> {
    /// A little more than is shown, so that a character across the limit is cut whole.
    kept: &'l [u8],
    length: usize,
    limit: usize,
}

impl LineSplitter {
    /// A splitter that keeps this many bytes of a line.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            length: 0,
            after_return: false,
        }
    }

    /// Takes a piece and hands on the lines that it ends.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes.first() == Some(&b'\n') {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                return self.append(bytes);
            };
            self.append(&bytes[..end]);
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end(&mut take);
        }
    }

    /// The input ended, perhaps in the middle of a line.
    pub fn finish(&mut self, mut take: impl FnMut(Line<'_>)) {
        if self.length > 0 {
            self.end(&mut take);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = (self.limit + 4).saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.length += bytes.len();
    }

    fn end(&mut self, take: &mut impl FnMut(Line<'_>)) {
        take(Line {
            kept: &self.line,
            length: self.length,
            limit: self.limit,
        });
        self.length = 0;
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES);
    }
}

impl<'l> Line<'l> {
    /// How long it is, in bytes, also where less is kept.
    pub const fn len(self) -> usize {
        self.length
    }

    /// Whether it holds nothing.
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The line as it came; `None` when it is longer than the limit.
    pub fn whole(self) -> Option<&'l [u8]> {
        (self.length <= self.limit).then_some(self.kept)
    }

    /// The line as text of at most `limit` bytes and at most those that are kept, cut at the border of a character.
    pub fn text(self, limit: usize) -> Cow<'l, str> {
        let limit = limit.min(self.limit);
        // What is no text grows when it is replaced: no more is read than can be shown.
        let seen = &self.kept[..self.kept.len().min(limit + 4)];
        match String::from_utf8_lossy(seen) {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..text.floor_char_boundary(limit)]),
            Cow::Owned(mut text) => {
                text.truncate(text.floor_char_boundary(limit));
                Cow::Owned(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8 * 1024;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::new(LIMIT);
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.feed(piece, |line| lines.push(line.text(LIMIT).into_owned()));
        }
        splitter.finish(|line| lines.push(line.text(LIMIT).into_owned()));
        lines
    }

    #[test]
    fn lines_end_at_line_feeds_and_carriage_returns() {
        assert_eq!(split(&[b"a\nb\r\nc\rd"]), ["a", "b", "c", "d"]);
        assert_eq!(split(&[b"a\r", b"\nb\n", b"\n"]), ["a", "b", ""]);
    }

    #[test]
    fn long_lines_are_cut_and_what_follows_is_read() {
        let mut splitter = LineSplitter::new(LIMIT);
        let mut lines = Vec::new();
        let chunk = "é".repeat(32 * 1024);
        for _ in 0..100 {
            splitter.feed(chunk.as_bytes(), |line| {
                lines.push(line.text(LIMIT).into_owned())
            });
            assert!(splitter.line.capacity() < 4 * LIMIT);
        }
        splitter.feed(b"\nnext\n", |line| {
            lines.push(line.text(LIMIT).into_owned())
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "é".repeat(LIMIT / 2));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn what_is_no_text_is_replaced_and_stays_within_the_limit() {
        assert_eq!(split(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
        let lines = split(&[&[0xff; 3 * LIMIT]]);
        assert!(lines[0].len() <= LIMIT);
    }

    #[test]
    fn a_line_is_whole_up_to_the_limit_and_its_length_is_known_beyond_it() {
        let mut splitter = LineSplitter::new(4);
        let mut seen = Vec::new();
        splitter.feed(b"1234\n123456789\n", |line| {
            seen.push((line.len(), line.whole().map(<[u8]>::to_vec)));
        });
        assert_eq!(seen, [(4, Some(b"1234".to_vec())), (9, None)]);
        assert_eq!(splitter.line.len(), 0);
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
