//! The error for bytes that are not an artifact.

/// The error for bytes that are not an artifact of this version. It says what is wrong, in which
/// table and at which record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactError {
    table: &'static str,
    record: usize,
    what: &'static str,
}

impl std::fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, record, what } = self;
        write!(f, "malformed artifact: {what} in {table}, record {record}")
    }
}

impl std::error::Error for ArtifactError {}

impl ArtifactError {
    pub(crate) fn new(table: &'static str, record: usize, what: &'static str) -> Self {
        Self { table, record, what }
    }

    /// Returns the name of the table that the error is in; `header` for the bytes before all
    /// tables.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Returns the index of the record within the table, counted from 0.
    pub fn record(&self) -> usize {
        self.record
    }
}
