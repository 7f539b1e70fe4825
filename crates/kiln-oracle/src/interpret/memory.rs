//! The interpreter's memory: objects with gaps between them, a stack, and addresses of functions,
//! in one flat address space of 62 bits, which is the size of an address in Cranelift's
//! interpreter.
//!
//! Invariant: an access is inside one object, or it is refused. The gaps between objects belong to
//! no object.

/// The address of the first object: addresses near 0 are invalid.
const OBJECTS: u64 = 0x1_0000;
/// The address of the stack.
pub(crate) const STACK: u64 = 1 << 40;
/// The address of the first function.
const CODE: u64 = 1 << 41;
/// The address of the first of Cranelift's library routines.
const LIBCALLS: u64 = 1 << 42;
/// The number of bytes from a function to the next.
const FUNCTION: u64 = 16;
/// The least number of bytes between two objects.
const GAP: u64 = 64;

/// A data object, or a run-time object.
pub(crate) struct MemoryObject {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) writable: bool,
}

/// The memory that a program can access.
#[derive(Default)]
pub(crate) struct Memory {
    /// Objects in order of address.
    objects: Vec<MemoryObject>,
    pub(crate) stack: Vec<u8>,
}

impl Memory {
    /// Makes an object, and returns its number.
    pub(crate) fn allocate(&mut self, bytes: Vec<u8>, align: u64, writable: bool) -> usize {
        let end = self.objects.last().map_or(OBJECTS, |last| last.base + last.bytes.len() as u64 + GAP);
        self.objects.push(MemoryObject { base: end.next_multiple_of(align.max(1)), bytes, writable });
        self.objects.len() - 1
    }

    pub(crate) fn object(&self, number: usize) -> &MemoryObject {
        &self.objects[number]
    }

    pub(crate) fn object_mut(&mut self, number: usize) -> &mut MemoryObject {
        &mut self.objects[number]
    }

    /// Returns the last object that starts at or before `address`, and the distance from its start.
    fn find(&self, address: u64) -> Option<(usize, usize)> {
        let number = self.objects.partition_point(|object| object.base <= address).checked_sub(1)?;
        Some((number, usize::try_from(address - self.objects[number].base).ok()?))
    }

    /// Returns `len` bytes from `address` on, if they are inside one object.
    pub(crate) fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        if (STACK..CODE).contains(&address) {
            let start = usize::try_from(address - STACK).ok()?;
            return self.stack.get(start..start.checked_add(len)?);
        }
        let (number, start) = self.find(address)?;
        self.objects[number].bytes.get(start..start.checked_add(len)?)
    }

    /// Returns `len` bytes from `address` on, to be written, if they are inside one writable
    /// object.
    pub(crate) fn bytes_mut(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        if (STACK..CODE).contains(&address) {
            let start = usize::try_from(address - STACK).ok()?;
            return self.stack.get_mut(start..start.checked_add(len)?);
        }
        let (number, start) = self.find(address)?;
        let object = &mut self.objects[number];
        if !object.writable {
            return None;
        }
        object.bytes.get_mut(start..start.checked_add(len)?)
    }
}

/// Returns the address of function `number`.
pub(crate) fn code(number: usize) -> u64 {
    CODE + FUNCTION * number as u64
}

/// Returns the number of the function at `address`.
pub(crate) fn function_at(address: u64) -> Option<usize> {
    if address < LIBCALLS { number(address, CODE) } else { None }
}

/// Returns the address of library routine `number`.
pub(crate) fn libcall(number: usize) -> u64 {
    LIBCALLS + FUNCTION * number as u64
}

/// Returns the number of the library routine at `address`.
pub(crate) fn libcall_at(address: u64) -> Option<usize> {
    number(address, LIBCALLS)
}

fn number(address: u64, start: u64) -> Option<usize> {
    let offset = address.checked_sub(start)?;
    if offset % FUNCTION == 0 { usize::try_from(offset / FUNCTION).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_stays_inside_one_object() {
        let mut memory = Memory::default();
        let first = memory.allocate(vec![1, 2, 3], 1, false);
        let second = memory.allocate(vec![0; 8], 64, true);
        let (first, second) = (memory.object(first).base, memory.object(second).base);
        assert_eq!(second % 64, 0);
        assert_eq!(memory.bytes(first, 3), Some(&[1, 2, 3][..]));
        assert_eq!(memory.bytes(first, 4), None);
        assert_eq!(memory.bytes(first.wrapping_sub(1), 1), None);
        assert_eq!(memory.bytes(second + 8, 1), None);
        assert_eq!(memory.bytes(u64::MAX, 8), None);
        assert!(memory.bytes_mut(first, 1).is_none(), "read-only");
        memory.bytes_mut(second + 7, 1).unwrap()[0] = 9;
        assert_eq!(memory.bytes(second, 8), Some(&[0, 0, 0, 0, 0, 0, 0, 9][..]));
        assert_eq!(memory.bytes(STACK, 1), None);
        assert_eq!(function_at(code(7)), Some(7));
        assert_eq!(function_at(code(7) + 1), None);
        assert_eq!(function_at(first), None);
        assert_eq!(
            (function_at(libcall(3)), libcall_at(libcall(3)), libcall_at(code(3))),
            (None, Some(3), None)
        );
    }
}
