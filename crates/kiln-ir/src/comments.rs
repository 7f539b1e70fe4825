//! The comments of a text, and their places.
//!
//! A listing may have a comment after nearly every instruction. So the texts of all comments of a
//! function are in one string, with a small record for each comment in one vector. Reading many
//! comments then takes two allocations.
//!
//! Invariant: the ends of comments are in ascending order, and at character boundaries of the text.

use crate::symbol::SymbolId;

/// The place of a comment in a function. Blocks and instructions are counted in layout order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Before the first block, among the declarations.
    Declarations,
    /// After the header of this block.
    Block(u32),
    /// After this instruction.
    Inst(u32),
    /// After the function.
    End,
}

/// A comment in the text of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comment<'m> {
    /// Its place in the function.
    pub anchor: Anchor,
    /// Whether code precedes it on its line. Only the first comment at a place can be trailing.
    /// With [`Anchor::Declarations`], that code is the head of the function, which ends in `{`.
    pub trailing: bool,
    /// Its line in the file; 0 if the module was not read from text.
    pub line: u32,
    /// Its text from `;` to the end of the line.
    pub text: &'m str,
}

impl<'m> Comment<'m> {
    /// Returns the comment as a command, if it is a `run` or `print` command.
    pub fn run_line(&self) -> Option<RunLine<'m>> {
        let text = self.text.trim_start_matches([' ', ';']).trim_end();
        let tail = text.strip_prefix("run").or_else(|| text.strip_prefix("print"))?;
        (tail.is_empty() || tail.starts_with(':')).then_some(RunLine { line: self.line, text })
    }
}

/// A comment that is a command to call the function before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLine<'m> {
    /// Its line in the file.
    pub line: u32,
    /// Its text without leading `;` and spaces: `run: %f(1) == 2`.
    pub text: &'m str,
}

/// The comments in a function and directly after it, in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Comments {
    text: String,
    marks: Vec<CommentMark>,
}

/// A comment without its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommentMark {
    pub(crate) anchor: Anchor,
    pub(crate) trailing: bool,
    pub(crate) line: u32,
    /// The end of its text in the joined texts. Its text starts where that of the previous comment
    /// ends.
    pub(crate) end: u32,
}

impl Comments {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(count: usize, text: usize) -> Self {
        Self { text: String::with_capacity(text), marks: Vec::with_capacity(count) }
    }

    /// Creates a list from parts that were checked to keep the invariant.
    pub(crate) fn of(text: String, marks: Vec<CommentMark>) -> Self {
        Self { text, marks }
    }

    /// Adds a comment after the others.
    ///
    /// # Panics
    ///
    /// If all texts together have 4 GiB or more.
    pub fn push(&mut self, comment: Comment<'_>) {
        let Comment { anchor, trailing, line, text } = comment;
        self.text.push_str(text);
        let end = u32::try_from(self.text.len()).expect("comments of less than 4 GiB");
        self.marks.push(CommentMark { anchor, trailing, line, end });
    }

    /// Returns the number of comments.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Tells whether there are no comments.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Returns the last comment.
    pub fn last(&self) -> Option<Comment<'_>> {
        let (mark, before) = self.marks.split_last()?;
        let start = before.last().map_or(0, |mark| mark.end);
        Some(mark.comment(&self.text, start))
    }

    /// Iterates over the comments in order.
    pub fn iter(&self) -> CommentsIter<'_> {
        CommentsIter { text: &self.text, start: 0, marks: self.marks.iter() }
    }

    /// Returns the texts of all comments, joined.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl CommentMark {
    fn comment<'m>(&self, text: &'m str, start: u32) -> Comment<'m> {
        let Self { anchor, trailing, line, end } = *self;
        Comment { anchor, trailing, line, text: &text[start as usize..end as usize] }
    }
}

impl std::fmt::Debug for Comments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'m> IntoIterator for &'m Comments {
    type Item = Comment<'m>;
    type IntoIter = CommentsIter<'m>;

    fn into_iter(self) -> CommentsIter<'m> {
        self.iter()
    }
}

/// Iterator over [`Comments`].
#[derive(Clone)]
pub struct CommentsIter<'m> {
    text: &'m str,
    start: u32,
    marks: std::slice::Iter<'m, CommentMark>,
}

impl std::fmt::Debug for CommentsIter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'m> Iterator for CommentsIter<'m> {
    type Item = Comment<'m>;

    fn next(&mut self) -> Option<Comment<'m>> {
        let mark = self.marks.next()?;
        let comment = mark.comment(self.text, self.start);
        self.start = mark.end;
        Some(comment)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.marks.size_hint()
    }
}

impl ExactSizeIterator for CommentsIter<'_> {}

/// A comment outside of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleComment {
    /// Its place in the file.
    pub anchor: ModuleAnchor,
    /// Its line in the file; 0 if the module was not read from text.
    pub line: u32,
    /// Its text from `;` to the end of the line. An empty text stands for an empty line after the
    /// previous comment.
    pub text: Box<str>,
}

/// The place of a comment outside of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleAnchor {
    /// Above a header line.
    Header,
    /// Above the item that defines this symbol.
    Above(SymbolId),
    /// At the end of the file.
    End,
}
