//! Counts or writes numbers, texts and bytes of code tables.

/// Writes `bytes` at the start of `out`, which is the rest afterwards.
///
/// # Panics
///
/// If there is not enough room: tables are measured before they are written.
pub(super) fn put(out: &mut &mut [u8], bytes: &[u8]) {
    let (to, rest) = std::mem::take(out).split_at_mut(bytes.len());
    to.copy_from_slice(bytes);
    *out = rest;
}

/// Takes numbers and bytes: counts them, or writes them.
pub(super) trait Sink {
    fn byte(&mut self, byte: u8);
    fn bytes(&mut self, bytes: &[u8]);

    fn uint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn uints<const N: usize>(&mut self, values: [u32; N]) {
        values.into_iter().for_each(|value| self.uint(value));
    }

    fn text(&mut self, text: &str) {
        self.uint(text.len() as u32);
        self.bytes(text.as_bytes());
    }
}

/// Returns the number of bytes of a number.
pub(super) fn uint_len(value: u32) -> u64 {
    u64::from((31 - (value | 1).leading_zeros()) / 7 + 1)
}

/// Counts bytes.
pub(super) struct Count(pub(super) u64);

impl Sink for Count {
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }

    fn uint(&mut self, value: u32) {
        self.0 += uint_len(value);
    }
}

/// Writes bytes.
pub(super) struct Write<'o>(pub(super) &'o mut [u8]);

impl Sink for Write<'_> {
    fn byte(&mut self, byte: u8) {
        put(&mut self.0, &[byte]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        put(&mut self.0, bytes);
    }

    fn uints<const N: usize>(&mut self, values: [u32; N]) {
        // Most numbers have one byte, and then there is one copy.
        if values.iter().all(|&value| value < 0x80) {
            return put(&mut self.0, &values.map(|value| value as u8));
        }
        values.into_iter().for_each(|value| self.uint(value));
    }
}
