//! Statistics of what was compiled and what was reused.

/// The statistics of a build, or of all builds of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Functions that were compiled in this process.
    pub compiled_functions: usize,
    /// Functions that a farm compiled: see [`Compiler::farm`](crate::Compiler::farm).
    pub farmed_functions: usize,
    /// Modules that a farm compiled.
    pub farmed_modules: usize,
    /// Functions that were reused, with their whole module or one by one.
    pub reused_functions: usize,
    /// Modules whose whole artifact came from the store.
    pub reused_modules: usize,
    /// The part of [`Stats::reused_modules`] whose IR was not built: see [`Lazy`](crate::Lazy).
    pub lazy_modules: usize,
    /// Calls that were replaced by the function's code, in modules that were compiled or reused:
    /// see [`Compiler::inline`](crate::Compiler::inline). Those in [`Stats::lazy_modules`] are not
    /// counted.
    pub inlined_calls: usize,
    /// Entries of the store that were there but could not be used.
    pub corrupt_entries: usize,
    /// Entries of the store that differed when their modules were compiled again: the store had
    /// wrong code.
    pub wrong_entries: usize,
    /// Lazy modules whose key was stored for different IR, because the [`LazyKey`](crate::LazyKey)
    /// left something out. They were built and compiled.
    pub wrong_keys: usize,
    /// Artifacts and last builds that could not be stored.
    pub failed_writes: usize,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            compiled_functions,
            farmed_functions,
            farmed_modules,
            reused_functions,
            reused_modules,
            lazy_modules,
            inlined_calls,
            corrupt_entries,
            wrong_entries,
            wrong_keys,
            failed_writes,
        } = other;
        self.compiled_functions += compiled_functions;
        self.farmed_functions += farmed_functions;
        self.farmed_modules += farmed_modules;
        self.reused_functions += reused_functions;
        self.reused_modules += reused_modules;
        self.lazy_modules += lazy_modules;
        self.inlined_calls += inlined_calls;
        self.corrupt_entries += corrupt_entries;
        self.wrong_entries += wrong_entries;
        self.wrong_keys += wrong_keys;
        self.failed_writes += failed_writes;
    }
}
