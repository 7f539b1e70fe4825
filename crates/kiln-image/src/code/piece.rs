//! The tables of one module.

use super::cursor::Cursor;
use super::format::FunctionRecord;
use super::guide::Guide;
use super::lines::Lines;

/// A module's piece.
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) functions: &'a [FunctionRecord],
    pub(super) guide: Guide<'a>,
    /// The bytes after the guide.
    rest: Cursor<'a>,
}

impl<'a> Piece<'a> {
    #[inline]
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let count = u32::from_le_bytes(*cursor.bytes(4)?.first_chunk()?);
        let functions: &[_] = cursor.records(usize::try_from(count).ok()?)?;
        let guide = Guide::read(&mut cursor, functions.len())?;
        Some(Self { bytes, functions, guide, rest: cursor })
    }

    /// Returns the name of the module, and what follows it.
    pub(super) fn name(&self) -> Option<(&'a [u8], Cursor<'a>)> {
        let mut rest = self.rest;
        Some((rest.text()?, rest))
    }

    /// Returns the lines of the module, if it has some.
    pub(super) fn lines(&self) -> Option<Lines<'a>> {
        Lines::read(&mut self.name()?.1)
    }
}
