//! The options for writing an object.

/// Options for writing a relocatable object.
#[derive(Clone, Debug, Default)]
pub struct ObjectOptions {
    /// The target triple of an object without modules; the host's if `None`. Modules name their
    /// own.
    pub triple: Option<Box<str>>,
    /// Leaves out local symbols, so that debuggers and profilers know fewer functions by name.
    pub strip: bool,
    /// Adds debug information: lines, functions and variables of the modules that have lines.
    #[cfg(feature = "dwarf")]
    pub debug: bool,
    /// The way in which other objects of the program give the globals their addresses.
    pub globals: GlobalSymbols,
}

/// The way in which the other objects of a program give globals their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GlobalSymbols {
    /// By an array of pointers under this name, which the program fills before it calls the code:
    /// slot *i* is global *i* of the table. The array is zero at first, and writable.
    ///
    /// In C, `extern void *kiln_slots[];`. Two objects of one program need two names.
    Array(Box<str>),
    /// By symbols: the key of a global is the name of a symbol that another object defines, and the
    /// global is at the symbol's address. So nothing is filled, and data can hold the address of a
    /// global.
    Named,
}

impl Default for GlobalSymbols {
    /// Returns an array called `kiln_slots`, as images have it.
    fn default() -> Self {
        Self::Array(crate::base::SLOTS_SYMBOL.into())
    }
}
