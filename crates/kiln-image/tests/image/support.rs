//! A small assembler of artifacts, and the program and image that the tests share.
//!
//! Code is given as bytes; relocations name symbols by number.

use kiln_artifact::record::{
    FunctionRecord, Linkage, NONE, Reloc, SectionKind, Str, Summary, SymbolKind, SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, RelocKind};
use kiln_globals::GlobalTable;
use kiln_image::{ImageOptions, write_image};

pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// `zR`, code alignment 1, data alignment -8, return address 16; CFA = rsp + 8, return address at
/// CFA - 8.
const CIE: [u8; 24] =
    [0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];

pub(crate) struct Module {
    pub(crate) contents: Contents,
    zeroed: u64,
}

impl Module {
    pub(crate) fn new() -> Self {
        Self::for_triple(TRIPLE)
    }

    pub(crate) fn for_triple(triple: &str) -> Self {
        let mut contents = Contents::default();
        let (triple, producer) = (contents.string(triple), contents.string("test 1.0"));
        contents.summary = Summary {
            triple,
            producer,
            text_align: 16.into(),
            read_only_align: 16.into(),
            writable_align: 16.into(),
            zeroed_align: 16.into(),
            ..Summary::default()
        };
        contents.cie = CIE.to_vec();
        Self { contents, zeroed: 0 }
    }

    pub(crate) fn feature(&mut self, name: &str) {
        let name = self.contents.string(name);
        self.contents.features.push(name);
    }

    fn symbol(
        &mut self,
        name: &str,
        kind: SymbolKind,
        linkage: Linkage,
        place: SectionKind,
    ) -> &mut SymbolRecord {
        let name = self.contents.string(name);
        self.contents.symbols.push(SymbolRecord {
            name,
            offset: 0.into(),
            size: 0.into(),
            signature: NONE.into(),
            kind: kind as u8,
            linkage: linkage as u8,
            section: place as u8,
            libcall: 0,
        });
        self.contents.symbols.last_mut().unwrap()
    }

    fn last(&self) -> u32 {
        self.contents.symbols.len() as u32 - 1
    }

    fn signature(&mut self, text: &str) -> u32 {
        let text: Str = self.contents.string(text);
        self.contents.signatures.push(text);
        self.contents.signatures.len() as u32 - 1
    }

    pub(crate) fn import(&mut self, name: &str, signature: &str) -> u32 {
        let signature = self.signature(signature);
        self.symbol(name, SymbolKind::Function, Linkage::Import, SectionKind::Undefined).signature =
            signature.into();
        self.last()
    }

    pub(crate) fn libcall(&mut self, name: &str, signature: &str) -> u32 {
        let number = self.import(name, signature);
        self.contents.symbols[number as usize].libcall = 1;
        number
    }

    pub(crate) fn import_data(&mut self, name: &str) -> u32 {
        self.symbol(name, SymbolKind::Data, Linkage::Import, SectionKind::Undefined);
        self.last()
    }

    pub(crate) fn global(&mut self, key: &str) -> u32 {
        self.symbol(key, SymbolKind::Global, Linkage::Import, SectionKind::Undefined);
        self.last()
    }

    /// Adds a function; `relocs` are (offset in it, kind, symbol, addend).
    pub(crate) fn function(
        &mut self,
        name: &str,
        linkage: Linkage,
        signature: &str,
        code: &[u8],
        relocs: &[(u64, RelocKind, u32, i64)],
    ) -> u32 {
        let start = self.contents.text.len().next_multiple_of(16);
        self.contents.text.resize(start, 0xcc);
        self.contents.text.extend_from_slice(code);
        let signature = self.signature(signature);
        let symbol = self.symbol(name, SymbolKind::Function, linkage, SectionKind::Text);
        symbol.offset = (start as u64).into();
        symbol.size = (code.len() as u64).into();
        symbol.signature = signature.into();
        let number = self.last();
        let rows = [0x41, 0x0e, 0x10]; // advance 1; CFA offset 16
        self.contents.functions.push(FunctionRecord {
            symbol: number.into(),
            start: (start as u32).into(),
            len: (code.len() as u32).into(),
            unwind_start: (self.contents.unwind.len() as u32).into(),
            unwind_len: 3.into(),
            align: 1.into(),
            ..Default::default()
        });
        self.contents.unwind.extend(rows);
        for &(offset, kind, symbol, addend) in relocs {
            self.contents.text_relocs.push(reloc(start as u64 + offset, kind, symbol, addend));
        }
        number
    }

    /// Adds a data object; `pointers` are (offset in it, symbol, addend).
    pub(crate) fn data(
        &mut self,
        name: &str,
        linkage: Linkage,
        place: SectionKind,
        bytes: &[u8],
        pointers: &[(u64, u32, i64)],
    ) -> u32 {
        let (section, relocs) = match place {
            SectionKind::ReadOnly => (&mut self.contents.read_only, &mut self.contents.read_only_relocs),
            _ => (&mut self.contents.writable, &mut self.contents.writable_relocs),
        };
        let start = section.len().next_multiple_of(8);
        section.resize(start, 0);
        section.extend_from_slice(bytes);
        for &(offset, symbol, addend) in pointers {
            relocs.push(reloc(start as u64 + offset, RelocKind::Abs64, symbol, addend));
        }
        let symbol = self.symbol(name, SymbolKind::Data, linkage, place);
        symbol.offset = (start as u64).into();
        symbol.size = (bytes.len() as u64).into();
        self.last()
    }

    pub(crate) fn zeroed(&mut self, name: &str, linkage: Linkage, size: u64) -> u32 {
        let offset = self.zeroed;
        self.zeroed += size;
        self.contents.summary.zeroed_size = self.zeroed.into();
        let symbol = self.symbol(name, SymbolKind::Data, linkage, SectionKind::Zeroed);
        symbol.offset = offset.into();
        symbol.size = size.into();
        self.last()
    }

    pub(crate) fn finish(self) -> Artifact {
        self.contents.finish()
    }
}

fn reloc(offset: u64, kind: RelocKind, symbol: u32, addend: i64) -> Reloc {
    Reloc {
        offset: offset.into(),
        addend: addend.into(),
        symbol: symbol.into(),
        kind: kind as u8,
        flags: 0,
        reserved: [0; 2],
    }
}

pub(crate) const I64_TO_I64: &str = "(i64) -> i64 system_v";
pub(crate) const TO_I64: &str = "() -> i64 system_v";
/// `mov rax, [rip + slot]; mov rax, [rax]; ret`
pub(crate) const READ_THROUGH_SLOT: [u8; 11] = [0x48, 0x8b, 0x05, 0, 0, 0, 0, 0x48, 0x8b, 0x00, 0xc3];
/// `mov rax, [rip + slot]; ret`
pub(crate) const SLOT_VALUE: [u8; 8] = [0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xc3];
/// `lea rax, [rdi + 3]; ret`
pub(crate) const ADD3: [u8; 5] = [0x48, 0x8d, 0x47, 0x03, 0xc3];

/// Two modules that use everything: calls across them, data, pointers, globals, host functions,
/// zeroed data.
pub(crate) fn program() -> Vec<Artifact> {
    use RelocKind::{X86GotPc32 as Got, X86Pc32 as Pc};
    let mut a = Module::new();
    a.feature("has_sse3");
    let add3 = a.function("add3", Linkage::Export, I64_TO_I64, &ADD3, &[]);
    let answer = a.data("answer", Linkage::Export, SectionKind::ReadOnly, &42u64.to_le_bytes(), &[]);
    a.function("read_answer", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &[(3, Got, answer, -4)]);
    let hidden = a.function("hidden", Linkage::Hidden, I64_TO_I64, &[0x48, 0x8d, 0x47, 0x05, 0xc3], &[]);
    let local = a.function("local", Linkage::Local, TO_I64, &[0xb8, 9, 0, 0, 0, 0xc3], &[]);
    let table = a.data(
        "table",
        Linkage::Export,
        SectionKind::Writable,
        &[0; 24],
        &[(0, add3, 0), (8, hidden, 0), (16, local, 0)],
    );
    // lea rax, [rip + table]; jmp [rax + 8]
    let jump = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xff, 0x60, 0x08];
    a.function("by_table", Linkage::Export, I64_TO_I64, &jump, &[(3, Pc, table, -4)]);
    a.zeroed("zeros", Linkage::Export, 512);
    let counter = a.zeroed("counter", Linkage::Local, 20_000);
    // lea rcx, [rip + counter]; inc qword [rcx]; mov rax, [rcx]; ret
    let count = [0x48, 0x8d, 0x0d, 0, 0, 0, 0, 0x48, 0xff, 0x01, 0x48, 0x8b, 0x01, 0xc3];
    a.function("count", Linkage::Export, TO_I64, &count, &[(3, Pc, counter, -4)]);

    let mut b = Module::new();
    let add3 = b.import("add3", I64_TO_I64);
    let hidden = b.import("hidden", "(i64 uext) -> i64 system_v");
    // sub rsp, 8; call add3; mov rdi, rax; call hidden; add rsp, 8; ret
    let mut code = vec![0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x89, 0xc7, 0xe8, 0, 0, 0, 0];
    code.extend([0x48, 0x83, 0xc4, 8, 0xc3]);
    b.function("add8", Linkage::Export, I64_TO_I64, &code, &[(5, Pc, add3, -4), (13, Pc, hidden, -4)]);
    let host = b.import("host_double", I64_TO_I64);
    b.function("call_host", Linkage::Export, I64_TO_I64, &[0xe9, 0, 0, 0, 0], &[(1, Pc, host, -4)]);
    let lea = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];
    b.function("host_address", Linkage::Export, TO_I64, &lea, &[(3, Pc, host, -4)]);
    let first = b.global("object:first");
    let second = b.global("object:second");
    b.function("read_first", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &[(3, Got, first, -4)]);
    b.function("read_second", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &[(3, Got, second, -4)]);
    let names =
        b.data("names", Linkage::Export, SectionKind::ReadOnly, &[0; 16], &[(0, second, 8), (8, host, 0)]);
    b.function("names_slot", Linkage::Export, TO_I64, &READ_THROUGH_SLOT, &[(3, Got, names, -4)]);
    vec![a.finish(), b.finish()]
}

/// A table that has only the second global of [`program`], so that it gets the first slot.
pub(crate) fn table() -> GlobalTable {
    let mut table = GlobalTable::new();
    table.intern("object:second");
    table
}

pub(crate) fn image() -> Vec<u8> {
    write_image(&program(), &table(), &ImageOptions::default()).unwrap()
}
