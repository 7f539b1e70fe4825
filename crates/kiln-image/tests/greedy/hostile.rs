//! Images with correct checksums in which many records refer to the same bytes. Their tables are
//! written out here, since no writer makes them.

use crate::note_sum::note_sum;

/// The content of an image's tables; everything else is as small as possible.
#[derive(Default)]
pub(crate) struct Hostile {
    /// After the target triple.
    pub(crate) strings: Vec<u8>,
    pub(crate) producers: Vec<u8>,
    pub(crate) features: Vec<u8>,
    pub(crate) signatures: Vec<u8>,
    pub(crate) slots: Vec<u8>,
    pub(crate) export_signatures: Vec<u8>,
    pub(crate) bases: Vec<u8>,
    pub(crate) replacements: Vec<u8>,
    /// Names of checksums; all are of no bytes and at the end of the note.
    pub(crate) sums: Vec<(u32, u32)>,
    pub(crate) gnu_hash: Vec<u8>,
    /// After the null symbol.
    pub(crate) dynsym: Vec<u8>,
    pub(crate) dynstr: Vec<u8>,
    /// The list of patches, and the length of the code that they are in.
    pub(crate) patches: Vec<u8>,
    pub(crate) code_len: usize,
    /// Section headers after the null section, with the offset of their names only.
    pub(crate) section_names: Vec<u32>,
    /// The string table of section names.
    pub(crate) shstrtab: Vec<u8>,
}

const TRIPLE: &str = concat!("x86_64", "-unknown-linux-gnu");
/// The offset of [`Hostile::strings`] in the strings of the note.
pub(crate) const START: u32 = TRIPLE.len() as u32;
const HEADERS: usize = 64 + 5 * 56;
const NOTE_PREFIX: usize = 20;
const NOTE_HEAD: usize = 504;
const PAGE: usize = 4096;
/// The numbers of spans.
const EXPORTS: usize = 8;
const BASES: usize = 9;
const REPLACEMENTS: usize = 10;

/// Numbers of 4 bytes.
pub(crate) fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn longs(numbers: &[usize]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| (number as u64).to_le_bytes()).collect()
}

/// A dynamic symbol: a function at address 0 whose name is at this offset.
pub(crate) fn symbol(name: u32) -> Vec<u8> {
    [words(&[name]), vec![0x12, 0, 1, 0], vec![0; 16]].concat()
}

/// The checksum of some bytes of an image.
fn sum(bytes: &[u8]) -> [u8; 16] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

impl Hostile {
    /// The bytes of the image.
    pub(crate) fn image(&self) -> Vec<u8> {
        let note_end = HEADERS + NOTE_PREFIX + NOTE_HEAD + self.note_tables().1.len();
        // After the note: the tables that are loaded.
        let mut tables = Vec::new();
        let dynsym = [vec![0; 24], self.dynsym.clone()].concat();
        let loaded = [&self.gnu_hash, &dynsym, &self.dynstr, &self.patches].map(|table| {
            let start = note_end + tables.len();
            tables.extend_from_slice(table);
            [start, table.len()]
        });
        let [gnu_hash, symbols, strings, patches] = loaded;
        let dynamic_start = (note_end + tables.len()).next_multiple_of(8);
        tables.resize(dynamic_start - note_end, 0);
        let entries =
            [(0x6fff_fef5, gnu_hash[0]), (6, symbols[0]), (5, strings[0]), (10, strings[1]), (0, 0)];
        tables.extend(entries.into_iter().flat_map(|(tag, value)| longs(&[tag, value])));
        let dynamic_len = note_end + tables.len() - dynamic_start;
        let readable = (note_end + tables.len()).next_multiple_of(PAGE);
        let loaded_end = (readable + self.code_len).next_multiple_of(PAGE);
        tables.resize(loaded_end - note_end, 0);
        // After everything that is loaded: the sections.
        let (sections, _) = self.sections(loaded_end);
        let slots = self.slots.len() / 20;
        let count = if sections.is_empty() { 0 } else { self.section_names.len() + 2 };
        let mut headers = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
        headers.extend(longs(&[0, 64, if count == 0 { 0 } else { loaded_end + self.shstrtab.len() }]));
        headers.extend([0, 0, 0, 0, 64, 0, 56, 0, 5, 0, 64, 0]);
        headers.extend([count as u16, if count == 0 { 0 } else { 1 }].map(u16::to_le_bytes).concat());
        let writable = loaded_end;
        for (kind, flags, start, file, memory, align) in [
            (1, 4, 0, readable, readable, PAGE),
            (1, 5, readable, self.code_len, self.code_len, PAGE),
            (1, 6, writable, 0, 8 * slots, PAGE),
            (2, 4, dynamic_start, dynamic_len, dynamic_len, 8),
            (4, 4, HEADERS, note_end - HEADERS, note_end - HEADERS, 4),
        ] {
            headers.extend(words(&[kind, flags]));
            headers.extend(longs(&[start, start, start, file, memory, align]));
        }
        assert_eq!(headers.len(), HEADERS);

        let (spans, note_tables) = self.note_tables();
        let mut head = b"KilnImg\0".to_vec();
        head.extend(words(&[7, NOTE_HEAD as u32]));
        // Of tables that are not what they are; readers compare what is before them first.
        head.extend([0; 64]);
        head.extend(words(&[0, 0, 0, START]));
        head.extend(longs(&[0, 0, self.gnu_hash.len()]));
        // The exports begin after the null symbol, and those without a record are not counted.
        let exports = self.dynsym.len() / 24;
        head.extend(words(&[1 + (exports - self.export_signatures.len() / 8) as u32, 0]));
        head.extend(spans[..EXPORTS + 1].iter().flat_map(|span| longs(span)));
        head.extend(longs(&[if slots == 0 { 0 } else { writable }, 8 * slots, 0, 0, 0, 0]));
        head.extend(longs(&[readable, self.code_len, patches[0], patches[1]]));
        // No room for signatures, which would be last, no levels and no imports. The id is not
        // compared.
        let signers = [spans[EXPORTS][0] + spans[EXPORTS][1], 0];
        let none = [0; 2];
        let layer = [signers, none, none, none, spans[BASES], none, spans[REPLACEMENTS], none, none];
        head.extend(layer.iter().flat_map(|span| longs(span)));
        assert_eq!(head.len() + 8, NOTE_HEAD);
        let body = [head, note_tables].concat();
        let end = spans[EXPORTS][0] - 8;
        let body = [&note_sum(&body[..end]).to_le_bytes()[..], &body].concat();
        let prefix = [words(&[8 + body.len() as u32, 0, 1]), b"Kiln\0\0\0\0".to_vec()].concat();
        [headers, prefix, body, tables, sections].concat()
    }

    /// The tables of the note and their ranges in its body.
    fn note_tables(&self) -> (Vec<[usize; 2]>, Vec<u8>) {
        let sums = self.sums.iter().flat_map(|&(start, len)| {
            [words(&[start, len]), longs(&[HEADERS, 0]), sum(b"").to_vec()].concat()
        });
        let (sums, strings) = (sums.collect(), [TRIPLE.as_bytes(), &self.strings].concat());
        let mut tables = Vec::new();
        let mut spans = Vec::new();
        let mut add = |part: &[u8]| {
            tables.resize(tables.len().next_multiple_of(4), 0);
            let start = NOTE_HEAD + tables.len();
            tables.extend_from_slice(part);
            [start, part.len()]
        };
        // The exports are last, and their span is not.
        let layer = [&self.bases, &self.replacements].map(|part| add(part));
        let parts = [
            &self.producers,
            &self.features,
            &self.signatures,
            &self.slots,
            &Vec::new(),
            &Vec::new(),
            &sums,
            &strings,
            &self.export_signatures,
        ];
        spans.extend(parts.map(|part| add(part)));
        spans.extend(layer);
        (spans, tables)
    }

    /// The section names, the section headers, and the length of the file.
    fn sections(&self, start: usize) -> (Vec<u8>, usize) {
        if self.section_names.is_empty() {
            return (Vec::new(), start);
        }
        let header = |name: u32, kind: u32, range: [usize; 2]| {
            [words(&[name, kind]), longs(&[0, 0, range[0], range[1]]), vec![0; 24]].concat()
        };
        let mut bytes = self.shstrtab.clone();
        bytes.extend(header(0, 0, [0, 0]));
        bytes.extend(header(0, 3, [start, self.shstrtab.len()]));
        bytes.extend(self.section_names.iter().flat_map(|&name| header(name, 1, [0, 0])));
        let len = start + bytes.len();
        (bytes, len)
    }
}
