//! The initial content of thread-local data: the segment `PT_TLS`.

use object::elf;

use super::headers::Headers;
use super::segments::Segment;
use crate::error::LoadError;
use crate::note::Span;

/// The largest alignment of thread-local data, in bytes.
const MAX_ALIGN: u64 = 1 << 16;

/// Blocks are smaller than this, in bytes, as programs are.
const MAX_SIZE: u64 = 1 << 31;

/// The initial content of thread-local data, and the size of each thread's block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadLocalPlace {
    /// The range of the initial content, from the load address on.
    pub(crate) content: Span,
    /// Size of a block in bytes, at least that of the content.
    pub(crate) size: u64,
    /// A power of two.
    pub(crate) align: u64,
}

/// Finds it, and checks that the content is in the file's part of a segment that nobody writes once
/// it is relocated.
pub(super) fn find(headers: &Headers, segments: &[Segment]) -> Result<Option<ThreadLocalPlace>, LoadError> {
    let mut all = headers.of_kind(elf::PT_TLS);
    let Some(header) = all.next() else { return Ok(None) };
    let content = Span::new(header.address, header.file_len);
    let align = header.align.max(1);
    let is_sealed = |segment: &&Segment| segment.relro || !segment.is_writable();
    let fits = header.mem_len < MAX_SIZE
        && header.file_len <= header.mem_len
        && align.is_power_of_two()
        && align <= MAX_ALIGN
        && all.next().is_none()
        && (header.file_len == 0
            || segments.iter().filter(is_sealed).any(|it| it.contains(&content, it.file_len)));
    if !fits {
        return Err(LoadError::malformed("bad thread-local data", header.at));
    }
    Ok(Some(ThreadLocalPlace { content, size: header.mem_len, align }))
}
