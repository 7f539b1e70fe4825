//! An index of a text, which maps byte offsets to lines and columns, and lines to byte offsets.
//!
//! A file may have an error on every line, or many errors on one huge line. So a look-up must not
//! read the text from its start, or the line from its start. The index has the number of lines and
//! characters before every block of [`BLOCK`] bytes; a look-up only counts inside of one block.

/// The number of bytes of text for which the index has one entry.
const BLOCK: usize = 1 << 10;

/// The numbers of line ends and characters before an offset.
#[derive(Clone, Copy, Default)]
struct Counts {
    lines: usize,
    characters: usize,
}

impl Counts {
    fn after(self, bytes: &[u8]) -> Self {
        // All bytes of a character but the first are 0b10xx_xxxx.
        let starts = bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        Self {
            lines: self.lines + memchr::memchr_iter(b'\n', bytes).count(),
            characters: self.characters + starts,
        }
    }
}

/// The counts before each block of a text.
#[derive(Clone)]
pub(crate) struct Positions(Box<[Counts]>);

impl Positions {
    pub(crate) fn new(text: &str) -> Self {
        let mut before = Counts::default();
        let counts = text.as_bytes().chunks(BLOCK).map(|block| {
            let after = before.after(block);
            std::mem::replace(&mut before, after)
        });
        Self(counts.collect())
    }

    fn counts(&self, text: &str, offset: usize) -> Counts {
        let block = (offset / BLOCK).min(self.0.len().saturating_sub(1));
        let before = self.0.get(block).copied().unwrap_or_default();
        before.after(&text.as_bytes()[block * BLOCK..offset])
    }

    /// Returns the number of the line that has the byte at `offset`, counted from 0.
    pub(crate) fn line_of(&self, text: &str, offset: usize) -> usize {
        self.counts(text, offset).lines
    }

    /// Returns the number of characters between two offsets.
    pub(crate) fn characters(&self, text: &str, start: usize, end: usize) -> usize {
        self.counts(text, end).characters - self.counts(text, start).characters
    }

    /// Returns the offset of the first byte of line `number`, counted from 0; `None` if the text
    /// has fewer line ends.
    pub(crate) fn line_start(&self, text: &str, number: usize) -> Option<usize> {
        let Some(more) = number.checked_sub(1) else { return Some(0) };
        let block = self.0.partition_point(|before| before.lines <= more).checked_sub(1)?;
        let start = block * BLOCK;
        let end = memchr::memchr_iter(b'\n', &text.as_bytes()[start..]).nth(more - self.0[block].lines)?;
        Some(start + end + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_counting_from_the_start() {
        let texts = [
            String::new(),
            "\n".into(),
            "a".into(),
            "é\nü".repeat(5000),
            "\n".repeat(3 * BLOCK),
            "x".repeat(2 * BLOCK),
            format!("{}\n{}", "y".repeat(BLOCK - 1), "ß".repeat(BLOCK)),
        ];
        for text in &texts {
            let positions = Positions::new(text);
            let starts: Vec<_> =
                std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
            for (number, &start) in starts.iter().enumerate() {
                assert_eq!(positions.line_start(text, number), Some(start));
            }
            assert_eq!(positions.line_start(text, starts.len()), None);
            let near = |at: &usize| at % BLOCK < 5 || at % BLOCK > BLOCK - 5 || at + 5 > text.len();
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)).filter(near) {
                let line = text[..at].matches('\n').count();
                assert_eq!(positions.line_of(text, at), line, "{at}");
                let characters = text[starts[line]..at].chars().count();
                assert_eq!(positions.characters(text, starts[line], at), characters, "{at}");
            }
        }
    }
}
