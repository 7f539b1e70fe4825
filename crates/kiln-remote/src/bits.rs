//! Bytes as text, and random ones.

/// Returns bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns random bytes.
pub(crate) fn random() -> [u8; 32] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 32];
    // Without random numbers, names of uploads are not unique and pauses equal: nothing breaks.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    bytes
}
