//! Decodes the canonical form, either to check it or to build the function that Cranelift compiles.
//!
//! A [`Decoder`] reads the bytes and checks every number in them. It passes what it has read to a
//! [`Sink`](sink::Sink): [`BuildSink`] makes a function of it, [`CheckSink`] keeps only the few
//! facts that later bytes are checked against. Both are driven by the same reading code, so they
//! accept exactly the same bytes.
//!
//! | file | content |
//! |---|---|
//! | `decoder` | state of the decoder, operands that are numbers |
//! | `tables` | tables before the code |
//! | `code` | blocks and instructions |
//! | `operands` | operands by format of instruction |
//! | `side_tables` | tables after the code |
//! | `sink`, `build`, `check` | the interface of sinks, and the two sinks |
//!
//! Invariants:
//! - Any bytes end in success or in an error, in time and memory proportional to their length.
//!   Counts are bounded by the bytes that are left. Every number is checked against the table that
//!   it is an index of: at once if the length of that table is known, otherwise when the table is
//!   read.
//! - In a function that is built, every entity that is named exists. Whether the function is
//!   *valid* IR is checked by the verifier.
//! - Values are created in the order of their numbers, because the form numbers them in layout
//!   order. So a use may precede its definition.

mod build;
mod check;
mod code;
mod decoder;
mod operands;
mod side_tables;
mod sink;
mod tables;

use cranelift_codegen::ir::{self, SourceLoc};

use self::build::BuildSink;
pub(crate) use self::check::CheckScratch;
use self::check::CheckSink;
use self::decoder::Decoder;
use super::wire::{ByteReader, DecodeResult};
use crate::symbol::SymbolId;

/// The input that a function is decoded from.
pub(crate) struct DecodeInput<'b> {
    pub(crate) reader: ByteReader<'b>,
    /// The symbols that the function refers to, in order of first use.
    pub(crate) references: &'b [SymbolId],
    pub(crate) base: SourceLoc,
}

/// Makes `function` the function that `input` describes, under the name of `symbol`.
pub(crate) fn decode(
    input: DecodeInput<'_>,
    symbol: SymbolId,
    function: &mut ir::Function,
) -> DecodeResult<()> {
    let sink = BuildSink::new(function, symbol, input.references, input.base);
    Decoder::new(input.reader, input.references.len(), sink).run()
}

/// Checks that [`decode`] succeeds.
pub(crate) fn check(input: DecodeInput<'_>, scratch: &mut CheckScratch) -> DecodeResult<()> {
    Decoder::new(input.reader, input.references.len(), CheckSink::new(scratch)).run()
}

impl<S: sink::Sink> Decoder<'_, S> {
    fn run(mut self) -> DecodeResult<()> {
        self.tables()?;
        self.code()?;
        self.side_tables()?;
        self.reader.end()
    }
}
