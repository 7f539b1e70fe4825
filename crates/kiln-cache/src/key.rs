//! Cache keys: a hash of everything that native code depends on.

use kiln_artifact::FORMAT_VERSION;

/// 256 bits that stand for an artifact's inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Everything that native code depends on. The versions of the artifact format and of this crate are added.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// Fingerprint of the module's IR.
    pub fingerprint: &'a [u8; 32],
    /// Names that the artifact carries and the fingerprint leaves out.
    pub names: &'a [u8],
    /// Target triple.
    pub target: &'a str,
    /// All settings of the code generator, shared and of the architecture, in a fixed order.
    pub settings: &'a str,
    /// The code generator and its version.
    pub producer: &'a str,
    /// Revision of whatever turns generated code into artifacts.
    pub revision: u32,
    /// Hash of whatever else the client's code assumes: object layouts, calling conventions of its run-time.
    pub abi: &'a [u8],
}

impl KeyParts<'_> {
    /// The key. Each part is hashed with its length, so no two lists of parts run together.
    pub fn key(&self) -> Key {
        let Self { fingerprint, names, target, settings, producer, revision, abi } = self;
        let mut hasher = blake3::Hasher::new_derive_key("kiln-cache key of a module");
        let versions = format!("{FORMAT_VERSION} {}", env!("CARGO_PKG_VERSION"));
        let revision = revision.to_le_bytes();
        let parts: [&[u8]; 8] = [
            versions.as_bytes(),
            *fingerprint,
            names,
            target.as_bytes(),
            settings.as_bytes(),
            producer.as_bytes(),
            &revision,
            abi,
        ];
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Key(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_changes_the_key_and_parts_do_not_run_together() {
        let base = KeyParts {
            fingerprint: &[0; 32],
            names: b"n",
            target: "t",
            settings: "s",
            producer: "p",
            revision: 1,
            abi: b"a",
        };
        let others = [
            KeyParts { fingerprint: &[1; 32], ..base },
            KeyParts { names: b"", ..base },
            KeyParts { target: "u", ..base },
            KeyParts { settings: "", ..base },
            KeyParts { producer: "q", ..base },
            KeyParts { revision: 2, ..base },
            KeyParts { abi: b"", ..base },
            KeyParts { target: "ts", settings: "", ..base },
        ];
        assert_eq!(base.key(), base.key());
        for other in others {
            assert_ne!(base.key(), other.key(), "{other:?}");
        }
    }
}
