//! Suggests names that are similar to a name that does not exist.

/// The number of names that are suggested.
const SUGGESTED: usize = 3;

/// Returns the names that differ from `name` in few letters, the most similar first.
pub(crate) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    /// The length in bytes above which names are not compared, because the time grows with the
    /// product of the lengths.
    const LONGEST: usize = 200;
    let length = name.chars().count();
    // At least one letter must be the same.
    let limit = (1 + length / 4).min(length.saturating_sub(1));
    let mut found: Vec<(usize, &str)> = names
        .filter(|other| {
            name.len().max(other.len()) <= LONGEST && name.len().abs_diff(other.len()) <= 4 * limit
        })
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(_, other)| other).take(SUGGESTED).collect()
}

/// Returns text like ``; did you mean `a` or `b`?``, or nothing.
pub(crate) fn did_you_mean<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<_> =
        nearest(name, names).iter().map(|name| format!("`{}`", crate::output::name(name))).collect();
    if names.is_empty() { String::new() } else { format!("; did you mean {}?", names.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_letters_differ() {
        let names = ["square_area", "square_area2", "circle_area", "via", "f"];
        let near = |name| nearest(name, names.into_iter());
        assert_eq!(near("sqare_area"), ["square_area", "square_area2"]);
        assert_eq!(near("vai"), ["via"]);
        assert_eq!((near("ff"), near("g")), (vec!["f"], vec![]));
        assert_eq!(near("triangle"), [""; 0]);
        assert_eq!(did_you_mean("vai", names.into_iter()), "; did you mean `via`?");
        assert_eq!(did_you_mean("volume", names.into_iter()), "");
    }
}
