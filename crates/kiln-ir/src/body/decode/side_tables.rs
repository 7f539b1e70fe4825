//! Tables after the code: further facts about instructions and values.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::{
    DebugTag, Inst, RelSourceLoc, StackSlot, UserStackMapEntry, ValueLabel, ValueLabelStart,
};

use super::decoder::Decoder;
use super::sink::Sink;
use crate::body::wire::{DecodeResult, unzigzag};

impl<S: Sink> Decoder<'_, S> {
    /// Reads the side tables in their order.
    pub(super) fn side_tables(&mut self) -> DecodeResult<()> {
        self.source_locations()?;
        self.debug_tags()?;
        self.stack_maps()?;
        if self.reader.bool()? {
            self.labels()?;
        }
        Ok(())
    }

    /// Reads runs of instructions that have the same source location, in the format of the
    /// encoder's `locations`. The last run extends to the end of the function.
    fn source_locations(&mut self) -> DecodeResult<()> {
        let (mut start, mut location) = (0usize, RelSourceLoc::default());
        // The bits of the last location that was present.
        let mut before = 0i64;
        loop {
            let step = self.reader.uint()?.checked_sub(1);
            let end = match step {
                None => self.insts,
                Some(step) => usize::try_from(step)
                    .ok()
                    .and_then(|step| start.checked_add(step))
                    .filter(|end| *end < self.insts)
                    .ok_or_else(|| self.reader.error("no such instruction"))?,
            };
            if location != RelSourceLoc::default() {
                self.sink.source_location(start, end, location);
            }
            if step.is_none() {
                return Ok(());
            }
            let next = match self.reader.uint()?.checked_sub(1) {
                None => RelSourceLoc::default(),
                Some(distance) => {
                    let bits = before
                        .checked_add(unzigzag(distance))
                        .and_then(|bits| u32::try_from(bits).ok())
                        .filter(|bits| *bits != u32::MAX)
                        .ok_or_else(|| self.reader.error("not a source location"))?;
                    before = i64::from(bits);
                    RelSourceLoc::new(bits)
                }
            };
            if next == location {
                return Err(self.reader.error("a source location that does not change"));
            }
            (start, location) = (end, next);
        }
    }

    fn inst_number(&mut self) -> DecodeResult<Inst> {
        self.reader.index(self.insts, "no such instruction").map(Inst::new)
    }

    fn debug_tags(&mut self) -> DecodeResult<()> {
        for _ in 0..self.reader.count()? {
            let inst = self.inst_number()?;
            let mut tags = Vec::new();
            for _ in 0..self.reader.count()? {
                let code = self.reader.uint()?;
                let number = u32::try_from(code >> 1).map_err(|_| self.reader.error("not a debug tag"))?;
                tags.push(S::made(match code & 1 {
                    0 => DebugTag::User(number),
                    _ if (number as usize) < self.lengths.stack_slots => {
                        DebugTag::StackSlot(StackSlot::from_u32(number))
                    }
                    _ => return Err(self.reader.error("no such stack slot")),
                }));
            }
            self.sink.debug_tags(inst, tags);
        }
        Ok(())
    }

    fn stack_maps(&mut self) -> DecodeResult<()> {
        for _ in 0..self.reader.count()? {
            let inst = self.inst_number()?;
            if !self.sink.is_safepoint(inst) {
                return Err(self.reader.error("a stack map of an instruction that is no call"));
            }
            for _ in 0..self.reader.count()? {
                let ty = self.reader.ty()?;
                let slot = self.reader.index(self.lengths.stack_slots, "no such stack slot")?;
                let offset = self.reader.u32()?;
                let entry = UserStackMapEntry { ty, slot: StackSlot::new(slot), offset };
                self.sink.stack_map_entry(inst, entry);
            }
        }
        Ok(())
    }

    /// Reads labels of values. If a value has several entries, the last one is used.
    fn labels(&mut self) -> DecodeResult<()> {
        self.sink.start_labels();
        for _ in 0..self.reader.count()? {
            let value = self.numbered_value()?;
            match self.reader.byte()? {
                0 => {
                    let mut starts = Vec::new();
                    for _ in 0..self.reader.count()? {
                        let from = RelSourceLoc::new(self.reader.u32()?);
                        let label = ValueLabel::from_u32(self.entity_number()?);
                        starts.push(S::made(ValueLabelStart { from, label }));
                    }
                    self.sink.label_starts(value, starts);
                }
                1 => {
                    let from = RelSourceLoc::new(self.reader.u32()?);
                    let original = self.numbered_value()?;
                    self.sink.label_alias(value, from, original);
                }
                _ => return Err(self.reader.error("not a label")),
            }
        }
        Ok(())
    }
}
