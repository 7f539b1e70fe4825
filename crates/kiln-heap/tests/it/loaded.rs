//! A process that loads an image of a heap has the same objects, wherever they are.

use std::collections::HashMap;

use kiln_globals::{Bindings, GlobalTable};
use kiln_image::{Image, ImageBase, ImageInfo, ImageOptions, Loaded, verify_bytes, write_image};

use crate::arena::{Arena, Node, Random, Word, node, random_heap};

/// Objects of the host, which have names.
static HOST: [u64; 3] = [11, 22, 33];

fn bindings() -> Bindings {
    let mut bindings = Bindings::new();
    for (name, object) in ["a", "bb", "ccc"].iter().zip(&HOST) {
        bindings.bind_symbol(name, (&raw const *object).addr());
    }
    bindings
}

/// Compares what is reachable from the root with the objects that were saved.
fn compare(image: &Loaded, nodes: &[Node], root: &str, first: usize) {
    let address = image.address(root).expect("the root is exported").expose_provenance();
    let mut place_of = HashMap::from([(first, address)]);
    let mut queue = vec![first];
    while let Some(number) = queue.pop() {
        let place = place_of[&number];
        assert_eq!(place % nodes[number].align.max(8), 0);
        for (index, word) in nodes[number].words.iter().enumerate() {
            let at = std::ptr::with_exposed_provenance::<usize>(place + 8 * index);
            // SAFETY: the image has the object there, if the loader is right.
            let found = unsafe { at.read() };
            match *word {
                Word::Number(number) => assert_eq!(found, number),
                Word::Null => assert_eq!(found, 0),
                Word::Named(name) => assert_eq!(found, (&raw const HOST[name.len() - 1]).addr()),
                Word::Pointer(other, distance) => {
                    let start = found - distance;
                    match place_of.insert(other, start) {
                        Some(known) => assert_eq!(known, start, "object {other} is there once"),
                        None => queue.push(other),
                    }
                }
            }
        }
    }
}

fn image_of(nodes: &[Node], base: ImageBase) -> Vec<u8> {
    let saved = Arena::new(nodes, false, 2).save(&[("first", 0), ("last", nodes.len() - 1)]).unwrap();
    let options = ImageOptions { base, ..ImageOptions::default() };
    let bytes = write_image(&[saved.artifact], &GlobalTable::new(), &options).unwrap();
    verify_bytes(&bytes).unwrap();
    bytes
}

#[test]
fn objects_are_the_same_at_any_address() {
    let mut random = Random(99);
    for count in [1, 3, 20, 1000] {
        let nodes = random_heap(&mut random, count);
        for base in [ImageBase::Anywhere, ImageBase::Auto, ImageBase::At(0x3210_0000_0000)] {
            let bytes = image_of(&nodes, base);
            let info = ImageInfo::parse(&bytes).unwrap();
            let load = || Image::from_bytes(&bytes).unwrap().bind(&bindings()).unwrap();
            // The second one of the same image cannot be at the same address.
            let images = [load(), load()];
            let places = images.each_ref().map(|image| image.base().addr() as u64);
            assert_ne!(places[0], places[1]);
            assert_eq!(info.base != 0, base != ImageBase::Anywhere);
            if base != ImageBase::Anywhere {
                assert_eq!(places[0], info.base);
            }
            if let ImageBase::At(base) = base {
                assert_eq!(info.base, base);
            }
            for image in &images {
                compare(image, &nodes, "first", 0);
                compare(image, &nodes, "last", count - 1);
            }
        }
    }
}

#[test]
fn open_anywhere_is_somewhere_else() {
    let nodes = random_heap(&mut Random(5), 50);
    let bytes = image_of(&nodes, ImageBase::Preferred);
    let base = ImageInfo::parse(&bytes).unwrap().base;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let at_home = Image::open(file.path()).unwrap().bind(&bindings()).unwrap();
    assert_eq!(at_home.base().addr() as u64, base);
    compare(&at_home, &nodes, "first", 0);
    drop(at_home);
    let elsewhere = Image::open_anywhere(file.path()).unwrap().bind(&bindings()).unwrap();
    assert_ne!(elsewhere.base().addr() as u64, base);
    compare(&elsewhere, &nodes, "first", 0);
}

#[test]
fn dlopen_takes_it() {
    let nodes = random_heap(&mut Random(17), 200);
    // The host's symbols are those of this process, so here they are of the C library.
    let nodes = nodes.iter().map(|it| Node {
        words: it
            .words
            .iter()
            .map(|word| match word {
                Word::Named(_) => Word::Null,
                other => *other,
            })
            .collect(),
        ..it.clone()
    });
    let nodes: Vec<_> = nodes.collect();
    for base in [ImageBase::Anywhere, ImageBase::Preferred] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), image_of(&nodes, base)).unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        // SAFETY: the image has no code, and is not closed.
        let found = unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!library.is_null(), "{:?}", std::ffi::CStr::from_ptr(libc::dlerror()));
            libc::dlsym(library, c"first".as_ptr())
        };
        assert!(!found.is_null());
        // What our loader has is the reference; here only the first object and what it leads to.
        for (index, word) in nodes[0].words.iter().enumerate() {
            // SAFETY: as above.
            let value = unsafe { found.cast::<usize>().add(index).read() };
            match *word {
                Word::Number(number) => assert_eq!(value, number),
                Word::Null | Word::Named(_) => assert_eq!(value, 0),
                Word::Pointer(other, distance) => {
                    let target = std::ptr::with_exposed_provenance::<usize>(value - distance);
                    if let Word::Number(number) = nodes[other].words[0] {
                        // SAFETY: as above.
                        assert_eq!(unsafe { target.read() }, number);
                    }
                }
            }
        }
    }
}

#[test]
fn only_pages_with_names_are_written() {
    // 4000 linked objects, of which one of each kind has a pointer to the host.
    let mut nodes: Vec<Node> = (0..4000)
        .map(|number| Node {
            mutable: number % 2 == 0,
            ..node([Word::Pointer((number + 1) % 4000, 0), Word::Number(number)])
        })
        .collect();
    nodes[100].words.push(Word::Named("a"));
    nodes[201].words.push(Word::Named("bb"));
    let bytes = image_of(&nodes, ImageBase::Preferred);
    let image = Image::from_bytes(&bytes).unwrap().bind(&bindings()).unwrap();
    let range = image.base().addr()..image.base().addr() + bytes.len();
    let written = private_pages(&range);
    // One page of slots, one of each kind.
    assert!((2..=3).contains(&written), "{written}");
    compare(&image, &nodes, "first", 0);
    drop(image);
    let bytes = image_of(&nodes, ImageBase::Anywhere);
    let image = Image::from_bytes(&bytes).unwrap().bind(&bindings()).unwrap();
    let range = image.base().addr()..image.base().addr() + bytes.len();
    let moved = private_pages(&range);
    assert!(moved > 10, "{moved}");
}

/// Returns how many pages of a range of addresses are private copies.
fn private_pages(range: &std::ops::Range<usize>) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut inside, mut total) = (false, 0);
    for line in maps.lines() {
        if let Some((start, rest)) = line.split_once('-')
            && let Ok(start) = usize::from_str_radix(start, 16)
        {
            let end = rest.split(' ').next().and_then(|end| usize::from_str_radix(end, 16).ok()).unwrap();
            inside = start >= range.start && end <= range.end.next_multiple_of(4096);
        } else if inside && let Some(rest) = line.strip_prefix("Anonymous:") {
            total += rest.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 4;
        }
    }
    total
}
