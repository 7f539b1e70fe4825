//! Finds and copies what is reachable from the roots.
//!
//! Objects are numbered in the order in which they are found, breadth first: roots in their order,
//! then the pointers of each object in order. So the numbers depend on the shape of the heap alone.
//! The list of objects is the queue, and each remembers the pointer by which it was found first:
//! that is a shortest way from a root.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::SymbolKind;

use crate::error::{Fault, Path, SnapshotError};
use crate::input::{Input, Name, Root};
use crate::memory::{Visit, read};
use crate::object::{MAX_ALIGN, Object, Target};

/// All objects together have fewer bytes than this, as all programs of Kiln's linker.
const MAX_SIZE: u64 = 1 << 31;

/// The pointer by which an object was found.
#[derive(Clone, Copy)]
enum From {
    /// The root with this number.
    Root(u32),
    /// The pointer at this offset of the object with this number.
    Field { object: u32, offset: u32 },
}

/// An object that was found.
pub(crate) struct Found {
    pub(crate) object: Object,
    from: From,
    /// The start of its copy.
    start: u32,
    /// The end of its part of the pointers.
    end: u32,
    /// Whether it has a pointer to something with a name.
    pub(crate) bound: bool,
}

/// The number of an object or of a symbol, and the distance from its start.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    Object { number: u32, distance: u32 },
    Symbol { number: u32, distance: i64 },
}

/// A pointer in an object.
#[derive(Clone, Copy)]
pub(crate) struct Pointer {
    pub(crate) offset: u32,
    pub(crate) aim: Aim,
}

/// The objects that are reachable from the roots.
#[derive(Default)]
pub(crate) struct Heap {
    pub(crate) objects: Vec<Found>,
    /// The pointers that are not null, in order of objects.
    pointers: Vec<Pointer>,
    /// The bytes of the objects, as they were read.
    bytes: Vec<u8>,
    /// The things with names, in order of first use.
    pub(crate) symbols: Vec<(SymbolKind, Box<str>)>,
    /// The object of each root, and the distance of the root from its start.
    pub(crate) roots: Vec<(u32, u32)>,
}

impl Heap {
    /// Returns the bytes of an object.
    pub(crate) fn bytes(&self, number: usize) -> &[u8] {
        let Found { object, start, .. } = &self.objects[number];
        &self.bytes[*start as usize..][..object.size]
    }

    /// Returns the pointers of an object.
    pub(crate) fn pointers(&self, number: usize) -> &[Pointer] {
        let start = number.checked_sub(1).map_or(0, |before| self.objects[before].end);
        &self.pointers[start as usize..self.objects[number].end as usize]
    }

    pub(crate) fn pointer_count(&self) -> usize {
        self.pointers.len()
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the way by which an object was found.
    fn path(&self, roots: &[Root<'_>], from: From) -> Path {
        let (mut from, mut offsets) = (from, Vec::new());
        loop {
            match from {
                From::Root(number) => {
                    offsets.reverse();
                    return Path { root: roots[number as usize].key.into(), offsets };
                }
                From::Field { object, offset } => {
                    offsets.push(offset as usize);
                    from = self.objects[object as usize].from;
                }
            }
        }
    }
}

/// The state of the search.
struct Collector<'c, 'i> {
    heap: Heap,
    input: &'c mut Input<'i>,
    visitor: &'c mut dyn Visit,
    /// The number of each object by its address.
    numbers: HashMap<usize, u32, FastHash>,
    /// The number of each symbol, by its kind and name. These maps are looked up, never iterated.
    symbols: HashMap<u8, HashMap<Box<str>, u32, FastHash>, FastHash>,
    /// The pointers of the object that is scanned. The memory is reused.
    offsets: Vec<usize>,
}

/// Finds, copies and checks all objects.
pub(crate) fn collect(input: &mut Input<'_>, visitor: &mut dyn Visit) -> Result<Heap, SnapshotError> {
    let heap = Heap::default();
    let (numbers, symbols, offsets) = Default::default();
    let mut collector = Collector { heap, input, visitor, numbers, symbols, offsets };
    collector.add_roots()?;
    let mut next = 0;
    while next < collector.heap.objects.len() {
        collector.scan(next as u32)?;
        next += 1;
    }
    let Collector { heap, input, .. } = collector;
    check_overlaps(&heap, input.roots)?;
    read_again(&heap, input.roots)?;
    Ok(heap)
}

impl Collector<'_, '_> {
    fn error(&self, from: From, fault: Fault) -> SnapshotError {
        SnapshotError { path: self.heap.path(self.input.roots, from), fault }
    }

    fn add_roots(&mut self) -> Result<(), SnapshotError> {
        let mut keys = std::collections::HashSet::new();
        for (number, root) in (0..).zip(self.input.roots) {
            let from = From::Root(number);
            if root.key.is_empty() || root.key.contains('\0') || !keys.insert(root.key) {
                return Err(self.error(from, Fault::Key));
            }
            let word = root.address;
            let aim = if word == 0 { None } else { self.aim(from, from, 0, word)? };
            match aim {
                Some(Aim::Object { number, distance }) => self.heap.roots.push((number, distance)),
                _ => return Err(self.error(from, Fault::NotAnObject { word })),
            }
        }
        Ok(())
    }

    /// Finds the pointers of an object, and the objects that they lead to.
    fn scan(&mut self, number: u32) -> Result<(), SnapshotError> {
        let Found { object, from, start, .. } = self.heap.objects[number as usize];
        let (mut offsets, mut fault) = (std::mem::take(&mut self.offsets), None);
        offsets.clear();
        self.visitor.pointers(&object, &mut |offset| {
            // After a fault, nothing is kept: a visitor may report without an end.
            if fault.is_some() {
                return;
            }
            let before = offsets.last().copied();
            if offset.checked_add(8).is_none_or(|end| end > object.size) {
                fault = Some(Fault::PointerOutside { offset, size: object.size });
            } else if let Some(before) = before.filter(|before| offset < before + 8) {
                fault = Some(Fault::PointerOrder { offset, before });
            } else {
                offsets.push(offset);
            }
        });
        if let Some(fault) = fault {
            return Err(self.error(from, fault));
        }
        for &offset in &offsets {
            let bytes = &self.heap.bytes[start as usize + offset..][..8];
            let word = usize::from_ne_bytes(bytes.try_into().expect("8 bytes"));
            if word == 0 {
                continue;
            }
            // Offsets are smaller than the largest heap.
            let offset = offset as u32;
            if let Some(aim) = self.aim(from, From::Field { object: number, offset }, offset, word)? {
                self.heap.pointers.push(Pointer { offset, aim });
                self.heap.objects[number as usize].bound |= matches!(aim, Aim::Symbol { .. });
            }
        }
        self.heap.objects[number as usize].end = self.heap.pointers.len() as u32;
        self.offsets = offsets;
        Ok(())
    }

    /// Returns what `word` leads to, which is at `offset` of the object that was found from
    /// `holder`; the word itself is `from`. `None` for a number.
    fn aim(
        &mut self,
        holder: From,
        from: From,
        offset: u32,
        word: usize,
    ) -> Result<Option<Aim>, SnapshotError> {
        let offset = offset as usize;
        let (kind, name, distance) = match self.visitor.target(word) {
            Some(Target::Number) => return Ok(None),
            Some(Target::Object(object)) => return self.add(holder, from, offset, word, object).map(Some),
            Some(Target::Symbol { kind, name, offset }) => (kind, Cow::Borrowed(name), offset),
            None => match (self.input.names)(word) {
                Ok(Name { kind, name, offset }) => (kind, Cow::Owned(name.into()), offset),
                Err(what) => {
                    let fault = match what {
                        Some(what) => Fault::Unnamed { offset, word, what },
                        None => Fault::Unknown { offset, word },
                    };
                    return Err(self.error(holder, fault));
                }
            },
        };
        if name.is_empty() || name.contains('\0') {
            return Err(self.error(holder, Fault::Name { offset }));
        }
        let known = self.symbols.entry(kind as u8).or_default();
        let number = match known.get(&*name) {
            Some(&number) => number,
            None => {
                let (number, name) = (self.heap.symbols.len() as u32, Box::<str>::from(name));
                known.insert(name.clone(), number);
                self.heap.symbols.push((kind, name));
                number
            }
        };
        Ok(Some(Aim::Symbol { number, distance }))
    }

    /// Adds the object that `word` leads to, if it is new.
    fn add(
        &mut self,
        holder: From,
        from: From,
        offset: usize,
        word: usize,
        object: Object,
    ) -> Result<Aim, SnapshotError> {
        let Object { address, size, align, .. } = object;
        let Some(end) = address.checked_add(size).filter(|_| size > 0 && address > 0) else {
            return Err(self.error(holder, Fault::Size { address, size }));
        };
        if !align.is_power_of_two() || align > MAX_ALIGN || !address.is_multiple_of(align) {
            return Err(self.error(holder, Fault::Align { address, align }));
        }
        if !(address..end).contains(&word) {
            return Err(self.error(holder, Fault::Outside { offset, word, address, end }));
        }
        let next = self.heap.objects.len() as u32;
        let number = *self.numbers.entry(address).or_insert(next);
        // Fits, since `MAX_SIZE` is the most that is copied, or is about to be an error.
        let start = self.heap.bytes.len() as u32;
        if number == next {
            if (u64::from(start)).saturating_add(size as u64) >= MAX_SIZE {
                return Err(self.error(holder, Fault::TooLarge { limit: MAX_SIZE }));
            }
            // SAFETY: the visitor says that this is an object, and so that it can be read.
            #[expect(unsafe_code, reason = "the visitor's promise is about this call")]
            unsafe {
                read(&object, &mut self.heap.bytes);
            }
            self.heap.objects.push(Found { object, from, start, end: 0, bound: false });
        } else if self.heap.objects[number as usize].object != object {
            return Err(self.error(holder, Fault::Contradiction { address }));
        }
        Ok(Aim::Object { number, distance: (word - address) as u32 })
    }
}

/// Checks that no two objects share a byte.
fn check_overlaps(heap: &Heap, roots: &[Root<'_>]) -> Result<(), SnapshotError> {
    let mut order: Vec<(usize, u32)> =
        (0..).zip(&heap.objects).map(|(number, found)| (found.object.address, number)).collect();
    order.sort_unstable();
    for pair in order.windows(2) {
        let [first, second] = [pair[0].1, pair[1].1].map(|number| &heap.objects[number as usize]);
        if first.object.address + first.object.size > second.object.address {
            // The one that was found later is what the error is about.
            let (path, other) = if pair[0].1 < pair[1].1 { (second, first) } else { (first, second) };
            let [path, other] = [path, other].map(|found| heap.path(roots, found.from));
            return Err(SnapshotError { path, fault: Fault::Overlap { other } });
        }
    }
    Ok(())
}

/// Reads all objects again, and compares them with what was read before.
fn read_again(heap: &Heap, roots: &[Root<'_>]) -> Result<(), SnapshotError> {
    let mut again = Vec::new();
    for (number, found) in heap.objects.iter().enumerate() {
        again.clear();
        // SAFETY: the visitor said that this is an object, and is still borrowed.
        #[expect(unsafe_code, reason = "the visitor's promise is about this call")]
        unsafe {
            read(&found.object, &mut again);
        }
        let before = heap.bytes(number);
        if before != &*again {
            let offset = before.iter().zip(&again).position(|(a, b)| a != b).unwrap_or_default();
            let path = heap.path(roots, found.from);
            return Err(SnapshotError { path, fault: Fault::Changed { offset } });
        }
    }
    Ok(())
}
