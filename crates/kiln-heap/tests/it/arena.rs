//! Objects for tests: words in one allocation, which a visitor knows.

use kiln_artifact::record::SymbolKind;
use kiln_heap::{Input, Name, Object, Registry, Root, Snapshot, SnapshotError, Temperature, snapshot};

pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// An object of a test: words, of which some are pointers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) words: Vec<Word>,
    pub(crate) mutable: bool,
    pub(crate) temperature: Temperature,
    /// The alignment in bytes; 8 if it is 0.
    pub(crate) align: usize,
}

/// A word of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Number(usize),
    Null,
    /// A pointer at an object, and the distance from its start in bytes.
    Pointer(usize, usize),
    /// The address of something that has this name.
    Named(&'static str),
}

/// Addresses of things with names: nothing is there.
const NAMES: usize = 0x1000;

/// Returns the address that stands for a name.
fn address_of(name: &str) -> usize {
    NAMES + 16 * name.len()
}

/// Objects in memory, in the order of their list or backwards, with gaps.
pub(crate) struct Arena {
    memory: Vec<usize>,
    pub(crate) addresses: Vec<usize>,
    pub(crate) registry: Registry,
    names: Vec<&'static str>,
}

impl Arena {
    pub(crate) fn new(nodes: &[Node], backwards: bool, gap: usize) -> Self {
        let room = |node: &Node| node.words.len() + gap + node.align / 8;
        let memory = vec![0xdead_usize; nodes.iter().map(room).sum::<usize>() + 512];
        let mut next = memory.as_ptr().expose_provenance();
        let mut addresses = vec![0; nodes.len()];
        let order: Vec<usize> =
            if backwards { (0..nodes.len()).rev().collect() } else { (0..nodes.len()).collect() };
        for index in order {
            next = next.next_multiple_of(nodes[index].align.max(8));
            addresses[index] = next;
            next += 8 * (nodes[index].words.len() + gap);
        }
        let mut arena = Self { memory, addresses, registry: Registry::new(), names: Vec::new() };
        for (node, &address) in nodes.iter().zip(&arena.addresses.clone()) {
            let mut pointers = Vec::new();
            for (index, word) in node.words.iter().enumerate() {
                if !matches!(word, Word::Number(_)) {
                    pointers.push(8 * index);
                }
                let value = match *word {
                    Word::Number(number) => number,
                    Word::Null => 0,
                    Word::Pointer(other, distance) => arena.addresses[other] + distance,
                    Word::Named(name) => {
                        arena.names.push(name);
                        address_of(name)
                    }
                };
                arena.write(address + 8 * index, value);
            }
            let Node { mutable, temperature, .. } = *node;
            let (size, align) = (8 * node.words.len(), node.align.max(8));
            let object = Object { address, size, align, mutable, temperature };
            // SAFETY: the arena owns the memory as long as the registry.
            unsafe { arena.registry.register(object, pointers) }.unwrap();
        }
        arena
    }

    pub(crate) fn write(&mut self, address: usize, value: usize) {
        let start = self.memory.as_ptr().expose_provenance();
        self.memory[(address - start) / 8] = value;
    }

    /// Saves what is reachable from the objects with these keys.
    pub(crate) fn save(&mut self, roots: &[(&str, usize)]) -> Result<Snapshot, SnapshotError> {
        let roots: Vec<_> =
            roots.iter().map(|&(key, node)| Root { key, address: self.addresses[node] }).collect();
        let names = self.names.clone();
        let mut find = |address: usize| {
            let name = names.iter().find(|name| address_of(name) == address).ok_or(None)?;
            Ok(Name { kind: SymbolKind::Data, name: (*name).into(), offset: 0 })
        };
        let mut input = Input { triple: TRIPLE, roots: &roots, names: &mut find };
        snapshot(&mut input, &mut self.registry)
    }
}

/// Returns an object of these words.
pub(crate) fn node(words: impl Into<Vec<Word>>) -> Node {
    Node { words: words.into(), ..Node::default() }
}

/// A source of numbers that are the same each time (xorshift64, Marsaglia 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Returns a heap of `count` objects of all kinds, in which most are reachable from the first.
pub(crate) fn random_heap(random: &mut Random, count: usize) -> Vec<Node> {
    let lens: Vec<usize> = (0..count).map(|_| 1 + random.below(6)).collect();
    let word = |random: &mut Random| match random.below(8) {
        0 | 1 => Word::Number(random.below(1 << 40)),
        2 => Word::Null,
        3 => Word::Named(["a", "bb", "ccc"][random.below(3)]),
        _ => {
            let target = random.below(count);
            Word::Pointer(target, random.below(8 * lens[target]))
        }
    };
    let nodes = lens.iter().map(|&len| Node {
        words: (0..len).map(|_| word(random)).collect(),
        mutable: random.below(3) == 0,
        temperature: Temperature::ALL[random.below(3)],
        align: [0, 8, 16, 64, 4096][random.below(50).min(4)],
    });
    nodes.collect()
}
