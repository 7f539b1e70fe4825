//! A function's code in canonical form: the bytes that it is stored, fingerprinted and compiled
//! from.
//!
//! Two functions have the same form exactly if they differ in nothing that code generation may look
//! at. The form leaves out the numbers of values, blocks and other entities, aliases of values,
//! unused declarations, the order of declarations, and the function's name. It also leaves out the
//! symbols that references refer to, which are stored next to the form. Code is generated from the
//! decoded form, never from the function that a client built. So equal forms give equal code, even
//! if the code generator's result depends on the numbers of values.
//!
//! The form of a function consists of these parts, in this order (see `wire` for integers, `parts`
//! for types and signatures, `encode` for an example):
//!
//! 1. the signature of the function;
//! 2. tables: alias regions, memory flags, stack slots, dynamic types, dynamic stack slots, the
//!    stack limit, global values, external functions, signatures;
//! 3. code: the number of values, then for each block in layout order its parameters and
//!    instructions;
//! 4. side tables: source locations (relative), debug tags, stack maps, labels of values.
//!
//! Entities are numbered by first use, values and blocks by position. An operand is the distance
//! from its value to the next value that will be defined. Stack slots and dynamic types are kept as
//! declared, because unused ones also take up space.
//!
//! Invariant: the bytes of a [`Body`] decode. They come from the encoder, or were decoded once
//! before the `Body` was made.

mod decode;
mod encode;
mod limits;
mod parts;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::cell::RefCell;

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, SourceLoc};

pub(crate) use self::decode::CheckScratch;
use self::decode::{DecodeInput, check, decode};
pub(crate) use self::encode::{EncodeError, Encoded, Encoder, ExternalRef};
use self::wire::ByteReader;
pub(crate) use self::wire::DecodeError;
use crate::symbol::SymbolId;

/// A function's code in canonical form, with the symbols that it refers to.
///
/// Equality is that of the code: whether it is verified is not compared.
#[derive(Clone)]
pub struct Body {
    bytes: Box<[u8]>,
    references: Box<[SymbolId]>,
    base: u32,
    /// Whether nothing is left to verify before code is generated from it.
    verified: bool,
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        let Self { bytes, references, base, verified: _ } = self;
        (bytes, references, base) == (&other.bytes, &other.references, &other.base)
    }
}

impl Eq for Body {}

/// An error while bringing a function to canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// An entity is used and not defined, which the verifier would have reported.
    #[error("{0} is used and not defined")]
    Undefined(AnyEntity),
    /// This instruction or global value has memory flags that are not defined.
    #[error("{0} has memory flags that are not defined")]
    MemFlags(AnyEntity),
    /// The function has more than 64 values for each byte of its form, or it has a part that no
    /// form can have, for the reason in the string.
    #[error("{0}")]
    Form(&'static str),
    /// An external name is neither a symbol's number nor a library call.
    #[error("{0} names no symbol of the module by number")]
    Name(AnyEntity),
}

impl From<EncodeError> for BodyError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Undefined(entity) => Self::Undefined(entity),
            EncodeError::MemFlags(user) => Self::MemFlags(user),
            EncodeError::Form(reason) => Self::Form(reason),
        }
    }
}

impl Encoded {
    /// Checks that the form of a function that the verifier has not seen decodes.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Form`]. The encoder writes types and counts as they are, and the decoder
    /// refuses those that Cranelift's constructors could not take.
    pub(crate) fn checked(self, scratch: &mut CheckScratch) -> Result<Self, EncodeError> {
        let reader = ByteReader::new(&self.bytes);
        match check(reader, self.references.len(), scratch) {
            Ok(()) => Ok(self),
            Err(DecodeError { offset: _, what }) => Err(EncodeError::Form(what)),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, references, base, verified: _ } = self;
        f.debug_struct("Body")
            .field("bytes", &format_args!("{} bytes", bytes.len()))
            .field("references", references)
            .field("base", &SourceLoc::new(*base))
            .finish()
    }
}

impl Body {
    /// Returns the canonical form of `function`. It must have passed the verifier, and name symbols
    /// as `UserExternalName { namespace: 0, index }` with the number of a symbol.
    ///
    /// # Errors
    ///
    /// [`BodyError`]. A function that passes the verifier has all its entities defined, but may
    /// have too many values for its size ([`BodyError::Form`]), or a wrong name
    /// ([`BodyError::Name`]).
    pub fn new(function: &ir::Function) -> Result<Self, BodyError> {
        let symbol = |external| {
            let (entity, name) = match external {
                ExternalRef::Function(func_ref) => (func_ref.into(), &function.dfg.ext_funcs[func_ref].name),
                ExternalRef::Global(global) => match &function.global_values[global] {
                    GlobalValueData::Symbol { name, .. } => (global.into(), name),
                    _ => return Err(BodyError::Name(global.into())),
                },
            };
            let name = match name {
                ExternalName::User(name) => function.params.user_named_funcs().get(*name),
                _ => None,
            };
            let name = name.filter(|name| name.namespace == 0 && name.index != u32::MAX);
            name.map(|name| name.index).ok_or(BodyError::Name(entity))
        };
        thread_local! {
            static ENCODER: RefCell<Encoder> = RefCell::default();
        }
        let mut encoded = ENCODER.with_borrow_mut(|encoder| encoder.encode(function, symbol))?;
        let references =
            std::mem::take(&mut encoded.references).into_iter().map(SymbolId::from_u32).collect();
        Ok(Self::of(encoded, references))
    }

    /// Returns the body that an encoder wrote, with the symbols that its references refer to.
    pub(crate) fn of(encoded: Encoded, references: Vec<SymbolId>) -> Self {
        let Encoded { bytes, references: _, base } = encoded;
        Self { bytes: bytes.into(), references: references.into(), base: base.bits(), verified: true }
    }

    /// Returns the same code, to be verified before code is generated from it.
    pub(crate) fn unverified(self) -> Self {
        Self { verified: false, ..self }
    }

    /// Whether the function has passed the verifier. A code generator calls
    /// [`verify`](crate::verify()) for a function that has not.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// Returns the body that bytes encode, after checking them.
    pub(crate) fn check(
        reader: ByteReader<'_>,
        bytes: &[u8],
        references: Box<[SymbolId]>,
        base: u32,
        scratch: &mut CheckScratch,
    ) -> Result<Self, DecodeError> {
        check(reader, references.len(), scratch)?;
        Ok(Self { bytes: bytes.into(), references, base, verified: true })
    }

    /// Returns the form. It determines the generated code except for relocation targets and
    /// absolute source locations: the symbols of references and the base of source locations are
    /// not in it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the symbols that the function refers to, in order of first use.
    pub fn references(&self) -> &[SymbolId] {
        &self.references
    }

    /// Returns the base: the source location that the locations in the form are relative to.
    pub fn base_srcloc(&self) -> SourceLoc {
        SourceLoc::new(self.base)
    }

    /// Returns the same code with other symbols.
    #[must_use]
    pub fn with_references(&self, symbol: impl FnMut(SymbolId) -> SymbolId) -> Self {
        let references = self.references.iter().copied().map(symbol).collect();
        Self { bytes: self.bytes.clone(), references, base: self.base, verified: self.verified }
    }

    /// Decodes the function. Its name is `UserFuncName::user(0, symbol)`, its entities are numbered
    /// as in the form.
    pub fn decode(&self, symbol: SymbolId) -> ir::Function {
        let mut function = ir::Function::new();
        self.decode_into(symbol, &mut function);
        function
    }

    /// Decodes the function into `function`, whose memory is reused.
    pub fn decode_into(&self, symbol: SymbolId, function: &mut ir::Function) {
        let reader = ByteReader::new(&self.bytes);
        let input = DecodeInput { reader, references: &self.references, base: self.base_srcloc() };
        decode(input, symbol, function).expect("the bytes of a body decode");
    }
}
