//! Comparison of what is loaded with the checksums that were taken when the image was written.

use super::tables::Tables;
use crate::error::LoadError;
use crate::note::{Span, checksum};

/// Compares every checksum. `bytes` returns the bytes of a range of addresses, if they are in the
/// file; `note_offset` is the note's offset in the file, for errors.
pub(crate) fn verify<'a>(
    tables: &Tables<'_>,
    note_offset: u64,
    bytes: impl Fn(&Span) -> Option<&'a [u8]>,
) -> Result<(), LoadError> {
    let note = tables.note;
    let mut end = 0;
    for record in note.sums() {
        // In order, so no byte is hashed twice.
        let start = record.range.start.get();
        let Some(bytes) = bytes(&record.range).filter(|_| start >= end) else {
            return Err(LoadError::malformed("a checksum of what is not in the file", note_offset));
        };
        if checksum(bytes) != record.sum {
            return Err(LoadError::Altered { section: note.text(record.name).unwrap_or("a section").into() });
        }
        end = start + record.range.len.get();
    }
    if checksum(note.export_bytes()) != note.head.exports_sum || !note.has_its_hash() {
        return Err(LoadError::Altered { section: "note".into() });
    }
    let names = ["dynamic symbols", ".gnu.hash", "relocations"];
    for ((found, written), name) in tables.dynamic.sums().into_iter().zip(note.head.table_sums).zip(names) {
        if found != written {
            return Err(LoadError::Altered { section: name.into() });
        }
    }
    Ok(())
}
