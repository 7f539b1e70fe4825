//! Tables after the code, which most functions leave empty: source locations, debug tags, stack
//! maps, labels of values.

use cranelift_codegen::ir::{self, DebugTag, UserStackMapEntry, ValueLabelAssignments, ValueLabelStart};

use super::encoder::{EncodeError, Encoder, defined};
use super::locations::relative;

impl Encoder {
    /// Writes the side tables.
    pub(super) fn side_tables(&mut self, function: &ir::Function) -> Result<(), EncodeError> {
        let dfg = &function.dfg;
        self.code.raw(&self.locations.runs.0);
        self.code.byte(0);

        self.code.count(self.tagged.len());
        for &(number, inst) in &self.tagged {
            let tags = function.debug_tags.get(inst);
            self.code.count(number);
            self.code.count(tags.len());
            for tag in tags {
                let (kind, number) = match tag {
                    DebugTag::User(number) => (0, *number),
                    DebugTag::StackSlot(slot) => {
                        defined(function.sized_stack_slots.is_valid(*slot), *slot)?;
                        (1, slot.as_u32())
                    }
                };
                self.code.uint(u64::from(number) << 1 | kind);
            }
        }

        self.code.count(self.mapped.len());
        for &(number, inst) in &self.mapped {
            let entries = dfg.user_stack_map_entries(inst).unwrap_or_default();
            self.code.count(number);
            self.code.count(entries.len());
            for UserStackMapEntry { ty, slot, offset } in entries {
                defined(function.sized_stack_slots.is_valid(*slot), *slot)?;
                self.code.ty(*ty);
                self.code.uint(u64::from(slot.as_u32()));
                self.code.uint(u64::from(*offset));
            }
        }
        self.labels(dfg)
    }

    /// Writes labels of values for debug information, in order of the values' numbers. The labels
    /// of values that are not in the form are left out.
    fn labels(&mut self, dfg: &ir::DataFlowGraph) -> Result<(), EncodeError> {
        self.code.bool(dfg.values_labels.is_some());
        let Some(labels) = &dfg.values_labels else { return Ok(()) };
        let mut kept = Vec::with_capacity(labels.len());
        for (value, assignment) in labels {
            if let Ok(number) = self.new_value(dfg, *value) {
                kept.push((number, assignment));
            }
        }
        // If several aliases of one value have labels, only the entry with the highest old number
        // is kept, as if each entry replaced the previous one in a map.
        kept.sort_by_key(|(number, _)| *number);
        kept.reverse();
        kept.dedup_by_key(|(number, _)| *number);
        kept.reverse();
        self.code.count(kept.len());
        for (number, assignment) in kept {
            self.code.uint(u64::from(number));
            match assignment {
                ValueLabelAssignments::Starts(starts) => {
                    self.code.byte(0);
                    self.code.count(starts.len());
                    for ValueLabelStart { from, label } in starts {
                        self.code.uint(u64::from(relative(*from)));
                        self.code.uint(u64::from(label.as_u32()));
                    }
                }
                ValueLabelAssignments::Alias { from, value } => {
                    let number = self.new_value(dfg, *value)?;
                    self.code.byte(1);
                    self.code.uint(u64::from(relative(*from)));
                    self.code.uint(u64::from(number));
                }
            }
        }
        Ok(())
    }
}
