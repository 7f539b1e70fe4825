//! Tables with an entry for every few instructions, as streams of short integers: traps, source
//! locations, calls.
//!
//! As fixed-width records, such tables would be as long as the code. Each function has its own part
//! of each stream. In a part, offsets are relative to the function's start, and locations to the
//! function's base location, so the part does not change when its function moves.
//!
//! | stream | an entry |
//! |---|---|
//! | traps | `offset`; `code`, one byte |
//! | source locations | length and gap; `location` |
//! | calls | `return_offset`; `frame_offset` plus 1, or 0 for none; `handlers` |
//!
//! Offsets are written as the difference from the previous offset, locations as the difference from
//! the previous location, zigzag-encoded. Length and gap are the length times 2 if the range begins
//! where the one before ends, as most do; else the length times 2 plus 1, then the gap between
//! them. Images contain the streams as they are, so linking only copies them.
//!
//! Integers are LEB128. Invariant: a reader never goes beyond its part, and stops at the first
//! incomplete entry.

/// An instruction that may trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Offset of the instruction.
    pub offset: u32,
    /// Cranelift's `TrapCode` as a number.
    pub code: u8,
}

/// A range of code that was made from one source location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// First byte.
    pub start: u32,
    /// End, exclusive.
    pub end: u32,
    /// The client's source location.
    pub location: u32,
}

/// A call, described for unwinders and for garbage collectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// Return address.
    pub return_offset: u32,
    /// Bytes from the frame pointer down to the stack pointer at the call, if that is known.
    pub frame_offset: Option<u32>,
    /// Number of its exception handlers.
    pub handlers: u32,
}

/// Writes one function's part of a stream, entries in ascending order. Offsets are relative to the
/// function's start.
#[derive(Clone, Debug, Default)]
pub struct StreamWriter {
    bytes: Vec<u8>,
    offset: u32,
    location: u32,
}

/// Appends `value` as LEB128.
pub(crate) fn write_uint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Maps 0, -1, 1, -2, .. to 0, 1, 2, 3, ..
pub(crate) fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

pub(crate) fn unzigzag(code: u32) -> i32 {
    (code >> 1) as i32 ^ -((code & 1) as i32)
}

impl StreamWriter {
    fn uint(&mut self, value: u32) {
        write_uint(&mut self.bytes, value);
    }

    /// Writes the difference of `offset` from the previous offset.
    ///
    /// # Panics
    ///
    /// If the offset is less than the previous offset: entries must be in order.
    fn step(&mut self, offset: u32) {
        let step = offset.checked_sub(self.offset).expect("entries are in ascending order");
        self.uint(step);
        self.offset = offset;
    }

    /// Adds a trap to a stream of traps.
    ///
    /// # Panics
    ///
    /// If the trap is before the last trap that was added.
    pub fn trap(&mut self, trap: Trap) {
        let Trap { offset, code } = trap;
        self.step(offset);
        self.bytes.push(code);
    }

    /// Adds a range to a stream of source locations. Its location is relative to the function's
    /// base location.
    ///
    /// # Panics
    ///
    /// If the range starts before the end of the last range that was added, ends before it starts,
    /// or has 2 GiB or more.
    pub fn source_range(&mut self, range: SourceRange) {
        let SourceRange { start, end, location } = range;
        let gap = start.checked_sub(self.offset).expect("ranges are in ascending order");
        let len = end.checked_sub(start).filter(|len| *len < 1 << 31).expect("a range of less than 2 GiB");
        self.uint(len << 1 | u32::from(gap > 0));
        if gap > 0 {
            self.uint(gap);
        }
        self.offset = end;
        self.uint(zigzag(location.wrapping_sub(self.location) as i32));
        self.location = location;
    }

    /// Adds a call to a stream of calls.
    ///
    /// # Panics
    ///
    /// If the call is before the last call that was added, or its frame offset is 4 GiB - 1.
    pub fn call_site(&mut self, site: CallSite) {
        let CallSite { return_offset, frame_offset, handlers } = site;
        self.step(return_offset);
        self.uint(
            frame_offset.map_or(0, |offset| offset.checked_add(1).expect("a frame of less than 4 GiB")),
        );
        self.uint(handlers);
    }

    /// Returns the bytes of the part.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads one function's part of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamReader<'a> {
    pub(crate) bytes: &'a [u8],
    /// The last offset of the previous entry; 0 at first.
    offset: u32,
    /// The location of the previous entry; the function's base location at first.
    pub(crate) location: u32,
}

impl<'a> StreamReader<'a> {
    pub(crate) fn new(bytes: &'a [u8], location: u32) -> Self {
        Self { bytes, offset: 0, location }
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(crate) fn uint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Makes the next offset relative to the start again.
    pub(crate) fn offset_from_zero(&mut self) {
        self.offset = 0;
    }

    /// Reads a number that was written as the difference from the one before it.
    pub(crate) fn differing(&mut self) -> Option<u32> {
        self.location = self.location.wrapping_add(unzigzag(self.uint()?) as u32);
        Some(self.location)
    }

    pub(crate) fn step(&mut self) -> Option<u32> {
        self.offset = self.offset.checked_add(self.uint()?)?;
        Some(self.offset)
    }
}

macro_rules! reader {
    ($(#[$doc:meta])* $name:ident gives $entry:ident, |$reader:ident, $self:ident| $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name<'a> {
            reader: StreamReader<'a>,
            /// The offset of the function in the code.
            start: u32,
            broken: bool,
        }

        impl<'a> $name<'a> {
            /// Makes a reader of `bytes`, the part of a function that starts at `start` and whose
            /// base location is `base`.
            pub(crate) fn new(bytes: &'a [u8], start: u32, base: u32) -> Self {
                Self { reader: StreamReader::new(bytes, base), start, broken: false }
            }

            /// Whether reading stopped at an entry that is incomplete or not valid.
            pub(crate) fn is_broken(&self) -> bool {
                self.broken
            }
        }

        impl Iterator for $name<'_> {
            type Item = $entry;

            fn next(&mut self) -> Option<$entry> {
                if self.broken || self.reader.bytes.is_empty() {
                    return None;
                }
                let $self = &mut *self;
                let $reader = &mut $self.reader;
                let entry = (|| $read)();
                self.broken = entry.is_none();
                entry
            }
        }
    };
}

reader! {
    /// Traps of a function, in order of offset.
    Traps gives Trap, |reader, this| {
        let offset = this.start.checked_add(reader.step()?)?;
        Some(Trap { offset, code: reader.byte()? })
    }
}

reader! {
    /// Source locations of a function, in order of offset.
    SourceRanges gives SourceRange, |reader, this| {
        let head = reader.uint()?;
        if head & 1 != 0 {
            reader.step()?;
        }
        let start = this.start.checked_add(reader.offset)?;
        let end = start.checked_add(head >> 1)?;
        reader.offset = reader.offset.checked_add(head >> 1)?;
        Some(SourceRange { start, end, location: reader.differing()? })
    }
}

reader! {
    /// Calls of a function, in order of return address.
    CallSites gives CallSite, |reader, this| {
        let return_offset = this.start.checked_add(reader.step()?)?;
        let frame_offset = reader.uint()?.checked_sub(1);
        Some(CallSite { return_offset, frame_offset, handlers: reader.uint()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_round_trip() {
        let mut writer = StreamWriter::default();
        let ranges = [
            SourceRange { start: 0, end: 3, location: 0 },
            SourceRange { start: 3, end: 500, location: u32::MAX - 1 },
            SourceRange { start: 70_000, end: 70_000, location: 5 },
        ];
        ranges.iter().for_each(|range| writer.source_range(*range));
        let bytes = writer.finish();
        let moved = |range: SourceRange| SourceRange {
            start: range.start + 1000,
            end: range.end + 1000,
            location: range.location.wrapping_add(77),
        };
        assert!(SourceRanges::new(&bytes, 1000, 77).eq(ranges.map(moved)));

        let mut writer = StreamWriter::default();
        let sites = [(5, None, 0), (5, Some(0), 2), (u32::MAX, Some(u32::MAX - 1), u32::MAX)].map(
            |(return_offset, frame_offset, handlers)| CallSite { return_offset, frame_offset, handlers },
        );
        sites.iter().for_each(|site| writer.call_site(*site));
        assert!(CallSites::new(&writer.finish(), 0, 0).eq(sites));
    }

    #[test]
    fn a_part_that_is_not_whole_is_broken() {
        let mut writer = StreamWriter::default();
        writer.trap(Trap { offset: 300, code: 7 });
        writer.trap(Trap { offset: 301, code: 8 });
        let bytes = writer.finish();
        for (end, whole) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            let mut traps = Traps::new(&bytes[..end], 0, 0);
            assert_eq!((&mut traps).count(), whole);
            assert_eq!(traps.is_broken(), ![0, 3, 5].contains(&end), "{end}");
        }
        let mut far = Traps::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1], 1, 0);
        assert!(far.next().is_none() && far.is_broken());
        let mut long = Traps::new(&[0xff, 0xff, 0xff, 0xff, 0x1f, 1], 0, 0);
        assert!(long.next().is_none() && long.is_broken());
    }
}
