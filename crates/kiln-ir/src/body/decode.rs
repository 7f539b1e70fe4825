//! Decodes the canonical form, either to check it or to build the function that Cranelift compiles.
//!
//! A [`Decoder`] reads the bytes and checks every number in them. It passes what it has read to a
//! [`Sink`](sink::Sink): [`BuildSink`] builds a function, and [`CheckSink`] keeps only the few
//! facts that later bytes are checked against. The same decoder drives both sinks, so both accept
//! exactly the same bytes.
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
//! - Decoding any bytes succeeds or returns an error, in time and memory proportional to their
//!   length. A count is at most the number of bytes that are left. Every index is checked against
//!   the length of its table: at once if that length is known, otherwise when the table is read.
//! - In a function that was built, every entity that is referred to exists. Only the verifier
//!   checks whether the function is *valid* IR.
//! - Values are created in the order of their numbers, because the form numbers them in layout
//!   order. So an operand may have the number of a value that is created later.

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

/// Decodes `input` into `function`, and names it after `symbol`.
pub(crate) fn decode(
    input: DecodeInput<'_>,
    symbol: SymbolId,
    function: &mut ir::Function,
) -> DecodeResult<()> {
    let sink = BuildSink::new(function, symbol, input.references, input.base);
    Decoder::new(input.reader, input.references.len(), sink).run()
}

/// Checks that [`decode`] would succeed with this many references, without building a function.
pub(crate) fn check(
    reader: ByteReader<'_>,
    references: usize,
    scratch: &mut CheckScratch,
) -> DecodeResult<()> {
    Decoder::new(reader, references, CheckSink::new(scratch)).run()
}

impl<S: sink::Sink> Decoder<'_, S> {
    fn run(mut self) -> DecodeResult<()> {
        self.tables()?;
        self.code()?;
        self.side_tables()?;
        self.reader.end()
    }
}
