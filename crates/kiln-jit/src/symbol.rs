//! [`Symbol`]: a definition that is published.

use std::sync::Arc;

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_image::FunctionText;

use crate::unit::UnitId;

/// A definition that is published under a name.
#[derive(Debug)]
pub(crate) struct Symbol {
    pub(crate) unit: UnitId,
    artifact: Artifact,
    number: u32,
    /// Its name, if it is known already: whoever looks it up reads that alone.
    name: Option<Arc<str>>,
    /// The address of its code or data.
    pub(crate) definition: u64,
    /// The address under which it is known: for a replaceable function, that of its stub.
    pub(crate) address: u64,
}

impl Symbol {
    pub(crate) fn new(unit: UnitId, artifact: &Artifact, number: usize, definition: u64) -> Self {
        let number = number as u32;
        Self { unit, artifact: artifact.clone(), number, name: None, definition, address: definition }
    }

    /// Returns it with its name.
    pub(crate) fn with_name(self, name: Arc<str>) -> Self {
        Self { name: Some(name), ..self }
    }

    fn record(&self) -> &SymbolRecord {
        &self.artifact.symbols()[self.number as usize]
    }

    pub(crate) fn kind(&self) -> SymbolKind {
        self.record().kind()
    }

    /// Returns the size of its code or data, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.record().size.get() as usize
    }

    pub(crate) fn linkage(&self) -> Linkage {
        self.record().linkage()
    }

    /// Whether it is a function whose type is recorded.
    pub(crate) fn has_type(&self) -> bool {
        self.record().signature().is_some()
    }

    /// Returns the recorded type, if it is a function that has one.
    pub(crate) fn recorded_type(&self) -> Option<&str> {
        self.artifact.signature(self.record().signature()?)
    }
}

impl FunctionText for Symbol {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.artifact.name(self.record()))
    }

    fn signature(&self) -> &str {
        self.recorded_type().unwrap_or_default()
    }
}
