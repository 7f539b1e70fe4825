//! Values, and the pairs that they lead to.
//!
//! A number is an odd word, `nil` is 0, and any other word is the address of a pair, which is a
//! multiple of 16. So a word says what it is, and code needs no tables. Pairs are never freed: this
//! is an example of saving, not of collecting.

use std::cell::RefCell;
use std::fmt::Write as _;

use kiln::heap::{Object, Target, Temperature, Visit};

/// A value of the language.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Value(pub(crate) i64);

/// A pair. It never changes.
#[repr(C, align(16))]
pub(crate) struct Pair {
    pub(crate) head: Value,
    pub(crate) tail: Value,
}

const PAIR: usize = size_of::<Pair>();

/// Pairs are made in chunks of so many.
const CHUNK: usize = 1 << 16;

thread_local! {
    /// The chunks of this thread's program. They do not move when the list grows.
    static CHUNKS: RefCell<Vec<Vec<Pair>>> = const { RefCell::new(Vec::new()) };
}

/// Makes a pair. Compiled code calls it.
pub(crate) extern "C" fn cons(head: Value, tail: Value) -> Value {
    CHUNKS.with_borrow_mut(|chunks| {
        if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = chunks.last_mut().expect("there is one");
        chunk.push(Pair { head, tail });
        Value((&raw const chunk[chunk.len() - 1]).expose_provenance() as i64)
    })
}

/// The pairs of this thread.
pub(crate) struct Heap(());

/// The most pairs of a value that are shown.
const SHOWN: usize = 20;

impl Heap {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Returns the text of a value.
    pub(crate) fn show(&self, value: Value) -> String {
        let mut text = String::new();
        let mut left = SHOWN;
        show(value, &mut left, &mut text);
        text
    }

    /// Returns a visitor for the pairs, and for these cells.
    pub(crate) fn visitor(&self, cells: impl Iterator<Item = *const Value>) -> Visitor {
        let range = |chunk: &Vec<Pair>| {
            let start = chunk.as_ptr().addr();
            start..start + chunk.len() * PAIR
        };
        let mut chunks: Vec<_> = CHUNKS.with_borrow(|chunks| chunks.iter().map(range).collect());
        chunks.sort_unstable_by_key(|range| range.start);
        let mut cells: Vec<usize> = cells.map(<*const Value>::addr).collect();
        cells.sort_unstable();
        Visitor { chunks, cells }
    }
}

fn show(value: Value, left: &mut usize, text: &mut String) {
    match value.0 {
        0 => text.push_str("nil"),
        number if number & 1 == 1 => {
            let _ = write!(text, "{}", number >> 1);
        }
        address => {
            let (mut address, mut between) = (address, "(");
            while address != 0 && address & 1 == 0 {
                text.push_str(between);
                between = " ";
                let Some(rest) = left.checked_sub(1) else {
                    text.push_str("...");
                    break;
                };
                *left = rest;
                // SAFETY: values are made by `cons`, or are in a loaded image of such values.
                let pair = unsafe { &*std::ptr::with_exposed_provenance::<Pair>(address as usize) };
                show(pair.head, left, text);
                address = pair.tail.0;
            }
            if address & 1 == 1 {
                text.push_str(" . ");
                show(Value(address), left, text);
            }
            text.push(')');
        }
    }
}

/// Knows all pairs and cells of a program.
pub(crate) struct Visitor {
    chunks: Vec<std::ops::Range<usize>>,
    cells: Vec<usize>,
}

// SAFETY: only pairs in chunks and cells are objects, and both live as long as the thread's
// program, which saves itself and does nothing else meanwhile.
unsafe impl Visit for Visitor {
    fn target(&mut self, word: usize) -> Option<Target<'_>> {
        if word & 1 == 1 {
            return Some(Target::Number);
        }
        let after = self.chunks.partition_point(|chunk| chunk.start <= word);
        let is_pair = after.checked_sub(1).is_some_and(|index| self.chunks[index].contains(&word));
        let object = |size, align, mutable, temperature| {
            Some(Target::Object(Object { address: word, size, align, mutable, temperature }))
        };
        match self.cells.binary_search(&word) {
            Ok(_) => object(8, 8, true, Temperature::Hot),
            Err(_) if is_pair => object(PAIR, PAIR, false, Temperature::Cold),
            Err(_) => None,
        }
    }

    fn pointers(&mut self, object: &Object, report: &mut dyn FnMut(usize)) {
        (0..object.size).step_by(8).for_each(report);
    }
}
