//! A heap with a moving collector: two halves, of which one is in use. When it is full, what is
//! reachable is copied to the other (Cheney, "A Nonrecursive List Compacting Algorithm", 1970).
//!
//! Roots are the references in the frames of compiled code, which `kiln_trap::roots` finds. After a
//! collection every object is somewhere else, and the old half is filled with nonsense, so a
//! reference that was missed is noticed.

use std::cell::RefCell;

/// An object: two references, which may be 0, and a number.
#[repr(C)]
struct Object {
    /// The address of the copy, or 0 if there is none.
    moved_to: usize,
    references: [usize; 2],
    number: i64,
}

const NONSENSE: Object = Object { moved_to: 0, references: [0xdead_0001; 2], number: -0x0bad_0bad };

/// A heap of two halves.
pub(crate) struct Heap {
    halves: [Vec<Object>; 2],
    /// The half that is in use.
    current: usize,
    /// The objects that are in it.
    len: usize,
    /// The collections, and the objects that they have moved.
    pub(crate) collections: u64,
    pub(crate) moved: u64,
}

thread_local! {
    static HEAP: RefCell<Heap> = RefCell::new(Heap::new(0));
}

impl Heap {
    fn new(capacity: usize) -> Self {
        let half = || (0..capacity).map(|_| NONSENSE).collect();
        Self { halves: [half(), half()], current: 0, len: 0, collections: 0, moved: 0 }
    }

    /// Gives this thread a heap for `capacity` objects. Returns the heap that it had.
    pub(crate) fn install(capacity: usize) -> Self {
        HEAP.replace(Self::new(capacity))
    }

    /// Copies an object, unless it was copied before. Returns the new address.
    fn copy(&mut self, reference: usize) -> usize {
        if reference == 0 {
            return 0;
        }
        let from = &mut self.halves[1 - self.current];
        let index = (reference - from.as_ptr().addr()) / size_of::<Object>();
        let object = &mut from[index];
        if object.moved_to == 0 {
            let copy = Object { moved_to: 0, references: object.references, number: object.number };
            let to = &mut self.halves[self.current][self.len];
            *to = copy;
            self.len += 1;
            self.moved += 1;
            self.halves[1 - self.current][index].moved_to = std::ptr::from_mut(to).expose_provenance();
        }
        self.halves[1 - self.current][index].moved_to
    }

    /// Moves everything that is reachable.
    fn collect(&mut self) -> Result<(), kiln_trap::RootsError> {
        self.collections += 1;
        self.current = 1 - self.current;
        self.len = 0;
        kiln_trap::roots(&mut |root| {
            let place = root.address.cast::<usize>();
            // SAFETY: the stack map says that a live reference is there.
            unsafe { *place = self.copy(*place) };
        })?;
        let mut scanned = 0;
        while scanned < self.len {
            for reference in 0..2 {
                let old = self.halves[self.current][scanned].references[reference];
                let new = self.copy(old);
                self.halves[self.current][scanned].references[reference] = new;
            }
            scanned += 1;
        }
        self.halves[1 - self.current].fill_with(|| NONSENSE);
        Ok(())
    }
}

/// Allocates an object, for compiled code: `() -> i64`. Returns 0 if the heap is full.
pub(crate) extern "C" fn allocate() -> i64 {
    HEAP.with_borrow_mut(|heap| {
        if heap.len == heap.halves[heap.current].len()
            && let Err(error) = heap.collect()
        {
            // Objects were moved, and not all references are known.
            eprintln!("the collector cannot go on: {error}");
            std::process::abort();
        }
        let current = heap.current;
        let Some(object) = heap.halves[current].get_mut(heap.len) else { return 0 };
        *object = Object { moved_to: 0, references: [0; 2], number: 0 };
        heap.len += 1;
        std::ptr::from_mut(object).expose_provenance() as i64
    })
}
