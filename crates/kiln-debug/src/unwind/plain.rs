//! A section with one row.

/// Makes a section with one row for `len` bytes from `start` on.
pub(crate) fn section(start: usize, len: usize, (column, instructions): (u8, &[u8])) -> Box<[u64]> {
    let mut bytes = Vec::with_capacity(72);
    // The CIE: its length, zero, version 1, augmentation `zR`, factors 1 and -8, the column of the
    // return address, one byte of augmentation: addresses are absolute.
    bytes.extend(28u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([1, b'z', b'R', 0, 1, 0x78, column, 1, 0]);
    bytes.extend(instructions);
    bytes.resize(32, 0);
    // The FDE: its length, how far back the CIE is, the addresses, no augmentation.
    bytes.extend(28u32.to_ne_bytes());
    bytes.extend(36u32.to_ne_bytes());
    bytes.extend(start.to_ne_bytes());
    bytes.extend(len.to_ne_bytes());
    // Padding, and the zero that ends the section.
    bytes.resize(72, 0);
    let words = bytes.as_chunks::<8>().0.iter().map(|&word| u64::from_ne_bytes(word));
    words.collect()
}
