//! [`Definitions`]: the definitions of a link, found by name.
//!
//! It is a part of the phase `resolve` that a caller may make, and keep: whoever publishes many
//! modules at once needs the same table to look names up afterwards, and making it once for both
//! halves the time of the hashing. It holds no text: names are read in the artifacts that it was
//! made of, which callers pass to every method.

use std::hash::BuildHasher;

use foldhash::fast::RandomState as FastHash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};

use super::lists::PerModule;

/// The place of a definition: the positions of its module and of its symbol in the module.
pub type Place = (u32, u32);

/// Numbers for the symbols of all modules, in order of modules.
#[derive(Debug)]
pub struct SymbolNumbers {
    /// The number of the first symbol of each module.
    starts: PerModule<u32>,
    len: usize,
}

impl SymbolNumbers {
    /// Numbers the symbols of `artifacts`.
    pub fn new(artifacts: &[Artifact]) -> Self {
        let mut len = 0;
        let start = |artifact: &Artifact| {
            let start = len;
            len += artifact.symbols().len();
            start as u32
        };
        let starts = artifacts.iter().map(start).collect();
        Self { starts, len }
    }

    /// Returns the number of symbols.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks that")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of the symbol at a place.
    ///
    /// # Panics
    ///
    /// If there is no such module.
    pub fn of(&self, (module, symbol): Place) -> usize {
        (self.starts[module as usize] + symbol) as usize
    }
}

/// The largest number of definitions that are compared one after the other: less work than to make
/// a table.
const FEW: usize = 8;

/// The definitions that modules make for each other, by name. See the module's documentation.
#[derive(Debug)]
pub struct Definitions {
    places: Places,
    repeated: bool,
    all_strong: bool,
}

#[derive(Debug)]
enum Places {
    Few { places: [Place; FEW], len: usize },
    Many { hasher: FastHash, table: HashTable<Hashed> },
}

/// A place, and a part of the hash of the name there: names are in the memory of their modules, so
/// only those that are very likely equal are compared.
#[derive(Clone, Copy, Debug)]
struct Hashed {
    part: u32,
    place: Place,
}

impl Hashed {
    /// Returns the part of a hash that is kept. The table itself looks at other bits of it, the
    /// highest and the lowest.
    fn part_of(hash: u64) -> u32 {
        (hash >> 24) as u32
    }

    /// Whether this is the name `wanted`, whose hash has the part `part`.
    fn is(&self, part: u32, wanted: &[u8], artifacts: &[Artifact]) -> bool {
        self.part == part && name(artifacts, self.place) == wanted
    }
}

/// Whether a module defines a symbol for other modules.
pub fn is_shared_definition(symbol: &SymbolRecord) -> bool {
    symbol.is_defined()
        && symbol.libcall == 0
        && symbol.linkage() != Linkage::Local
        && symbol.kind() != SymbolKind::Global
}

fn name(artifacts: &[Artifact], (module, symbol): Place) -> &[u8] {
    let artifact = &artifacts[module as usize];
    artifact.name_bytes(&artifact.symbols()[symbol as usize])
}

/// Returns the position of the place that has a name.
fn find_few(artifacts: &[Artifact], places: &[Place], wanted: &[u8]) -> Option<usize> {
    places.iter().position(|&known| name(artifacts, known) == wanted)
}

/// Returns the symbols that a module defines for others, with their numbers.
fn shared(artifact: &Artifact) -> impl Iterator<Item = (u32, &SymbolRecord)> {
    let symbols = (0..).zip(artifact.symbols());
    symbols.filter(|(_, symbol)| is_shared_definition(symbol))
}

/// Whether the definition at `place` comes before an earlier one of its name.
fn overrides(artifacts: &[Artifact], place: Place, earlier: Place) -> bool {
    let [linkage, before] = [place, earlier]
        .map(|(module, symbol)| artifacts[module as usize].symbols()[symbol as usize].linkage());
    // Of several strong definitions, which the linker refuses, any will do.
    linkage == Linkage::Replaceable || (before == Linkage::Preemptible && linkage != Linkage::Preemptible)
}

impl Definitions {
    /// Collects the definitions of `artifacts`. Of several definitions of a name it keeps the first
    /// that is not preemptible and, if they are replaceable, the last.
    pub fn new(artifacts: &[Artifact]) -> Self {
        // An upper bound is good enough if it is too large to find few definitions.
        let count: usize = artifacts.iter().map(|artifact| artifact.symbols().len()).sum();
        let is_few = count <= 8 * FEW
            && artifacts.iter().map(|artifact| shared(artifact).count()).sum::<usize>() <= FEW;
        let places = if is_few {
            Places::Few { places: [(0, 0); FEW], len: 0 }
        } else {
            Places::Many { hasher: FastHash::default(), table: HashTable::with_capacity(count) }
        };
        let mut definitions = Self { places, repeated: false, all_strong: true };
        for (module, artifact) in artifacts.iter().enumerate() {
            for (number, symbol) in shared(artifact) {
                definitions.add(artifacts, (module as u32, number), artifact.name_bytes(symbol));
                definitions.all_strong &= matches!(symbol.linkage(), Linkage::Export | Linkage::Hidden);
            }
        }
        definitions
    }

    fn add(&mut self, artifacts: &[Artifact], place: Place, own: &[u8]) {
        let known = match &mut self.places {
            Places::Few { places, len } => match find_few(artifacts, &places[..*len], own) {
                Some(known) => &mut places[known],
                None => {
                    places[*len] = place;
                    *len += 1;
                    return;
                }
            },
            Places::Many { hasher, table } => {
                let hash = hasher.hash_one(own);
                let part = Hashed::part_of(hash);
                let same = |known: &Hashed| known.is(part, own, artifacts);
                match table.entry(hash, same, |known| hasher.hash_one(name(artifacts, known.place))) {
                    Entry::Occupied(entry) => &mut entry.into_mut().place,
                    Entry::Vacant(entry) => {
                        entry.insert(Hashed { part, place });
                        return;
                    }
                }
            }
        };
        self.repeated = true;
        if overrides(artifacts, place, *known) {
            *known = place;
        }
    }

    /// Returns the place of the definition of `wanted`. `artifacts` are those this was made of.
    pub fn find(&self, artifacts: &[Artifact], wanted: &str) -> Option<Place> {
        self.find_bytes(artifacts, wanted.as_bytes())
    }

    fn find_bytes(&self, artifacts: &[Artifact], wanted: &[u8]) -> Option<Place> {
        match &self.places {
            Places::Few { places, len } => {
                find_few(artifacts, &places[..*len], wanted).map(|position| places[position])
            }
            Places::Many { hasher, table } => {
                let hash = hasher.hash_one(wanted);
                let part = Hashed::part_of(hash);
                table.find(hash, |known| known.is(part, wanted, artifacts)).map(|known| known.place)
            }
        }
    }

    /// Returns the place of the definition of each name, in order of the names' first definitions
    /// or of these definitions.
    /// `artifacts` are those that this was made of.
    pub fn places<'d>(&'d self, artifacts: &'d [Artifact]) -> impl Iterator<Item = Place> + 'd {
        let (few, many) = match &self.places {
            Places::Few { places, len } => (&places[..*len], &[][..]),
            Places::Many { .. } => (&[][..], artifacts),
        };
        let all = many.iter().enumerate().flat_map(|(module, artifact)| {
            shared(artifact)
                .map(move |(number, symbol)| ((module as u32, number), artifact.name_bytes(symbol)))
        });
        let is_found = |&(place, name): &(Place, &[u8])| {
            !self.repeated || self.find_bytes(artifacts, name) == Some(place)
        };
        few.iter().copied().chain(all.filter(is_found).map(|(place, _)| place))
    }

    /// Whether every definition is an export or hidden: neither preemptible nor replaceable.
    pub fn are_all_strong(&self) -> bool {
        self.all_strong
    }

    /// Whether no name is defined more than once.
    pub(super) fn are_unique(&self) -> bool {
        !self.repeated
    }

    /// Returns the number of names.
    pub fn len(&self) -> usize {
        match &self.places {
            Places::Few { len, .. } => *len,
            Places::Many { table, .. } => table.len(),
        }
    }

    /// Whether nothing is defined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
