//! Writes string literals of the text form.

use std::fmt::Write as _;

/// Returns `bytes` as a string literal, with quotes and escapes.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\0' => out.push_str("\\0"),
                '"' | '\\' => out.extend(['\\', c]),
                // Control characters, and non-ASCII characters that are not alphanumeric, may be
                // invisible, so they are escaped.
                c if c.is_control() || (!c.is_ascii() && !c.is_alphanumeric()) => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}
