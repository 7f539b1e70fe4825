//! String tables of symbols.
//!
//! Strings keep the order in which they are added. The string tables of `object` store a string
//! that is the end of another string as a part of that string, and sort all strings twice to find
//! such pairs. That would save a few bytes, but take a third of the time of a link.

use crate::link::LinkError;

/// A string table.
pub(crate) struct Strings(Vec<u8>);

impl Strings {
    /// Makes a table that holds the empty string.
    pub(crate) fn new() -> Self {
        Self(vec![0])
    }

    /// Adds a string, which must have no zero bytes, and returns its offset. The offset is valid if
    /// [`finish`](Self::finish) succeeds.
    pub(crate) fn add(&mut self, text: &str) -> u32 {
        let start = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        start as u32
    }

    /// Returns the bytes of the table.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`] beyond 4 GiB.
    pub(crate) fn finish(self) -> Result<Vec<u8>, LinkError> {
        let (size, limit) = (self.0.len() as u64, u64::from(u32::MAX));
        if size > limit {
            return Err(LinkError::TooLarge {
                module: None,
                what: "the table of names of symbols".into(),
                size,
                limit,
            });
        }
        Ok(self.0)
    }
}
