//! Texts that many parts of an image may share, cut.

use std::borrow::Cow;

/// The largest number of bytes that are shown to people, and in JSON.
pub(super) const IN_TEXT: usize = 200;
pub(super) const IN_JSON: usize = 4096;

/// Returns a text, cut after `limit` bytes.
pub(super) fn shown(text: Option<&str>, limit: usize) -> Option<Cow<'_, str>> {
    let text = text?;
    let cut = text.floor_char_boundary(limit);
    Some(if cut < text.len() { format!("{}...", &text[..cut]).into() } else { text.into() })
}
