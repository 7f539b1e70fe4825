//! Fingerprints: 256 bits that identify the content of a function or a module.
//!
//! The hashed bytes are the content part of a module's binary form. So the fingerprint covers the
//! same fields as that form, and no field can be forgotten (see `binary::write`).

use std::cell::RefCell;

use crate::binary::write;
use crate::body::wire::ByteWriter;
use crate::function::Function;
use crate::module::Module;
use crate::symbol::Linkage;

/// 256 bits that identify the content of a function or a module: its BLAKE3 hash.
///
/// Equal content has equal fingerprints, in every process and on every machine. Different content
/// has different fingerprints, unless BLAKE3 has a collision.
///
/// The content of a function is:
///
/// - every instruction, type, flag, constant, source location and label of a value;
/// - signatures, stack slots, the order of blocks;
/// - the callee, data object or key that each reference refers to.
///
/// The content of a module is that of its functions, and also:
///
/// - names, kinds and linkage of symbols that other modules see;
/// - bytes, alignment, section and pointers of data objects;
/// - `set` and `target` lines, except settings that Kiln fixes;
/// - the line table, and the names of variables.
///
/// These are not part of the content:
///
/// - numbers of values, blocks and other entities; aliases;
/// - unused declarations, and the order of declarations;
/// - names of symbols that no other module sees;
/// - a function's own name and linkage, names of its variables, and what its source locations stand
///   for, for the fingerprint of a function;
/// - whether a function may be inlined elsewhere;
/// - the module's name, its text, lines, comments, `test` and `feature` lines;
/// - the target of the build, and its settings.
///
/// A fingerprint alone does not tell whether code must be generated again. The key of stored code
/// also needs the target, its settings and the version of the code generator, as in `kiln-cache`.
/// The code of a function depends on less than its fingerprint does. A cache of functions may use
/// [`Body::as_bytes`](crate::Body::as_bytes) instead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the bits.
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

/// Prefixes of the hashed bytes. They keep fingerprints of different kinds of content apart, and
/// fingerprints of different versions of this file.
const MODULE: &[u8] = b"kiln module 2";
const FUNCTION: &[u8] = b"kiln function 2";
const NAMES: &[u8] = b"kiln local names 1";

/// The number of bytes that are hashed at once. They fit into the processor's cache. The number is
/// a power of two, so that BLAKE3 hashes many of its blocks in parallel.
const PIECE: usize = 64 * 1024;

impl Module {
    /// Returns the fingerprint of the module's content.
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

    /// Returns the fingerprint of the names of symbols that no other module sees, which
    /// [`Module::fingerprint`] leaves out. They do not affect code, but symbol tables contain them.
    pub fn local_names_fingerprint(&self) -> Fingerprint {
        written(|out| {
            out.raw(NAMES);
            for symbol in self.symbols.iter().filter(|symbol| symbol.linkage == Linkage::Local) {
                out.str(&symbol.name);
            }
            Fingerprint(*blake3::hash(&out.0).as_bytes())
        })
    }

    /// Returns the fingerprint of one of the module's functions: its code, the symbols it refers
    /// to, and the module's settings. A symbol that other modules see is identified by its name,
    /// another symbol by its number. The function's own name and linkage are not included.
    ///
    /// # Panics
    ///
    /// If `function` belongs to another module and refers to a symbol that is out of range here.
    pub fn function_fingerprint(&self, function: &Function) -> Fingerprint {
        let Function { symbol: _, code, inline: _, line: _, variables: _, comments: _ } = function;
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

/// Calls `work` with an empty writer, whose memory is reused.
fn written(work: impl FnOnce(&mut ByteWriter) -> Fingerprint) -> Fingerprint {
    thread_local! {
        static OUT: RefCell<ByteWriter> = RefCell::default();
    }
    OUT.with_borrow_mut(|out| {
        out.0.clear();
        let fingerprint = work(out);
        // One large data object must not occupy memory for as long as the thread lives.
        out.0.clear();
        out.0.shrink_to(2 * PIECE);
        fingerprint
    })
}
