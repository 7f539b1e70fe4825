//! Comparison of functions' types, each pair of long texts once.
//!
//! Symbols refer to the signatures of their module by number, so thousands of symbols may share a
//! signature of any length. Comparing it for each symbol would take time that grows with the
//! product of both.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::signatures_agree;

/// Texts shorter than this are compared faster than they are found, in bytes.
const LONG: usize = 256;

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    Agree,
    /// They differ, which is known for the first time.
    Conflict,
    /// They differ, and the same pair of texts was compared before.
    KnownConflict,
}

/// The pairs that were compared, by the places of their texts in artifacts.
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
