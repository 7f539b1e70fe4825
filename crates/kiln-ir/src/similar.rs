//! The name that a misspelt name was probably meant to be.

/// Longer names are not compared.
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

/// The set of the bytes of `name`, where some share a bit.
fn letters(name: &str) -> u64 {
    name.bytes().fold(0, |set, byte| set | 1 << (byte & 63))
}

/// Returns the candidate whose name is closest to `name`, the first of equally close ones; `None`
/// if more than every third letter would have to be changed. `usable` tells which may be returned.
pub(crate) fn nearest<'c, 'n, T>(
    name: &str,
    candidates: &'c [Candidate<'n, T>],
    usable: impl Fn(&T) -> bool,
) -> Option<&'c Candidate<'n, T>> {
    // All names of one letter are similar.
    if !(2..=MAX_LENGTH).contains(&name.len()) {
        return None;
    }
    let own = letters(name);
    let mut limit = (name.len() / 3).max(1);
    let mut found = None;
    for candidate in candidates {
        // Most are left out by their lengths and sets of letters: an edit adds and removes one.
        let far = candidate.name.len().abs_diff(name.len()) > limit
            || (candidate.letters & !own).count_ones() as usize > limit
            || (own & !candidate.letters).count_ones() as usize > limit;
        if far || !usable(&candidate.what) {
            continue;
        }
        let distance = distance(name.as_bytes(), candidate.name.as_bytes());
        if distance <= limit {
            found = Some(candidate);
            match distance.checked_sub(1) {
                // A closer one is searched for.
                Some(closer) if closer > 0 => limit = closer,
                _ => break,
            }
        }
    }
    found
}

/// Returns the number of bytes to insert, remove, replace or exchange with the next one (the
/// distance called "optimal string alignment").
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
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
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }
}
