//! The check of a note's tables: ranges, texts and indices.
//!
//! The texts together are not longer than the strings, so many texts cannot share the same bytes.
//! So copies of all texts, and the time to read them, are in proportion to the note.

use zerocopy::little_endian::U32;

use super::format::{NONE, SLOT_OF_GLOBAL, SLOT_OF_SYMBOL, SlotRecord, SumRecord, SymbolicRecord, Text};
use super::view::Note;

/// The reason why a note is refused, if it is.
type Checked = Result<(), &'static str>;

impl Note<'_> {
    /// Checks everything that the head refers to.
    pub(super) fn check(&self) -> Checked {
        let head = self.head;
        let whole = self.table::<Text>(head.producers).is_some()
            && self.table::<Text>(head.features).is_some()
            && self.table::<Text>(head.signatures).is_some()
            && self.table::<SlotRecord>(head.slots).is_some()
            && self.table::<U32>(head.export_signatures).is_some()
            && self.table::<SymbolicRecord>(head.symbolic).is_some()
            && self.table::<SumRecord>(head.sums).is_some()
            && self.table::<u8>(head.strings).is_some();
        if !whole {
            return Err("note table outside the note");
        }
        self.check_texts()?;
        let signatures = self.signatures().len();
        let is_known = |index: U32| index.get() == NONE || (index.get() as usize) < signatures;
        for slot in self.slots() {
            if !matches!(slot.kind.get(), SLOT_OF_GLOBAL | SLOT_OF_SYMBOL) || !is_known(slot.signature) {
                return Err("bad slot in the note");
            }
        }
        if self.export_signatures().iter().all(|&index| is_known(index)) {
            Ok(())
        } else {
            Err("unknown signature in the note")
        }
    }

    fn check_texts(&self) -> Checked {
        let strings = self.table::<u8>(self.head.strings).unwrap_or_default();
        let strings = std::str::from_utf8(strings).map_err(|_| "text in the note that is not UTF-8")?;
        let mut room = strings.len();
        let mut check = |text: Text| {
            let (start, len) = (text.start.get() as usize, text.len.get() as usize);
            let end = start.checked_add(len);
            if end.and_then(|end| strings.get(start..end)).is_none() {
                return Err("text outside the strings of the note");
            }
            room = room.checked_sub(len).ok_or("texts in the note that share bytes")?;
            Ok(())
        };
        check(self.head.kiln_version)?;
        check(self.head.triple)?;
        for texts in [self.producers(), self.features(), self.signatures()] {
            texts.iter().try_for_each(|&text| check(text))?;
        }
        self.slots().iter().try_for_each(|slot| check(slot.key))?;
        self.sums().iter().try_for_each(|sum| check(sum.name))
    }
}
