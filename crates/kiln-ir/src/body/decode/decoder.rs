//! The state of a decoder, and the operands that are numbers of entities or values.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::{Block, FuncRef, MemFlags, SigRef, Value};

use super::sink::Sink;
use crate::body::wire::{ByteReader, DecodeResult};

/// The lengths of the tables that operands are indexes of.
#[derive(Default)]
pub(super) struct TableLengths {
    pub(super) references: usize,
    pub(super) alias_regions: usize,
    pub(super) mem_flags: usize,
    pub(super) stack_slots: usize,
    pub(super) dynamic_stack_slots: usize,
    pub(super) global_values: usize,
    pub(super) functions: usize,
    pub(super) signatures: usize,
}

/// Reads and checks the form of one function.
pub(super) struct Decoder<'b, S> {
    pub(super) reader: ByteReader<'b>,
    pub(super) sink: S,
    pub(super) lengths: TableLengths,
    /// The number of the next value that is defined.
    pub(super) next_value: i64,
    /// The number of values that the form announces.
    pub(super) values: u64,
    pub(super) blocks: usize,
    /// The number of instructions so far.
    pub(super) insts: usize,
}

impl<'b, S: Sink> Decoder<'b, S> {
    /// Creates a decoder for a function that refers to this many symbols.
    pub(super) fn new(reader: ByteReader<'b>, references: usize, sink: S) -> Self {
        Self {
            reader,
            sink,
            lengths: TableLengths { references, ..TableLengths::default() },
            next_value: 0,
            values: 0,
            blocks: 0,
            insts: 0,
        }
    }

    /// Reads the number of an entity. The largest number is reserved.
    pub(super) fn entity_number(&mut self) -> DecodeResult<u32> {
        match self.reader.u32()? {
            u32::MAX => Err(self.reader.error("not a number of an entity")),
            number => Ok(number),
        }
    }

    /// Reads a byte in which only the lowest `count` bits may be set.
    pub(super) fn bits(&mut self, count: u32) -> DecodeResult<u8> {
        let bits = self.reader.byte()?;
        if u32::from(bits) >> count == 0 { Ok(bits) } else { Err(self.reader.error("unknown flags")) }
    }

    /// Reads a value as an operand.
    #[inline]
    pub(super) fn value(&mut self) -> DecodeResult<Value> {
        let distance = self.reader.int()?;
        self.value_before(distance)
    }

    /// Returns the value that is `distance` values before the next one.
    #[inline]
    pub(super) fn value_before(&self, distance: i64) -> DecodeResult<Value> {
        match self.next_value.checked_sub(distance).map(u64::try_from) {
            Some(Ok(number)) if number < self.values => Ok(Value::from_u32(number as u32)),
            _ => Err(self.reader.error("no such value")),
        }
    }

    /// Reads `N` values as operands.
    pub(super) fn value_array<const N: usize>(&mut self) -> DecodeResult<[Value; N]> {
        let mut values = [Value::from_u32(0); N];
        for value in &mut values {
            *value = self.value()?;
        }
        Ok(values)
    }

    /// Reads a value by its number.
    pub(super) fn numbered_value(&mut self) -> DecodeResult<Value> {
        let count = usize::try_from(self.values).unwrap_or(usize::MAX);
        self.reader.index(count, "no such value").map(Value::new)
    }

    /// Reads memory flags by their position.
    #[inline]
    pub(super) fn mem_flags(&mut self) -> DecodeResult<S::Made<MemFlags>> {
        let position = self.reader.index(self.lengths.mem_flags, "no such memory flags")?;
        Ok(self.sink.mem_flags_at(position))
    }

    #[inline]
    pub(super) fn func_ref(&mut self) -> DecodeResult<FuncRef> {
        self.reader.index(self.lengths.functions, "no such function").map(FuncRef::new)
    }

    #[inline]
    pub(super) fn sig_ref(&mut self) -> DecodeResult<SigRef> {
        self.reader.index(self.lengths.signatures, "no such signature").map(SigRef::new)
    }

    #[inline]
    pub(super) fn block(&mut self) -> DecodeResult<Block> {
        self.reader.index(self.blocks, "no such block").map(Block::new)
    }
}
