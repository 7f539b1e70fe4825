//! The versions that artifacts depend on: the versions of the code generator and of this crate.

/// The code generator and its register allocator, with the exact version of each. Artifacts record
/// this string, and cache keys must contain it, since the generated code depends on both versions.
pub const PRODUCER: &str = "cranelift 0.135.8, regalloc2 0.15.2";

/// A number that increases whenever a change of this crate makes it produce different artifacts
/// from the same IR. Cache keys must contain it.
pub const REVISION: u32 = 6;

#[cfg(test)]
mod tests {
    /// Returns the versions of the package `name` in Cargo.lock, which are the ones that are
    /// linked.
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
