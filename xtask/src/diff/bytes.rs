//! Comparison of bytes.

use std::fmt::Write as _;

use super::report::Report;

/// Adds a difference if bytes are not equal: their lengths if these differ, and where they begin to
/// differ.
pub(super) fn compare(what: &str, a: &[u8], b: &[u8], report: &mut Report) {
    if a == b {
        return;
    }
    let first = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let side = |bytes: &[u8]| {
        let mut text = format!("{} bytes", bytes.len());
        let rest = &bytes[first..bytes.len().min(first + SHOWN)];
        if !rest.is_empty() {
            let _ = write!(text, ", from {first:#x}:");
            rest.iter().for_each(|byte| {
                let _ = write!(text, " {byte:02x}");
            });
        }
        text
    };
    report.add(what, Some(side(a)), Some(side(b)));
}

/// The number of bytes that are shown.
const SHOWN: usize = 8;

/// Things of one kind that are matched by name: those of equal names in order.
pub(super) fn pairs<'t, T>(a: &'t [(String, T)], b: &'t [(String, T)]) -> Vec<Pair<'t, T>> {
    let mut places = std::collections::HashMap::<&str, std::collections::VecDeque<&T>>::new();
    for (name, thing) in b {
        places.entry(name).or_default().push_back(thing);
    }
    let mut pairs: Vec<Pair<'t, T>> = a
        .iter()
        .map(|(name, thing)| {
            let other = places.get_mut(&**name).and_then(std::collections::VecDeque::pop_front);
            (&**name, Some(thing), other)
        })
        .collect();
    // What is left in `b`, in its order: the last ones of each name.
    for (name, thing) in b {
        let left = places
            .get_mut(&**name)
            .filter(|left| left.front().is_some_and(|left| std::ptr::eq(*left, thing)));
        if let Some(left) = left {
            left.pop_front();
            pairs.push((name, None, Some(thing)));
        }
    }
    pairs
}

/// A name, and the things in either file that have it.
pub(super) type Pair<'t, T> = (&'t str, Option<&'t T>, Option<&'t T>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_name_are_matched_in_order() {
        let list = |names: &str| names.chars().zip(0..).map(|(c, n)| (c.to_string(), n)).collect::<Vec<_>>();
        let (a, b) = (list("aabc"), list("abada"));
        let found: Vec<_> =
            pairs(&a, &b).into_iter().map(|(name, a, b)| (name, a.copied(), b.copied())).collect();
        let expected = [
            ("a", Some(0), Some(0)),
            ("a", Some(1), Some(2)),
            ("b", Some(2), Some(1)),
            ("c", Some(3), None),
            ("d", None, Some(3)),
            ("a", None, Some(4)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_first_byte_that_differs_is_shown() {
        let mut report = Report::default();
        compare("same", b"abc", b"abc", &mut report);
        assert!(report.is_empty());
        compare("code", b"abc", b"abxyz", &mut report);
        compare("tail", b"ab", b"abc", &mut report);
        let all: Vec<_> =
            report.all().iter().map(|found| (&*found.what, found.a.as_deref(), found.b.as_deref())).collect();
        assert_eq!(
            all,
            [
                ("code", Some("3 bytes, from 0x2: 63"), Some("5 bytes, from 0x2: 78 79 7a")),
                ("tail", Some("2 bytes"), Some("3 bytes, from 0x2: 63")),
            ]
        );
    }
}
