//! Finds the correct name that a misspelt name probably stands for.

/// The length in bytes of the longest name that is compared.
const MAX_LENGTH: usize = 200;

/// A name that may have been meant.
pub(crate) struct Candidate<'n, T> {
    pub(crate) name: &'n str,
    pub(crate) what: T,
    letters: u64,
}

impl<'n, T> Candidate<'n, T> {
    pub(crate) fn new(name: &'n str, what: T) -> Self {
        Self { name, what, letters: letters(name) }
    }
}

/// Returns the set of the bytes of `name`, one bit each; bytes with equal low six bits share a bit.
fn letters(name: &str) -> u64 {
    name.bytes().fold(0, |set, byte| set | 1 << (byte & 63))
}

/// Returns the candidate whose name is closest to `name`, the first of equally close ones; `None`
/// if that takes more edits than a third of the letters of `name` (but at least one edit is
/// allowed). `usable` tells which candidates may be returned.
pub(crate) fn nearest<'c, 'n, T>(
    name: &str,
    candidates: &'c [Candidate<'n, T>],
    usable: impl Fn(&T) -> bool,
) -> Option<&'c Candidate<'n, T>> {
    // With one edit, every name of one letter becomes every other.
    if !(2..=MAX_LENGTH).contains(&name.len()) {
        return None;
    }
    let own = letters(name);
    let mut limit = (name.len() / 3).max(1);
    let mut found = None;
    for candidate in candidates {
        // Lengths and sets of letters exclude most candidates quickly: an edit adds and removes at
        // most one letter.
        let far = candidate.name.len().abs_diff(name.len()) > limit
            || (candidate.letters & !own).count_ones() as usize > limit
            || (own & !candidate.letters).count_ones() as usize > limit;
        if far || !usable(&candidate.what) {
            continue;
        }
        let distance = strsim::osa_distance(name, candidate.name);
        if distance <= limit {
            found = Some(candidate);
            match distance.checked_sub(1) {
                // Go on, to find a closer candidate.
                Some(closer) if closer > 0 => limit = closer,
                _ => break,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
        let candidates: Vec<_> = names.iter().map(|name| Candidate::new(name, ())).collect();
        nearest(name, &candidates, |()| true).map(|candidate| candidate.name)
    }

    #[test]
    fn the_closest_name() {
        let names = ["square", "square_area", "circle_area", "sqare_areas", "x"];
        assert_eq!(found("squre_area", &names), Some("square_area"));
        assert_eq!(found("square_aera", &names), Some("square_area"));
        assert_eq!(found("circle", &names), None);
        assert_eq!(found("y", &names), None);
        assert_eq!(found("malloc", &names), None);
        assert_eq!(found("ab", &["ba", "abc"]), Some("ba"));
        assert_eq!(found("", &[""]), None);
    }
}
