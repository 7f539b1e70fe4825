//! Says whether a frame of the host lets a foreign exception through, by its language-specific data
//! area. The format is that of `.gcc_except_table`, which Rust, C and C++ share: LLVM's document
//! "Exception Handling in LLVM" and the file `unwind-pe.h` of GCC define it.
//!
//! Rust ends the process when a foreign exception comes to a `catch_unwind`, to a function that
//! must not unwind, or to a call that has no entry at all. So a throw asks first.

use crate::unwind::Frame;

/// The effect of a frame on an exception that passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It runs destructors, or nothing.
    Free,
    /// It catches the exception, or ends the process.
    Blocked,
}

/// Returns what `frame` does with an exception.
pub(crate) fn passage(frame: Frame) -> Passage {
    let data = frame.language_data();
    if data.is_null() {
        return Passage::Free;
    }
    let start = frame.function_start();
    // SAFETY: the data was made by the compiler of the function, for the function.
    unsafe { Reader(data).passage(frame.inside().wrapping_sub(start)) }.unwrap_or(Passage::Blocked)
}

/// Reads from here on.
struct Reader(*const u8);

/// The encodings of pointers that a table of calls may have, without the bits that say what a
/// pointer is relative to.
const ULEB128: u8 = 0x01;
const OMIT: u8 = 0xff;

impl Reader {
    /// Returns what the function does with an exception of a call at `offset`. `None` if the data
    /// has a form that is not known here.
    ///
    /// # Safety
    ///
    /// This must be a language-specific data area.
    unsafe fn passage(mut self, offset: usize) -> Option<Passage> {
        // SAFETY: the area has these parts in this order, and their lengths say how far they go.
        unsafe {
            let base = self.byte();
            if base != OMIT {
                // Where handlers are relative to does not matter here.
                self.pointer(base)?;
            }
            if self.byte() != OMIT {
                self.uleb128();
            }
            let encoding = self.byte();
            let len = self.uleb128();
            let actions = self.0.wrapping_add(len);
            while self.0 < actions {
                let start = self.pointer(encoding)?;
                let len = self.pointer(encoding)?;
                let handler = self.pointer(encoding)?;
                let action = self.uleb128();
                if offset < start {
                    break;
                }
                if offset < start + len {
                    return Some(match (handler, action) {
                        (0, _) | (_, 0) => Passage::Free,
                        // The first action of a chain decides, as for Rust's personality: 0 is a
                        // cleanup, other values catch, or forbid to unwind.
                        (_, action) => match Self(actions.wrapping_add(action - 1)).sleb128() {
                            0 => Passage::Free,
                            _ => Passage::Blocked,
                        },
                    });
                }
            }
            // A call without an entry must not unwind.
            Some(Passage::Blocked)
        }
    }

    unsafe fn byte(&mut self) -> u8 {
        // SAFETY: the callers read what the format says is there.
        let byte = unsafe { *self.0 };
        self.0 = self.0.wrapping_add(1);
        byte
    }

    unsafe fn uleb128(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            // SAFETY: as above.
            let byte = unsafe { self.byte() };
            value |= usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    unsafe fn sleb128(&mut self) -> isize {
        let start = self.0;
        // SAFETY: as above.
        let value = unsafe { self.uleb128() };
        let bits = 7 * (self.0.addr() - start.addr()) as u32;
        match isize::BITS.checked_sub(bits) {
            Some(unused) if unused > 0 => ((value << unused) as isize) >> unused,
            _ => value as isize,
        }
    }

    /// Reads a number in the encoding of a pointer.
    unsafe fn pointer(&mut self, encoding: u8) -> Option<usize> {
        // SAFETY: as above; numbers need not be aligned.
        unsafe {
            let (value, size) = match encoding & 0x0f {
                ULEB128 => return Some(self.uleb128()),
                0x00 | 0x04 | 0x0c => (self.0.cast::<u64>().read_unaligned() as usize, 8),
                0x02 | 0x0a => (self.0.cast::<u16>().read_unaligned().into(), 2),
                0x03 | 0x0b => (self.0.cast::<u32>().read_unaligned() as usize, 4),
                _ => return None,
            };
            self.0 = self.0.wrapping_add(size);
            Some(value)
        }
    }
}
