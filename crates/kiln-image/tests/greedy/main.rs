//! Whatever the bytes of an image, reading it takes time and memory in proportion to their length.
//! The images here are made to break that: many records refer to one long text.
//!
//! This test has a binary of its own, so that nothing else allocates.

mod hostile;
#[path = "../common/note_sum.rs"]
mod note_sum;

use std::alloc::System;
use std::time::{Duration, Instant};

use cap::Cap;
use kiln_image::{Image, ImageInfo, LoadError, verify_bytes};

use crate::hostile::{Hostile, START, symbol, words};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes of memory for each byte of an image. A section header has 64 bytes, and its description
/// takes 80; a text of no bytes has 8, and takes 16.
const FOR_BYTE: usize = 8;
/// Bytes of memory for an image of any length.
const FREE: usize = 1 << 17;

/// A name of the query, which no image has.
const ABSENT: &str = "a";

fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(byte.into()))
}

/// A hash table with one bucket, whose chain has all symbols: `count` with the hash of `name`.
fn one_chain(name: &str, count: u32) -> Vec<u8> {
    let hash = gnu_hash(name);
    let mut table = words(&[1, 1, 1, 0, u32::MAX, u32::MAX, 1]);
    (1..count).for_each(|_| table.extend(words(&[hash & !1])));
    table.extend(words(&[hash | 1]));
    table
}

/// A kind of image: its name; the reason why it is refused; and the image of about `size` bytes,
/// half of which are records that share the other half.
type Kind = (&'static str, &'static str, fn(u32) -> Hostile);

const KINDS: [Kind; 17] = [
    ("features", "texts in the note that share bytes", |size| Hostile {
        features: words(&[START, size / 2]).repeat(size as usize / 16),
        strings: vec![b'f'; size as usize / 2],
        ..Hostile::default()
    }),
    ("producers", "texts in the note that share bytes", |size| Hostile {
        // Each is one byte shorter than the one before.
        producers: (0..size / 16).flat_map(|number| words(&[START + number, size / 2 - number])).collect(),
        strings: vec![b'p'; size as usize / 2],
        ..Hostile::default()
    }),
    ("signatures", "texts in the note that share bytes", |size| Hostile {
        signatures: words(&[START, size / 2]).repeat(size as usize / 16),
        strings: vec![b's'; size as usize / 2],
        ..Hostile::default()
    }),
    ("slots", "texts in the note that share bytes", |size| Hostile {
        slots: words(&[START, size / 2, 0, u32::MAX, 0]).repeat(size as usize / 40),
        strings: vec![b's'; size as usize / 2],
        ..Hostile::default()
    }),
    ("checksums", "texts in the note that share bytes", |size| Hostile {
        sums: vec![(START, size / 2); size as usize / 80],
        strings: vec![b'c'; size as usize / 2],
        ..Hostile::default()
    }),
    ("bases", "texts in the note that share bytes", |size| Hostile {
        bases: [words(&[START, size / 2]), vec![0; 32]].concat().repeat(64),
        strings: vec![b'b'; size as usize / 2],
        ..Hostile::default()
    }),
    ("more bases than there may be", "more bases than an image can have", |size| Hostile {
        bases: [words(&[START, 1]), vec![0; 32]].concat().repeat(size as usize / 40),
        strings: vec![b'b'; size as usize / 2],
        ..Hostile::default()
    }),
    ("replacements", "texts in the note that share bytes", |size| Hostile {
        replacements: words(&[START, size / 2, 0, 0, 0, 0]).repeat(size as usize / 48),
        strings: vec![b'r'; size as usize / 2],
        ..Hostile::default()
    }),
    // These are as they may be, but every slot and every export has the same long type.
    ("types of slots", "", |size| Hostile {
        slots: words(&[START, 0, 0, 0, 0]).repeat(size as usize / 40),
        signatures: words(&[START, size / 2]),
        strings: vec![b't'; size as usize / 2],
        ..Hostile::default()
    }),
    ("types of exports", "", |size| Hostile {
        dynsym: symbol(0).repeat(size as usize / 60),
        dynstr: vec![0; size as usize / 60],
        export_signatures: words(&[0, gnu_hash("")]).repeat(size as usize / 60),
        signatures: words(&[START, size / 2]),
        strings: vec![b't'; size as usize / 2],
        ..Hostile::default()
    }),
    // These are loaded, since a loader does not read them.
    ("exports", "bad dynamic symbol", |size| Hostile {
        dynsym: symbol(0).repeat(size as usize / 48),
        dynstr: [&vec![b'n'; size as usize / 2][..], &[0]].concat(),
        ..Hostile::default()
    }),
    ("a chain of names that are the same", "bad dynamic symbol", |size| Hostile {
        gnu_hash: one_chain(ABSENT, size / 60),
        dynsym: symbol(0).repeat(size as usize / 60),
        dynstr: [&vec![b'n'; size as usize / 2][..], &[0]].concat(),
        ..Hostile::default()
    }),
    ("a chain of names with the same beginning", "", |size| Hostile {
        gnu_hash: one_chain(ABSENT, size / 60),
        dynsym: (0..size / 60).flat_map(|number| symbol(3 * number)).collect(),
        dynstr: b"aa\0".repeat(size as usize / 60),
        ..Hostile::default()
    }),
    ("sections", "names of sections that are longer than the file", |size| Hostile {
        section_names: vec![0; size as usize / 128],
        shstrtab: [&vec![b's'; size as usize / 2][..], &[0]].concat(),
        ..Hostile::default()
    }),
    // As many patches as code has room for, and as many that it has no room for.
    ("patches", "", |size| Hostile {
        patches: [0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(size as usize / 18),
        code_len: size as usize / 18 * 8,
        ..Hostile::default()
    }),
    ("patches outside the code", "a patch outside the code", |size| Hostile {
        patches: [0, 1].repeat(size as usize / 2),
        code_len: 80,
        ..Hostile::default()
    }),
    ("checksums of nothing", "", |size| Hostile {
        sums: vec![(START, 0); size as usize / 40],
        ..Hostile::default()
    }),
];

/// Does everything with the image that can be done without calling its code. Returns the first
/// error, or an empty text.
fn use_all(bytes: &[u8]) -> String {
    let info = ImageInfo::parse(bytes);
    let _ = verify_bytes(bytes);
    if let Ok(image) = Image::from_bytes(bytes) {
        let _ = (image.verify(), image.triple(), image.kiln_version());
        let _ = (image.features().count(), image.producers().count(), image.slots().len());
        // Slots without a key cannot be bound by name, but in order.
        let count = image.slots().len();
        let bound = image.bind(&|_: &_| Some(0x1000));
        let again = || Image::from_bytes(bytes)?.bind_array(&vec![0x1000; count]);
        let Ok(loaded) = bound.or_else(|_| again()) else { return reason(info) };
        // As many look-ups as there may be exports.
        for _ in 0..bytes.len() / 64 {
            assert!(loaded.address(ABSENT).is_none());
            assert!(loaded.function(ABSENT).is_none());
        }
    }
    reason(info)
}

/// The message of an error; an empty text if there is none.
fn reason<T>(result: Result<T, LoadError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| String::new())
}

/// The shortest time of a few.
fn time(bytes: &[u8]) -> Duration {
    let once = || {
        let start = Instant::now();
        use_all(bytes);
        start.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

#[test]
fn time_and_memory_are_proportional_to_length() {
    const SIZE: u32 = 100_000;
    const FACTOR: u32 = 8;
    use_all(&Hostile::default().image());
    for (name, refused, kind) in KINDS {
        let images = [kind(SIZE).image(), kind(FACTOR * SIZE).image()];
        for bytes in &images {
            println!("{name}, {} bytes", bytes.len()); // an allocation that fails says no more
            let limit = MEMORY.allocated() + FREE + FOR_BYTE * bytes.len();
            MEMORY.set_limit(limit).expect("less is allocated as yet");
            let error = use_all(bytes);
            MEMORY.set_limit(usize::MAX).expect("there is no limit");
            assert_eq!(error.is_empty(), refused.is_empty(), "{name}: {error}");
            assert!(error.contains(refused), "{name}: {error}");
        }
        // In quadratic time, this would take 64 times as long.
        let [short, long] = images.map(|bytes| time(&bytes));
        println!("{name}: {short:?}, {long:?}");
        let most = 3 * FACTOR * short + Duration::from_millis(50);
        assert!(long < most, "{name}: {short:?} for {SIZE} bytes, {long:?} for {FACTOR} times as many");
    }
}
