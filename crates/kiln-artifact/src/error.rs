//! Why bytes are not an artifact.

/// The bytes are not an artifact of this version: what is wrong, in which section, at which record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed artifact: {what} in {section}, record {record}")]
pub struct Malformed {
    pub(crate) section: &'static str,
    pub(crate) record: usize,
    pub(crate) what: &'static str,
}

impl Malformed {
    pub(crate) fn new(section: &'static str, record: usize, what: &'static str) -> Self {
        Self { section, record, what }
    }

    /// Name of the section that is wrong; `header` for what stands before all sections.
    pub fn section(&self) -> &'static str {
        self.section
    }

    /// Number of the record within the section, counted from 0.
    pub fn record(&self) -> usize {
        self.record
    }
}
