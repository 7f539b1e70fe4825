//! The errors about signatures that are not those that are wanted.

use std::fmt;

use kiln_keys::PublicKey;

/// The reason why a signature does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureFault {
    /// It is not one of this content: the image or the signature was altered.
    Wrong {
        /// The accepted key that is said to have made it.
        key: PublicKey,
    },
    /// Its key is not among the accepted ones.
    NotAccepted {
        /// The key that is said to have made it.
        key: PublicKey,
    },
    /// Its key was revoked.
    Revoked {
        /// The key.
        key: PublicKey,
    },
    /// It was made in a way that this version does not know.
    Algorithm {
        /// The name or number of the way.
        name: Box<str>,
    },
    /// There are too many to look at.
    TooMany {
        /// The number that is looked at.
        limit: usize,
    },
}

impl fmt::Display for SignatureFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { key } => {
                write!(f, "that of `{key}` is of something else: the image or the signature was altered")
            }
            Self::NotAccepted { key } => write!(f, "`{key}` is not accepted"),
            Self::Revoked { key } => write!(f, "`{key}` was revoked"),
            Self::Algorithm { name } => write!(f, "one is of the unknown kind {}", name.escape_debug()),
            Self::TooMany { limit } => write!(f, "there are more than {limit}"),
        }
    }
}

/// An image does not have the signatures that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UntrustedError {
    /// The number of keys that must have signed.
    pub needed: usize,
    /// The number of accepted keys that have; 0 if there are too few candidates to look further.
    pub found: usize,
    /// The signatures that do not count.
    pub faults: Vec<SignatureFault>,
}

impl fmt::Display for UntrustedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Enough to see what is wrong.
        const SHOWN: usize = 4;
        let Self { needed, found, faults } = self;
        match (needed, found, faults.len()) {
            (1, _, 0) => return f.write_str("the image is not signed"),
            (1, ..) => f.write_str("no accepted signature")?,
            (_, 0, _) => write!(f, "fewer than {needed} accepted signatures")?,
            _ => write!(f, "{found} accepted signatures, and {needed} are needed")?,
        }
        for (number, fault) in faults.iter().take(SHOWN).enumerate() {
            write!(f, "{} {fault}", if number == 0 { ":" } else { "," })?;
        }
        match faults.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl std::error::Error for UntrustedError {}
