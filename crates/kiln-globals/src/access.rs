//! The two ways in which code can reach what is outside of its module.

/// The way in which code gets the address of a global, a function of the host, or anything else
/// that its module does not define.
///
/// Code of both kinds may be linked together; each module is linked in its own way. The code of one
/// kind is never taken for that of the other: the kind is a part of every cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum GlobalAccess {
    /// Code is position independent, and loads the address from a slot. Whoever loads the code
    /// fills the array of slots, and nothing else. A slot may be bound again while code uses it.
    #[default]
    Slots,
    /// Code contains the address, and is patched when it is loaded. What is patched cannot be bound
    /// again. Replaceable functions are reached through their slots nevertheless.
    Direct,
}

impl GlobalAccess {
    /// Both, in order of their codes.
    pub const ALL: [Self; 2] = [Self::Slots, Self::Direct];

    /// Returns the name: `slots` or `direct`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Direct => "direct",
        }
    }

    /// Returns the number that formats store.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Returns the kind with this number, or `None` if there is none.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for access in GlobalAccess::ALL {
            assert_eq!(GlobalAccess::from_code(access.code()), Some(access));
        }
        assert_eq!(GlobalAccess::from_code(2), None);
    }
}
