//! The text that a module was read from, kept for messages.

/// A file's name and text.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The name for messages, usually the path as the user wrote it.
    pub name: Box<str>,
    /// The whole text.
    pub text: Box<str>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?}, {} bytes)", self.name, self.text.len())
    }
}

impl Source {
    /// Creates a source from its name and text.
    pub fn new(name: impl Into<Box<str>>, text: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Returns the text of line `number`, counted from 1, without its line end; empty if there is
    /// no such line.
    pub fn line(&self, number: u32) -> &str {
        let index = usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1);
        self.text.lines().nth(index).unwrap_or("")
    }
}
