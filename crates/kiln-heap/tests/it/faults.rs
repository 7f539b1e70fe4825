//! Heaps and visitors that are refused, each with the way to the object.

use std::cell::Cell;

use kiln_heap::{Fault, Input, Object, Registry, Root, SnapshotError, Target, Temperature, Visit, snapshot};

use crate::arena::{Arena, TRIPLE, Word, node};

/// A visitor that lies, or looks away: closures say what it says.
struct Liar<T, P> {
    target: T,
    pointers: P,
}

// SAFETY: the closures of these tests return objects in `MEMORY`, or ones that are refused before
// they are read.
unsafe impl<T, P> Visit for Liar<T, P>
where
    T: FnMut(usize) -> Option<Target<'static>>,
    P: FnMut(&Object, &mut dyn FnMut(usize)),
{
    fn target(&mut self, pointer: usize) -> Option<Target<'_>> {
        (self.target)(pointer)
    }

    fn pointers(&mut self, object: &Object, report: &mut dyn FnMut(usize)) {
        (self.pointers)(object, report);
    }
}

/// Two objects of 32 bytes: the first leads to the second, at offset 8.
struct Pair([Cell<usize>; 8]);

impl Pair {
    fn new() -> Box<Self> {
        let pair = Box::new(Self(std::array::from_fn(|_| Cell::new(0))));
        pair.0[1].set(pair.second());
        pair
    }

    fn first(&self) -> usize {
        (&raw const self.0).expose_provenance()
    }

    fn second(&self) -> usize {
        self.first() + 32
    }

    fn object(&self, pointer: usize) -> Object {
        let address = if pointer < self.second() { self.first() } else { self.second() };
        Object { address, size: 32, align: 8, mutable: false, temperature: Temperature::Cold }
    }
}

/// Saves a pair of which the visitor says what `change` makes of the truth, when it is asked for
/// the time with this number, and reports these pointers of the second.
fn save_with(
    change: impl Fn(usize, Object) -> Object,
    second: &[usize],
    word: usize,
) -> Result<(), SnapshotError> {
    let pair = Pair::new();
    pair.0[4].set(if word == 1 { pair.first() } else { word });
    let mut asked = 0;
    let mut visitor = Liar {
        target: |pointer| {
            if !(pair.first()..pair.second() + 32).contains(&pointer) {
                return None;
            }
            asked += 1;
            Some(Target::Object(change(asked - 1, pair.object(pointer))))
        },
        pointers: |object: &Object, report: &mut dyn FnMut(usize)| {
            let list = if object.address == pair.first() { &[8][..] } else { second };
            list.iter().for_each(|&offset| report(offset));
        },
    };
    let mut names = |_| Err(None);
    let roots = [Root { key: "root", address: pair.first() }];
    snapshot(&mut Input { triple: TRIPLE, roots: &roots, names: &mut names }, &mut visitor).map(drop)
}

/// Returns the fault, and the offsets of the way to it.
fn fault_of(result: Result<(), SnapshotError>) -> (Fault, Vec<usize>) {
    let error = result.expect_err("refused");
    assert_eq!(&*error.path.root, "root");
    (error.fault, error.path.offsets)
}

#[test]
fn the_truth_is_accepted() {
    save_with(|_, object| object, &[0], 1).unwrap();
    save_with(|_, object| object, &[], 99).unwrap();
}

#[test]
fn lies_about_pointers_are_refused() {
    let truth = |_, object| object;
    let outside = |offset| (Fault::PointerOutside { offset, size: 32 }, vec![8]);
    assert_eq!(fault_of(save_with(truth, &[32], 0)), outside(32));
    assert_eq!(fault_of(save_with(truth, &[25], 0)), outside(25));
    assert_eq!(fault_of(save_with(truth, &[usize::MAX], 0)), outside(usize::MAX));
    let order = |offset, before| (Fault::PointerOrder { offset, before }, vec![8]);
    assert_eq!(fault_of(save_with(truth, &[8, 8], 0)), order(8, 8));
    assert_eq!(fault_of(save_with(truth, &[8, 12], 0)), order(12, 8));
    assert_eq!(fault_of(save_with(truth, &[16, 0], 0)), order(0, 16));
    let unknown = Fault::Unknown { offset: 0, word: 0x77 };
    assert_eq!(fault_of(save_with(truth, &[0], 0x77)), (unknown, vec![8]));
}

#[test]
fn lies_about_objects_are_refused() {
    let of_second = |change: fn(Object) -> Object| {
        fault_of(save_with(|asked, object| if asked == 1 { change(object) } else { object }, &[], 0))
    };
    // The error is about the object that has the pointer.
    assert!(
        matches!(of_second(|it| Object { size: 0, ..it }), (Fault::Size { size: 0, .. }, way) if way.is_empty())
    );
    let endless = of_second(|it| Object { size: usize::MAX, ..it });
    assert!(matches!(endless.0, Fault::Size { size: usize::MAX, .. }));
    let huge = of_second(|it| Object { size: 1 << 40, ..it });
    assert_eq!(huge.0, Fault::TooLarge { limit: 1 << 31 });
    for align in [0, 3, 8192] {
        assert!(matches!(of_second(match align {
            0 => |it| Object { align: 0, ..it },
            3 => |it| Object { align: 3, ..it },
            _ => |it| Object { align: 8192, ..it },
        }).0, Fault::Align { align: found, .. } if found == align));
    }
    let odd = of_second(|it| Object { address: it.address - 4, size: 40, ..it });
    assert!(matches!(odd.0, Fault::Align { align: 8, .. }));
    let elsewhere = of_second(|it| Object { address: it.address - 32, ..it });
    assert!(matches!(elsewhere.0, Fault::Outside { offset: 8, .. }));
    let overlap = of_second(|it| Object { address: it.address - 8, size: 40, ..it });
    let Fault::Overlap { other } = overlap.0 else { panic!("{overlap:?}") };
    assert_eq!((&*other.root, &*other.offsets, overlap.1), ("root", &[][..], vec![8]));
    // The second time, the same object is another one.
    let change = |asked, object| if asked == 2 { Object { size: 24, ..object } } else { object };
    let (fault, way) = fault_of(save_with(change, &[0], 1));
    assert!(matches!(fault, Fault::Contradiction { .. }), "{fault}");
    assert_eq!(way, [8]);
}

#[test]
fn changes_by_others_are_refused() {
    // The visitor stands for a thread that writes while the snapshot is made: when it is asked for
    // the pointers of the second object, both were read once.
    for (index, way, offset) in [(0, vec![], 0), (3, vec![], 24), (5, vec![8], 8)] {
        let pair = Pair::new();
        let mut visitor = Liar {
            target: |pointer| Some(Target::Object(pair.object(pointer))),
            pointers: |object: &Object, report: &mut dyn FnMut(usize)| match object.address {
                address if address == pair.first() => report(8),
                _ => pair.0[index].set(1),
            },
        };
        let mut names = |_| Err(None);
        let roots = [Root { key: "root", address: pair.first() }];
        let mut input = Input { triple: TRIPLE, roots: &roots, names: &mut names };
        let result = snapshot(&mut input, &mut visitor).map(drop);
        assert_eq!(fault_of(result), (Fault::Changed { offset }, way));
    }
}

#[test]
fn threads_that_write_make_an_error_or_one_state() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    // A thread keeps the words equal, one after the other.
    let words: Vec<AtomicUsize> = (0..512).map(|_| AtomicUsize::new(0)).collect();
    let (stop, mut saved, mut refused) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1.. {
                words.iter().for_each(|word| word.store(round, Ordering::Release));
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if round % 16 == 0 {
                    std::thread::sleep(std::time::Duration::from_micros(300));
                }
            }
        });
        let address = words.as_ptr().expose_provenance();
        let mut registry = Registry::new();
        let object = Object { address, size: 4096, align: 8, mutable: true, temperature: Temperature::Hot };
        // SAFETY: `words` lives longer, and is written through atomics.
        unsafe { registry.register(object, []) }.unwrap();
        while saved < 20 || (refused < 5 && saved < 100_000) {
            let mut names = |_| Err(None);
            let roots = [Root { key: "root", address }];
            let mut input = Input { triple: TRIPLE, roots: &roots, names: &mut names };
            match snapshot(&mut input, &mut registry) {
                Ok(snapshot) => {
                    saved += 1;
                    let numbers = snapshot.artifact.writable().as_chunks::<8>().0.iter();
                    let numbers: Vec<_> = numbers.map(|word| u64::from_ne_bytes(*word)).collect();
                    // One state: the first words are of this round, the others of the last one.
                    let (new, old) = (numbers[0], numbers[511]);
                    assert!(new == old || new == old + 1, "{new}, {old}");
                    assert!(numbers.is_sorted_by(|a, b| a >= b));
                }
                Err(SnapshotError { fault: Fault::Changed { .. }, .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(saved > 0 && refused > 0, "{saved}, {refused}");
}

#[test]
fn wrong_roots_are_refused() {
    let nodes = [node([Word::Number(1)]), node([Word::Number(2)])];
    let mut arena = Arena::new(&nodes, false, 1);
    for roots in [[("a", 0), ("a", 1)], [("", 0), ("b", 1)], [("a\0b", 0), ("b", 1)]] {
        assert_eq!(arena.save(&roots).unwrap_err().fault, Fault::Key);
    }
    let address = arena.addresses[1];
    arena.addresses[1] = 0;
    assert_eq!(arena.save(&[("a", 1)]).unwrap_err().fault, Fault::NotAnObject { word: 0 });
    arena.addresses[1] = address + 8;
    let unknown = Fault::Unknown { offset: 0, word: address + 8 };
    assert_eq!(arena.save(&[("a", 1)]).unwrap_err().fault, unknown);
}

#[test]
fn the_way_begins_at_the_root() {
    use Word::{Null, Number, Pointer};
    let nodes = [
        node([Number(1), Number(2), Pointer(1, 0)]),
        node([Pointer(2, 8), Null]),
        node([Number(3), Pointer(3, 0)]),
        node([Null, Null, Null, Null]),
    ];
    let mut arena = Arena::new(&nodes, false, 1);
    let last = arena.addresses[3];
    arena.write(last + 24, 0x1234);
    let error = arena.save(&[("a", 1), ("b", 0)]).unwrap_err();
    // The shortest one, and the first of these.
    assert_eq!((&*error.path.root, &*error.path.offsets), ("a", &[0, 8][..]));
    let error = arena.save(&[("b", 0)]).unwrap_err();
    assert_eq!((&*error.path.root, &*error.path.offsets), ("b", &[16, 0, 8][..]));
}

#[test]
fn the_message_has_the_way() {
    use Word::{Number, Pointer};
    // A list of 100 cells, whose last one leads to nothing that is known.
    let mut nodes: Vec<_> = (1..100).map(|next| node([Number(0), Pointer(next, 0)])).collect();
    nodes.push(node([Number(0), Word::Null]));
    let mut arena = Arena::new(&nodes, false, 0);
    let last = arena.addresses[99];
    arena.write(last + 8, 0x1234);
    let error = arena.save(&[("list", 0)]).unwrap_err();
    assert_eq!(error.path.offsets, [8; 99]);
    assert_eq!(
        error.to_string(),
        "at `list` +8 +8 +8 +8 +8 +8 ... 87 more ... +8 +8 +8 +8 +8 +8: the word 0x1234 at offset 8 \
         leads to nothing that can be saved"
    );
}

#[test]
fn long_lists_need_no_stack() {
    let count = 200_000;
    let mut nodes: Vec<_> = (1..count).map(|next| node([Word::Pointer(next, 0)])).collect();
    nodes.push(node([Word::Null]));
    let mut arena = Arena::new(&nodes, true, 0);
    let small = std::thread::Builder::new().stack_size(64 << 10);
    let saved = small.spawn(move || arena.save(&[("list", 0)]).unwrap()).unwrap().join().unwrap();
    assert_eq!((saved.stats.objects, saved.stats.pointers), (count, count - 1));
}

#[test]
fn registered_objects_do_not_overlap() {
    let mut registry = Registry::new();
    let memory = [0u64; 16];
    let start = memory.as_ptr().expose_provenance();
    let mut register = |offset: usize, size| {
        let (address, temperature) = (start + offset, Temperature::Hot);
        let object = Object { address, size, align: 8, mutable: false, temperature };
        // SAFETY: a part of `memory`.
        unsafe { registry.register(object, []) }.map_err(|error| error.other - start)
    };
    register(32, 32).unwrap();
    for (offset, size) in [(32, 32), (32, 8), (40, 8), (24, 16), (24, 64), (56, 16)] {
        assert_eq!(register(offset, size), Err(32), "{offset}, {size}");
    }
    register(24, 8).unwrap();
    register(64, 16).unwrap();
    assert_eq!(register(0, 128), Err(64));
    assert!(registry.find(start + 23).is_none() && registry.find(start + 80).is_none());
    assert_eq!(registry.find(start + 63).map(|it| it.address), Some(start + 32));
    assert!(registry.remove(start + 32) && !registry.remove(start + 32));
    assert_eq!(registry.len(), 2);
}
