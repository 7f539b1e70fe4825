//! Comparison of function signatures. Each pair of long signatures is compared only once.
//!
//! Symbols refer to the signatures of their module by number, so thousands of symbols may share a
//! signature of any length. Comparing the texts again for each symbol would take time proportional
//! to the number of symbols times the length of the signature.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::signatures_agree;

/// The length, in bytes, below which comparing two texts is faster than looking the pair up.
const LONG: usize = 256;

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    Agree,
    /// The signatures differ, and this pair of texts was not compared before.
    Conflict,
    /// The signatures differ, and the same pair of texts was compared before.
    KnownConflict,
}

/// The pairs that were compared, keyed by the addresses and lengths of their texts.
#[derive(Default)]
pub(super) struct Agreements {
    known: HashMap<[(usize, usize); 2], bool, FastHash>,
}

impl Agreements {
    /// Compares the texts of two signatures, as [`signatures_agree`] does.
    pub(super) fn compare(&mut self, a: &str, b: &str) -> Agreement {
        if a.len() < LONG && a == b {
            return Agreement::Agree;
        }
        let pair = [a, b].map(|text| (text.as_ptr() as usize, text.len()));
        if let Some(&agree) = self.known.get(&pair) {
            return if agree { Agreement::Agree } else { Agreement::KnownConflict };
        }
        let agree = signatures_agree(a, b);
        self.known.insert(pair, agree);
        if agree { Agreement::Agree } else { Agreement::Conflict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_texts_is_compared_once() {
        let mut agreements = Agreements::default();
        let long = format!("({}i64) system_v", "i64 uext, ".repeat(100));
        let same = long.replace(" uext", "");
        let other = long.replace("i64)", "i32)");
        for _ in 0..2 {
            assert_eq!(agreements.compare(&long, &same), Agreement::Agree);
            assert_eq!(agreements.compare("() fast", "() fast"), Agreement::Agree);
        }
        assert_eq!(agreements.compare(&long, &other), Agreement::Conflict);
        assert_eq!(agreements.compare(&long, &other), Agreement::KnownConflict);
        assert_eq!(agreements.known.len(), 2);
    }
}
