//! The addresses of this process, as Linux tells them.

use std::io;
use std::ops::Range;

use kiln_ir::{AddressConstant, Module, address_constants};

/// Returns the constants in `modules` that are addresses in mapped memory of this process: pointers
/// that a client has written into its code. Call it before code is saved in an image or a cache:
/// see [`AddressConstant`].
///
/// A number can be equal to an address by chance, so this is for a warning, or for a test of the
/// client. It reads `/proc/self/maps`, and takes a fraction of the time of compiling.
///
/// # Errors
///
/// The system's error if `/proc` cannot be read.
pub fn find_addresses(modules: &[Module]) -> io::Result<Vec<AddressConstant>> {
    let mapped = mapped_ranges(&std::fs::read_to_string("/proc/self/maps")?);
    let is_address = |value: u64| {
        // The last range that starts at or before the value.
        let after = mapped.partition_point(|range| range.start <= value);
        after.checked_sub(1).is_some_and(|index| mapped[index].contains(&value))
    };
    Ok(modules.iter().flat_map(|module| address_constants(module, &is_address)).collect())
}

/// Reads the ranges of `/proc/self/maps`, which are in order.
fn mapped_ranges(maps: &str) -> Vec<Range<u64>> {
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_ranges() {
        let maps = "55d0c0a2b000-55d0c0a2d000 r--p 00000000 fe:01 1234  /usr/bin/cat\n\
                    7ffd1c9e4000-7ffd1ca05000 rw-p 00000000 00:00 0     [stack]\n";
        assert_eq!(
            mapped_ranges(maps),
            [0x55d0_c0a2_b000..0x55d0_c0a2_d000, 0x7ffd_1c9e_4000..0x7ffd_1ca0_5000]
        );
    }
}
