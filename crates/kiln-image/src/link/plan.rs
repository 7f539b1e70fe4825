//! [`Plan`]: the results of all phases. [`plan`] runs the phases.

use kiln_artifact::record::SectionKind;
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::{GlobalTable, KeyRef, Slots, THREAD_LOCAL_SECTION};

use super::assign::{Assignment, assign};
use super::code::{self, CodeLayout};
use super::definitions::Definitions;
use super::error::LinkError;
use super::layout::{Area, Extent, Layout, MAX_SIZE};
use super::lists::PerModule;
use super::place::{Placement, place};
use super::reach::{Bounded, Near, Reach};
use super::resolve::{ExternalDefinition, Resolved, SymbolTable, resolve};
use super::scan::{Need, scan};
use super::sections::NamedSection;
use super::stubs::StubRows;
use super::threads::is_small;
use super::types::check_types;
use super::unwind::{self, UnwindLayout};
use crate::arch::Arch;

/// A linked program that is resolved and laid out, but whose bytes are not yet written. It is
/// immutable.
pub struct Plan<'a> {
    pub(super) artifacts: &'a [Artifact],
    pub(super) arch: Arch,
    pub(super) symbols: SymbolTable,
    pub(super) assignment: Assignment,
    pub(super) placement: Placement<'a>,
    pub(super) unwind: UnwindLayout,
    pub(super) code: CodeLayout<'a>,
    /// Whether the work is done by many threads.
    pub(super) parallel: bool,
    /// Whether pc-relative addresses reach all of the program.
    pub(super) is_near: bool,
    layout: Layout,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("layout", &self.layout)
            .field("slots", self.assignment.external())
            .finish_non_exhaustive()
    }
}

/// Resolves and lays out `artifacts` for a file, in this order. The first slots belong to the
/// globals of `table`. `external` is called once for each undefined symbol, weak definition,
/// replaceable function and global, and returns its definition outside this link, if there is one.
/// (A global of `table` has a slot in either case.) A thread of a pool does this, and writes the
/// plan, alone: it never starts other tasks of its pool meanwhile.
///
/// # Errors
///
/// Every error that can be found without addresses, in order of phases, and within a phase in order
/// of modules.
pub fn plan<'a>(
    artifacts: &'a [Artifact],
    table: &GlobalTable,
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
) -> Result<Plan<'a>, Vec<LinkError>> {
    let input = Input { artifacts, names: &[], definitions: &Definitions::new(artifacts) };
    let arch = check_targets(artifacts, Arch::host().unwrap_or(Arch::X86_64))?;
    plan_within(arch, input, table, external, Reach::of(arch), Purpose::file(is_parallel(artifacts)))
}

/// Resolves and lays out `artifacts` as [`plan()`] does, for memory of this process, with the
/// definitions of `artifacts` as the caller has them. `names` are the names of the first modules,
/// for [code tables](crate::code).
///
/// Nothing reads an index of the unwind rows there, so [`Area::EhFrameHdr`] is empty. The size of
/// the code tables is an upper bound: their exact size is known only when they are written.
///
/// # Errors
///
/// As for [`plan()`].
pub fn plan_in_memory<'a>(
    artifacts: &'a [Artifact],
    names: &'a [&'a str],
    definitions: &Definitions,
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
) -> Result<Plan<'a>, Vec<LinkError>> {
    let input = Input { artifacts, names, definitions };
    let arch = check_targets(artifacts, Arch::host().unwrap_or(Arch::X86_64))?;
    let parallel = is_parallel(artifacts);
    let purpose = Purpose { has_unwind_index: false, code: CodePurpose::Bounded, ..Purpose::file(parallel) };
    plan_within(arch, input, &GlobalTable::new(), external, Reach::of(arch), purpose)
}

/// Whether many threads link these modules, if a client's thread or task does it.
fn is_parallel(artifacts: &[Artifact]) -> bool {
    // Others may wait for this link, also tasks that this thread would start while it waits for
    // other threads of its pool.
    !is_small(artifacts) && rayon::current_thread_index().is_none()
}

/// Plans a program as [`plan`] does. If there are no modules, the program is for `default_arch`.
/// `numbers` are the numbers of the first modules, for code tables.
#[cfg(feature = "write")]
pub(crate) fn plan_for<'a>(
    default_arch: Arch,
    artifacts: &'a [Artifact],
    names: &'a [&'a str],
    numbers: &'a [u32],
    table: &GlobalTable,
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
) -> Result<Plan<'a>, Vec<LinkError>> {
    let arch = check_targets(artifacts, default_arch)?;
    let definitions = &Definitions::new(artifacts);
    let mut plan = plan_within(
        arch,
        Input { artifacts, names, definitions },
        table,
        external,
        Reach::of(arch),
        Purpose::file(!is_small(artifacts)),
    )?;
    plan.code.numbers = numbers;
    Ok(plan)
}

/// The modules of a link.
#[derive(Clone, Copy)]
pub(super) struct Input<'a, 'd> {
    pub(super) artifacts: &'a [Artifact],
    /// The names of the first modules.
    pub(super) names: &'a [&'a str],
    pub(super) definitions: &'d Definitions,
}

/// Runs the phases for modules of one architecture.
pub(super) fn plan_within<'a>(
    arch: Arch,
    input: Input<'a, '_>,
    table: &GlobalTable,
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
    reach: Reach,
    purpose: Purpose,
) -> Result<Plan<'a>, Vec<LinkError>> {
    run_phases(arch, input, table, external, purpose, |program, errors| {
        let near = Near::of(program, reach);
        (scan(arch, input.artifacts, program.symbols, near, purpose.parallel, errors), near)
    })
}

/// The differences between a program in a file, one in memory and a relocatable object, except for
/// the phase `scan`.
#[derive(Clone, Copy)]
pub(super) struct Purpose {
    /// Whether the work is done by many threads.
    pub(super) parallel: bool,
    /// Whether globals have slots.
    pub(super) has_global_slots: bool,
    /// Whether there is an index of the unwind rows.
    pub(super) has_unwind_index: bool,
    pub(super) code: CodePurpose,
}

/// The code tables that are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CodePurpose {
    #[cfg(feature = "write")]
    None,
    /// Tables without gaps.
    Exact,
    /// Tables that are laid out quickly, with gaps.
    Bounded,
}

impl Purpose {
    /// Returns the purpose of a program in a file.
    pub(super) fn file(parallel: bool) -> Self {
        Self { parallel, has_global_slots: true, has_unwind_index: true, code: CodePurpose::Exact }
    }
}

/// Runs the phases. `scan` returns the slots and stubs that each module needs, and which references
/// are sure to reach their targets: all modules share stubs if calls do.
pub(super) fn run_phases<'a>(
    arch: Arch,
    input: Input<'a, '_>,
    table: &GlobalTable,
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
    purpose: Purpose,
    scan: impl FnOnce(Bounded<'_>, &mut Vec<LinkError>) -> (PerModule<Vec<Need>>, Near),
) -> Result<Plan<'a>, Vec<LinkError>> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("plan").entered();
    let Input { artifacts, names, definitions } = input;
    let parallel = purpose.parallel;
    let mut errors = Vec::new();

    let resolved = resolve(artifacts, definitions, table, external, &mut errors);
    errors.extend(check_types(artifacts, &resolved, parallel));
    let Resolved { symbols, sections, mut global_slots, .. } = resolved;
    if !purpose.has_global_slots {
        global_slots.clear();
    }

    let bounded = Bounded { arch, artifacts, names, symbols: &symbols, globals: table.len() };
    let (needs, near) = scan(bounded, &mut errors);

    let assignment = assign(arch, artifacts, &symbols, global_slots, &needs, near.calls);

    let placement = place(arch, artifacts, &assignment, sections.list, &mut errors);

    let mut unwind = unwind::lay_out(arch, artifacts, &placement, &assignment, &mut errors);
    unwind.has_index = purpose.has_unwind_index;

    let stubs = || StubRows::find(arch, artifacts, &symbols, &assignment, &placement);
    let code = match purpose.code {
        CodePurpose::Exact => code::lay_out(artifacts, names, stubs(), parallel),
        CodePurpose::Bounded => code::lay_out_bounded(artifacts, names, stubs()),
        #[cfg(feature = "write")]
        CodePurpose::None => CodeLayout::none(artifacts.len()),
    };

    let mut layout = placement.layout.clone();
    layout[Area::Slots] = assignment.slot_array();
    layout[Area::EhFrame] = unwind.eh_frame();
    layout[Area::EhFrameHdr] = unwind.eh_frame_hdr();
    layout[Area::CodeTables] = code.extent();
    if layout.total() >= MAX_SIZE {
        errors.push({
            let what = "the program".into();
            LinkError::TooLarge { module: None, what, size: layout.total(), limit: MAX_SIZE }
        });
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    debug_assert!(layout.total() <= bounded.exact().program(), "sizes are within their bounds");
    Ok(Plan {
        artifacts,
        arch,
        symbols,
        assignment,
        placement,
        unwind,
        code,
        parallel,
        is_near: near.data,
        layout,
    })
}

/// Returns the architecture that `triple` names for a program without modules; else, and if there
/// is no triple, that of the host.
///
/// # Errors
///
/// [`LinkError::UnsupportedTarget`].
#[cfg(feature = "write")]
pub(crate) fn default_arch(artifacts: &[Artifact], triple: Option<&str>) -> Result<Arch, Vec<LinkError>> {
    match triple {
        Some(triple) if artifacts.is_empty() => {
            let unsupported = || vec![LinkError::UnsupportedTarget { triple: triple.into() }];
            Arch::from_triple(triple).ok_or_else(unsupported)
        }
        _ => Ok(Arch::host().unwrap_or(Arch::X86_64)),
    }
}

/// Returns the architecture that all modules were compiled for, or `default` if there are none.
pub(super) fn check_targets(artifacts: &[Artifact], default: Arch) -> Result<Arch, Vec<LinkError>> {
    let Some(first) = artifacts.first() else { return Ok(default) };
    let expected = first.triple();
    let arch = Arch::from_triple(expected);
    let mut errors = Vec::new();
    if arch.is_none() {
        errors.push(LinkError::UnsupportedTarget { triple: expected.into() });
    }
    for (module, artifact) in artifacts.iter().enumerate().skip(1) {
        if !artifact.has_triple(expected) {
            let triple = artifact.triple().into();
            errors.push(LinkError::TargetMismatch { module, triple, expected: expected.into() });
        }
    }
    arch.filter(|_| errors.is_empty()).ok_or(errors)
}

impl<'a> Plan<'a> {
    /// Returns the size and alignment of each area.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the named sections, in order of the first module that has data in them. Each is a
    /// part of an area.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = NamedSection<'a>> {
        self.placement.sections.iter().map(|section| section.info)
    }

    /// Returns the section of the initial content of thread-local data, if there is some.
    pub fn thread_local_section(&self) -> Option<NamedSection<'a>> {
        self.sections().find(|section| section.name == THREAD_LOCAL_SECTION)
    }

    /// Returns the module and the name of each thread-local symbol that a module refers to, in the
    /// order of [`Fixups::thread_locals`](super::Fixups::thread_locals).
    pub fn thread_local_uses(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let modules = self.artifacts.iter().enumerate();
        modules.flat_map(|(module, artifact)| {
            let relocs = artifact.read_only_relocs().iter();
            let relocs = relocs.filter(|reloc| reloc.kind() == RelocKind::ThreadLocal);
            relocs.map(move |reloc| (module, artifact.name(&artifact.symbols()[reloc.symbol.get() as usize])))
        })
    }

    /// Returns the size and alignment of the part of `area` that is in no named section, which is
    /// at the start of the area.
    pub fn unnamed(&self, area: Area) -> Extent {
        match area {
            Area::Rodata | Area::Relro | Area::Data => self.placement.unnamed[area],
            _ => self.layout[area],
        }
    }

    /// Returns the external slots, in order. If they are [in memory](Self::stored_slots), the slot
    /// array begins with them. Internal slots, which [`Fixups`](super::Fixups) fill, follow.
    pub fn slots(&self) -> &Slots {
        self.assignment.external()
    }

    /// Returns the number of external slots that are in memory: all, or none if all code reaches
    /// globals directly.
    pub fn stored_slots(&self) -> usize {
        self.assignment.stored()
    }

    /// Returns the number of internal slots.
    pub fn internal_slot_count(&self) -> usize {
        self.assignment.internal().len()
    }

    /// Returns the architecture of the program.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Returns the modules, in order of their numbers.
    pub fn artifacts(&self) -> &'a [Artifact] {
        self.artifacts
    }

    /// Returns the area, and the offset in it, where the byte at `offset` of `section` of module
    /// `module` is placed. `None` if there is no such module, or if `section` is
    /// `SectionKind::Undefined`, the section of imports.
    pub fn locate(&self, module: usize, section: SectionKind, offset: u64) -> Option<(Area, u64)> {
        self.artifacts.get(module)?;
        self.placement.locate(module, section, offset)
    }

    /// Returns the offset of the code of a module in [`Area::Text`], in bytes.
    #[cfg(any(feature = "dwarf", feature = "write"))]
    pub(crate) fn text_of(&self, module: usize) -> u64 {
        self.placement.modules[module].text.start
    }

    /// Whether symbol `symbol` of module `module` is the definition to which its name resolves.
    pub(crate) fn is_definition(&self, module: usize, symbol: usize) -> bool {
        let id = self.symbols.of_module(module)[symbol];
        self.symbols.definition(id) == Some((module as u32, symbol as u32))
    }
}
