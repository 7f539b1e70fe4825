//! The text that a module was read from, kept for messages.

use std::sync::OnceLock;

use crate::positions::Positions;

/// A file's name and text.
#[derive(Clone)]
pub struct Source {
    /// The name for messages, usually the path as the user wrote it.
    pub name: Box<str>,
    /// The text. It must not change, because `positions` is an index of it.
    pub(crate) text: Box<str>,
    /// The index of the text. It is made when a location is first looked up; most texts never need
    /// it.
    positions: OnceLock<Positions>,
    /// If the text is to be debugged as it is: the folder that its name is relative to.
    pub(crate) debugged: Option<Box<str>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Eq for Source {}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?}, {} bytes)", self.name, self.text.len())
    }
}

impl Source {
    /// Creates a source from its name and text.
    pub fn new(name: impl Into<Box<str>>, text: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), text: text.into(), positions: OnceLock::new(), debugged: None }
    }

    /// Makes the text itself the one that a debugger shows: each function's head and instructions
    /// get source locations of their own, which stand for their lines here, and each value `v7` of
    /// a scalar type is a variable of that name. `directory` is the folder that the text's name is
    /// relative to; it may be empty.
    ///
    /// A text with `lines` items has a line table already, and keeps it.
    ///
    /// ```
    /// use kiln_ir::{Source, Target, parse};
    ///
    /// let text = "function %f() -> i32 {\nblock0:\n  v0 = iconst.i32 1\n\n  return v0\n}";
    /// let source = Source::new("f.clif", text).debugged("/src");
    /// let module = parse(source.into(), &Target::host()).unwrap();
    /// let lines: Vec<_> = module.lines.iter().map(|entry| entry.line).collect();
    /// assert_eq!(lines, [1, 3, 5]);
    /// assert_eq!(&*module.functions[0].variables[0].name, "v0");
    /// ```
    #[must_use]
    pub fn debugged(self, directory: impl Into<Box<str>>) -> Self {
        Self { debugged: Some(directory.into()), ..self }
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns line `number`, counted from 1, without its line end; empty if there is no such line.
    pub fn line(&self, number: u32) -> &str {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let Some((start, end)) = index.checked_sub(1).and_then(|index| self.line_range(index)) else {
            return "";
        };
        &self.text[start..end]
    }

    /// Returns the byte offsets of the start and end of line `index`, counted from 0, without its
    /// line end.
    pub(crate) fn line_range(&self, index: usize) -> Option<(usize, usize)> {
        let positions = self.positions();
        let start = positions.line_start(&self.text, index)?;
        let next = positions.line_start(&self.text, index.saturating_add(1));
        let end = next.map_or(self.text.len(), |next| {
            let line = &self.text[start..next - 1];
            start + line.strip_suffix('\r').unwrap_or(line).len()
        });
        Some((start, end))
    }

    /// Returns the index of the text.
    pub(crate) fn positions(&self) -> &Positions {
        self.positions.get_or_init(|| Positions::new(&self.text))
    }
}
