//! The versions that generated code depends on, for artifacts and cache keys.

/// The producer that artifacts name, and that cache keys must contain: the code generator and its
/// register allocator, with the exact version of each, since code depends on both.
pub const PRODUCER: &str = "cranelift 0.135.8, regalloc2 0.15.2";

/// The number of times that a change of this crate made it produce different artifacts from the
/// same IR. A part of every cache key.
pub const REVISION: u32 = 2;

#[cfg(test)]
mod tests {
    /// The versions of `name` in the lock file: those that are linked.
    fn locked(name: &str) -> Vec<&'static str> {
        let lock = include_str!("../../../Cargo.lock");
        let packages =
            lock.split("[[package]]").filter(|package| package.contains(&format!("name = \"{name}\"\n")));
        packages.filter_map(|package| package.split("version = \"").nth(1)?.split('"').next()).collect()
    }

    #[test]
    fn the_producer_names_the_linked_versions() {
        assert_eq!(locked("cranelift-codegen"), [cranelift_codegen::VERSION]);
        let [regalloc] = locked("regalloc2")[..] else {
            panic!("more than one register allocator is linked")
        };
        assert_eq!(
            super::PRODUCER,
            format!("cranelift {}, regalloc2 {regalloc}", cranelift_codegen::VERSION)
        );
    }
}
