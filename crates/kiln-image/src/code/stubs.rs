//! Writes what is known about stubs: their places, and the names of what they lead to.
//!
//! A module's veneers and its own stubs are in its piece, between its functions; the stubs that all
//! modules share are in a piece of their own.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::format::{FUNCTION, FunctionRecord, STUB};
use super::guide;
use super::sink::{Count, Sink, Write, put};

/// A stub or a veneer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StubRow<'a> {
    /// First byte of its code, from the start of the module's, or of the first shared stub.
    pub(crate) start: u32,
    /// Length of its code in bytes.
    pub(crate) len: u32,
    /// The name of what it leads to.
    pub(crate) name: &'a str,
    /// The position in the slot array of the slot of a replaceable function.
    pub(crate) slot: Option<u32>,
}

impl StubRow<'_> {
    fn put(&self, sink: &mut impl Sink) {
        sink.uint(self.len);
        sink.text(self.name);
        sink.uint(self.slot.map_or(0, |slot| slot + 1));
    }

    /// Writes its record and its description. The description begins `at` bytes after the start of
    /// the piece.
    pub(super) fn write(&self, at: usize, index: &mut &mut [u8], out: &mut Write<'_>) {
        let description = U32::new(at as u32 | STUB);
        put(index, FunctionRecord { start: U32::new(self.start), description }.as_bytes());
        self.put(out);
    }
}

/// Returns the length of the descriptions of stubs, in bytes.
pub(super) fn len(rows: &[StubRow<'_>]) -> u64 {
    let mut total = Count(0);
    rows.iter().for_each(|row| row.put(&mut total));
    total.0
}

/// Returns an upper bound of what a stub with a name of `name` bytes adds to code tables, in bytes:
/// three numbers, a record and its part of a guide, and the name.
pub(crate) fn row_bound(name: usize) -> u64 {
    (3 * 5 + FUNCTION + 8 + name) as u64
}

/// Returns an upper bound of what a piece of stubs has besides its rows, in bytes.
pub(crate) const PIECE_BOUND: u64 = 64;

/// Returns the piece of stubs that belong to no module.
pub(crate) fn piece(rows: &[StubRow<'_>]) -> Vec<u8> {
    if rows.is_empty() {
        return Vec::new();
    }
    let count = rows.len();
    // Neither a name nor lines.
    let ends = [0; 2];
    let head = 4 + FUNCTION * count + guide::len(count) + ends.len();
    let mut bytes = vec![0; head + len(rows) as usize];
    let total = bytes.len();
    let (mut index, rest) = bytes.split_at_mut(4 + FUNCTION * count);
    put(&mut index, &(count as u32).to_le_bytes());
    let (guide, rest) = rest.split_at_mut(guide::len(count));
    guide::write(rows.iter().map(|row| row.start), guide);
    let mut out = Write(rest);
    out.bytes(&ends);
    for row in rows {
        row.write(total - out.0.len(), &mut index, &mut out);
    }
    bytes
}

/// Returns the first bytes of functions and of stubs, in order.
pub(super) fn merged(functions: impl Iterator<Item = u32>, rows: &[StubRow<'_>]) -> Vec<u32> {
    let mut starts: Vec<_> = functions.chain(rows.iter().map(|row| row.start)).collect();
    starts.sort_unstable();
    starts
}
