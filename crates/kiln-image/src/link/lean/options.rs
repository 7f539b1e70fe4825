//! The options for a leaner program.

/// Options for [`lean`](super::lean). By default nothing changes.
#[derive(Clone, Debug, Default)]
pub struct LeanOptions {
    /// Leaves out functions and data that no root reaches; `None` keeps everything.
    pub roots: Option<Roots>,
    /// Makes equal functions one. A function stays apart if its address can be seen, because
    /// addresses may be compared: if code or data takes it, or if it is exported, preemptible or
    /// replaceable. A debugger, a backtrace and a profiler know the code by one name only.
    pub fold: bool,
    /// Names of functions in the order in which their code is to stand, before that of all other
    /// functions; names that no function has are ignored. Private functions count, too.
    pub order: Vec<Box<str>>,
}

/// The functions and data that a program is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Everything that is exported, preemptible or replaceable.
    Exports,
    /// The definitions of these names, which must be visible to other modules.
    Names(Vec<Box<str>>),
}
