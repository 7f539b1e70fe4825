//! The versions that artifacts depend on: the versions of the code generator and of this crate.
//!
//! Any patch release of one minor of Cranelift is accepted, and [`PRODUCER`] has the one that is
//! linked. Cranelift is several crates, of which only some tell their version. Cargo keeps each of
//! them at least at the version of `cranelift-codegen`, and at the newest unless a lock file says
//! something else. So they differ only in a lock file that was edited by hand, as by
//! `cargo update --package cranelift-assembler-x64`. Whoever does this has to empty their caches:
//! nothing in a library can see it.

use cranelift_codegen::isa::TargetIsa;

/// The code generator and its register allocator, with the exact version of each, such as
/// `cranelift 0.135.8, regalloc2 0.15.2`. Artifacts record this string, and cache keys must contain
/// it, since the generated code depends on both versions.
///
/// The version of Cranelift is [`cranelift_codegen::VERSION`]. It ends in a commit if Cranelift's
/// sources are in a git repository: Cranelift's for a dependency on git, yours for sources that
/// `cargo vendor` put there. In the second case each commit has its own keys from the next clean
/// build on; vendor to a folder outside of the repository if that costs too much.
pub const PRODUCER: &str = match std::str::from_utf8(&joined::<{ length() }>()) {
    Ok(text) => text,
    Err(_) => panic!("strings that are joined are UTF-8"),
};

const PARTS: [&str; 4] = ["cranelift ", cranelift_codegen::VERSION, ", regalloc2 ", REGALLOC];

/// The version that Cargo.toml pins.
const REGALLOC: &str = "0.15.2";

const fn length() -> usize {
    let (mut length, mut part) = (0, 0);
    while part < PARTS.len() {
        length += PARTS[part].len();
        part += 1;
    }
    length
}

const fn joined<const N: usize>() -> [u8; N] {
    let (mut bytes, mut end, mut part) = ([0; N], 0, 0);
    while part < PARTS.len() {
        let mut i = 0;
        while i < PARTS[part].len() {
            bytes[end] = PARTS[part].as_bytes()[i];
            (i, end) = (i + 1, end + 1);
        }
        part += 1;
    }
    bytes
}

/// A number that increases whenever a change of this crate makes it produce different artifacts
/// from the same IR. Cache keys must contain it.
pub const REVISION: u32 = 6;

/// Returns all settings of a code generator as text, in Cranelift's fixed order, defaults included.
/// Cache keys must contain it.
pub fn settings_text(isa: &dyn TargetIsa) -> String {
    let flags = isa.flags().iter().chain(isa.isa_flags());
    flags.map(|flag| flag.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Returns the packages in Cargo.lock, which are the ones that are linked: names and versions.
    fn locked() -> impl Iterator<Item = (&'static str, &'static str)> {
        let lock = include_str!("../../../Cargo.lock");
        lock.split("[[package]]").filter_map(|package| {
            let field = |name: &str| package.split(&format!("{name} = \"")).nth(1)?.split('"').next();
            Some((field("name")?, field("version")?))
        })
    }

    fn versions(of: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let versions: BTreeSet<_> =
            locked().filter(|(name, _)| of(name)).map(|(_, version)| version).collect();
        versions.into_iter().collect()
    }

    #[test]
    fn the_producer_names_the_linked_versions() {
        let [cranelift] = versions(|name| name.starts_with("cranelift"))[..] else {
            panic!("releases of Cranelift are mixed, so its version does not say what makes code")
        };
        let [regalloc] = versions(|name| name == "regalloc2")[..] else {
            panic!("more than one register allocator is linked")
        };
        let expected = format!("cranelift {cranelift}, regalloc2 {regalloc}");
        assert_eq!(super::PRODUCER, expected);
    }
}
