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
        let distance = strsim::osa_distance(name, candidate.name);
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
