//! The differences that were found.

/// A difference. A side without a value does not have the thing at all.
pub(super) struct Difference {
    pub(super) what: String,
    pub(super) a: Option<String>,
    pub(super) b: Option<String>,
}

/// All differences, in the order in which they are reported.
#[derive(Default)]
pub(super) struct Report(Vec<Difference>);

impl Report {
    /// Adds a difference.
    pub(super) fn add(&mut self, what: impl Into<String>, a: Option<String>, b: Option<String>) {
        self.0.push(Difference { what: what.into(), a, b });
    }

    /// Adds a difference if two values are not equal.
    pub(super) fn values<T: PartialEq + ToString>(
        &mut self,
        what: impl Into<String>,
        a: Option<T>,
        b: Option<T>,
    ) {
        if a != b {
            self.add(what, a.map(|a| a.to_string()), b.map(|b| b.to_string()));
        }
    }

    /// Adds the texts that only one of two lists has.
    pub(super) fn sets<'t>(
        &mut self,
        what: &str,
        a: impl Iterator<Item = &'t str>,
        b: impl Iterator<Item = &'t str>,
    ) {
        let (a, b): (Vec<_>, Vec<_>) = (a.collect(), b.collect());
        for only in a.iter().filter(|text| !b.contains(text)) {
            self.add(what, Some((*only).into()), None);
        }
        for only in b.iter().filter(|text| !a.contains(text)) {
            self.add(what, None, Some((*only).into()));
        }
    }

    /// Adds all differences of another report.
    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self) -> &[Difference] {
        &self.0
    }
}
