//! Fingerprints: 256 bits that stand for the content of a function or a module.
//!
//! What is hashed is the content that a module's binary form begins with, so that the two cannot differ, and no field can be forgotten
//! (see `binary::write`).

use std::cell::RefCell;

use crate::binary::write;
use crate::body::wire::ByteWriter;
use crate::function::Function;
use crate::module::Module;
use crate::symbol::Linkage;

/// 256 bits that stand for the content of a function or a module: BLAKE3 of it.
///
/// Equal content has equal fingerprints, in every process and on every machine; different content has different ones, as
/// far as BLAKE3 has no collisions.
///
/// | counts | does not count |
/// |---|---|
/// | every instruction, type, flag, constant, source location | numbers of values, blocks and other entities; aliases |
/// | signatures, stack slots, the order of blocks | what is declared and not used; the order of declarations |
/// | the callee, datum or key behind a reference | names of symbols that no other module sees |
/// | of a module: names, kinds and linkage of symbols that others see | the module's name, its text, lines, comments, `test` and `feature` lines |
/// | of a module: bytes, alignment, section and addresses of data | of a function: its own name and linkage |
/// | `set` and `target` lines, but for settings that Kiln fixes | the target and what the code generator is set to besides |
///
/// So it does not tell by itself whether code has to be generated again: whoever keeps code needs the target, its settings and the version
/// of the code generator in the key too, as `kiln-cache` has them. The code of a function is determined by less, see
/// [`Body::as_bytes`](crate::Body::as_bytes): caches of functions may go by that.
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
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Keeps fingerprints of different kinds of content apart, and those of other versions of this file.
const MODULE: &[u8] = b"kiln module 1";
const FUNCTION: &[u8] = b"kiln function 2";
const NAMES: &[u8] = b"kiln local names 1";

/// What is hashed at once: it stays in the cache, and is a power of two, so that BLAKE3 hashes many of its blocks side by side.
const PIECE: usize = 64 * 1024;

impl Module {
    /// The fingerprint of the module's content.
    pub fn fingerprint(&self) -> Fingerprint {
        written(|out| {
            let mut hasher = blake3::Hasher::new();
            out.raw(MODULE);
            write::content(self, out, &mut |out| {
                if out.0.len() >= PIECE {
                    let whole = out.0.len() / PIECE * PIECE;
                    hasher.update(&out.0[..whole]);
                    out.0.drain(..whole);
                }
            });
            hasher.update(&out.0);
            Fingerprint(*hasher.finalize().as_bytes())
        })
    }

    /// The fingerprint of the names that [`Module::fingerprint`] leaves out: those of symbols that no other module sees. They change
    /// no code, but tables of names have them.
    pub fn local_names_fingerprint(&self) -> Fingerprint {
        written(|out| {
            out.raw(NAMES);
            for symbol in self.symbols.iter().filter(|symbol| symbol.linkage == Linkage::Local) {
                out.str(&symbol.name);
            }
            Fingerprint(*blake3::hash(&out.0).as_bytes())
        })
    }

    /// The fingerprint of one of the module's functions: its code, what that refers to, and the module's settings. A symbol that other
    /// modules see counts by its name, another one by its number. The function's own name and linkage do not count.
    ///
    /// # Panics
    ///
    /// When `function` belongs to another module and refers to a symbol that is out of range here.
    pub fn function_fingerprint(&self, function: &Function) -> Fingerprint {
        let Function { symbol: _, code, line: _, comments: _ } = function;
        written(|out| {
            out.raw(FUNCTION);
            write::code_settings(out, &self.settings);
            write::code(out, code, |out, id| {
                let symbol = self.symbol(id);
                write::symbol(out, symbol);
                if symbol.linkage == Linkage::Local {
                    out.uint(u64::from(id.as_u32()));
                }
            });
            Fingerprint(*blake3::hash(&out.0).as_bytes())
        })
    }
}

/// Calls `work` with an empty writer, whose memory is used again.
fn written(work: impl FnOnce(&mut ByteWriter) -> Fingerprint) -> Fingerprint {
    thread_local! {
        static OUT: RefCell<ByteWriter> = RefCell::default();
    }
    OUT.with_borrow_mut(|out| {
        out.0.clear();
        let fingerprint = work(out);
        // One large datum shall not stay in memory for as long as the thread.
        out.0.clear();
        out.0.shrink_to(2 * PIECE);
        fingerprint
    })
}
