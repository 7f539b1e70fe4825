//! A module's fingerprint: 256 bits of everything that its artifact depends on, code generator settings aside.
//!
//! Equal modules have equal fingerprints, in every process of the same byte order. The module's name, its source text, lines of
//! definitions and run lines are left out: they never reach an artifact. Structs are taken apart exhaustively, so a new
//! field cannot be forgotten.

use std::hash::{Hash, Hasher};

use crate::module::{Data, DataAddress, Function, Init, Module, Symbol};

/// 256 bits that stand for a module's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Module {
    /// The fingerprint of the module's content.
    pub fn fingerprint(&self) -> Fingerprint {
        // Settings reach the artifact through the code generator, whose flags are a part of every cache key.
        let Self { name: _, source: _, settings: _, symbols, functions, data } = self;
        let mut hasher = Blake3::default();
        symbols.len().hash(&mut hasher);
        for Symbol { name, kind, linkage, signature, line: _ } in symbols {
            (name, kind, linkage, signature).hash(&mut hasher);
        }
        functions.len().hash(&mut hasher);
        for Function { symbol, ir, line: _, run_lines: _ } in functions {
            symbol.hash(&mut hasher);
            ir.stencil.hash(&mut hasher);
            ir.params.base_srcloc().bits().hash(&mut hasher);
            ir.params.user_named_funcs().len().hash(&mut hasher);
            for name in ir.params.user_named_funcs().values() {
                name.hash(&mut hasher);
            }
        }
        data.len().hash(&mut hasher);
        for Data { symbol, writable, align, init, addresses, line: _ } in data {
            (symbol, writable, align).hash(&mut hasher);
            match init {
                Init::Zeros(len) => (0u8, len).hash(&mut hasher),
                Init::Bytes(bytes) => (1u8, bytes).hash(&mut hasher),
            }
            addresses.len().hash(&mut hasher);
            for DataAddress { offset, symbol, addend } in addresses {
                (offset, symbol, addend).hash(&mut hasher);
            }
        }
        Fingerprint(hasher.finalize())
    }
}

/// `std::hash` into BLAKE3. Hashing IR makes very many very small writes, so they are gathered first.
#[derive(Default)]
struct Blake3 {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Blake3 {
    const GATHER: usize = 16 * 1024;

    fn finalize(mut self) -> [u8; 32] {
        self.hasher.update(&self.buffer);
        *self.hasher.finalize().as_bytes()
    }
}

impl Hasher for Blake3 {
    fn write(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > Self::GATHER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if bytes.len() > Self::GATHER {
            self.hasher.update(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Not used: the result is 256 bits wide.
    fn finish(&self) -> u64 {
        0
    }
}
