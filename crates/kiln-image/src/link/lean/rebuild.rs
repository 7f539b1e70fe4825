//! Makes an artifact of each part of a module, from the artifact of the module.
//!
//! Calls inside of a module that the compiler resolved become relocations again, because their
//! distances change. Everything else of a function moves as it is: streams are relative to the
//! function's start, and the few tables that are not are shifted.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::debug::{LineWriter, write_variable};
use kiln_artifact::record::{
    FunctionRecord, LabelledFunction, Linkage, NONE, NamedData, Reloc, SectionKind, SourceFile, StackMap,
    Summary, SymbolRecord,
};
use kiln_artifact::{Artifact, Contents, Table};
use zerocopy::little_endian::U32;

use super::nodes::{NodeId, Nodes, Reference, is_context, part, returns};
use super::order::{Part, Parts};
use super::versions::Versions;

/// The results of the phases before.
pub(super) struct Rebuild<'r, 'a> {
    pub(super) nodes: &'r Nodes<'a>,
    pub(super) parts: &'r Parts,
    /// The node that takes the place of each node.
    pub(super) places: &'r [NodeId],
    /// For each node, the nodes whose places it takes.
    folded: HashMap<NodeId, Vec<NodeId>, FastHash>,
    /// The places in nodes that other parts refer to by names of their own.
    aliases: BTreeSet<Alias>,
    level: Option<OfLevel<'r>>,
}

/// Something that another part refers to, though it has no name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Alias {
    pub(super) node: NodeId,
    pub(super) kind: AliasKind,
}

/// The part of a node that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum AliasKind {
    /// A place in a private node: the offset in it.
    Place(u64),
    /// The slot of a private function of which there are several bodies.
    Entry,
    /// The body that was made for a level.
    Body(u8),
}

impl Alias {
    /// Returns the name by which parts refer to it. No name of a module has a zero.
    pub(super) fn name(self) -> String {
        let node = self.node;
        match self.kind {
            AliasKind::Place(inside) => format!("\0{node}+{inside}"),
            AliasKind::Entry => format!("\0{node}"),
            AliasKind::Body(level) => format!("\0{node}@{level}"),
        }
    }
}

/// The program that a [`Rebuild`] is of, if there are several.
#[derive(Clone, Copy)]
pub(super) struct OfLevel<'r> {
    pub(super) versions: &'r Versions,
    pub(super) level: u8,
    /// Added to the names of functions.
    pub(super) name: &'r str,
}

impl<'r, 'a> Rebuild<'r, 'a> {
    pub(super) fn new(nodes: &'r Nodes<'a>, parts: &'r Parts, places: &'r [NodeId]) -> Self {
        let mut this = Self::of_level(nodes, parts, places, None);
        this.aliases = this.wanted();
        this
    }

    /// Makes the rebuild of one of several programs. Its aliases are those that all of them
    /// [want](Self::wanted).
    pub(super) fn of_level(
        nodes: &'r Nodes<'a>,
        parts: &'r Parts,
        places: &'r [NodeId],
        level: Option<OfLevel<'r>>,
    ) -> Self {
        let mut folded: HashMap<NodeId, Vec<NodeId>, FastHash> = HashMap::default();
        for (node, &place) in (0..).zip(places) {
            if node != place {
                folded.entry(place).or_default().push(node);
            }
        }
        Self { nodes, parts, places, folded, aliases: BTreeSet::new(), level }
    }

    /// Sets the places in nodes that other parts refer to.
    pub(super) fn with_aliases(self, aliases: BTreeSet<Alias>) -> Self {
        Self { aliases, ..self }
    }

    /// Returns what the parts need of each other, and of the parts of other programs.
    pub(super) fn wanted(&self) -> BTreeSet<Alias> {
        let mut aliases = BTreeSet::new();
        for part in &self.parts.list {
            for &node in part.functions.iter().chain(&part.objects) {
                let add = |reference| aliases.extend(self.alias_of(part, node, &reference));
                self.nodes.references(node, add);
            }
        }
        aliases
    }

    /// Whether a reference from `from` is one to the slot of a function that has several bodies. A
    /// body calls the others of its level directly.
    fn is_entry(&self, from: NodeId, reference: &Reference) -> bool {
        let Some((target, of)) = reference.node.zip(self.level) else { return false };
        of.versions.differs(target)
            && !(of.versions.differs(from) && reference.is_call && !of.versions.is_replaceable(target))
    }

    /// Returns what a reference to a function with several bodies means, if its name does not say
    /// it.
    fn version_of(&self, of: OfLevel<'_>, target: NodeId, is_entry: bool) -> Option<Alias> {
        let is_public = of.versions.is_public(target);
        if is_entry {
            return (!is_public).then_some(Alias { node: target, kind: AliasKind::Entry });
        }
        let body = of.versions.body(target, of.level);
        Some(Alias { node: target, kind: AliasKind::Body(body) })
    }

    /// Returns the place that a reference from a part means, if it is in another part and the name
    /// of the reference's symbol does not lead to it.
    fn alias_of(&self, part: &Part, from: NodeId, reference: &Reference) -> Option<Alias> {
        let node = reference.node?;
        if let Some(of) = self.level.filter(|of| of.versions.differs(node)) {
            return self.version_of(of, node, self.is_entry(from, reference));
        }
        let target = self.places[node as usize];
        let own = self.parts.list.get(self.parts.of_node[target as usize] as usize);
        let here = own.is_some_and(|own| std::ptr::eq(part, own));
        let module = &self.nodes.modules[part.module];
        let record = &module.artifact.symbols()[reference.symbol as usize];
        let by_name = match record.linkage() {
            Linkage::Local => false,
            Linkage::Replaceable => !reference.is_own,
            // The module's own definition may not be the one in force.
            _ => !reference.is_own || self.nodes.is_definition(part.module, reference.symbol),
        };
        if here || by_name {
            return None;
        }
        // A function that takes the place of another one is meant at its start.
        let inside = if node == target { record.offset.get() - module.start(node) } else { 0 };
        Some(Alias { node: target, kind: AliasKind::Place(inside) })
    }

    /// Returns the places in a node that other parts refer to.
    fn aliases_of(&self, node: NodeId) -> impl Iterator<Item = Alias> {
        let all = |kind| Alias { node, kind };
        let level = self.level.map_or(0, |of| of.level);
        let all = self.aliases.range(all(AliasKind::Place(0))..=all(AliasKind::Body(u8::MAX))).copied();
        all.filter(move |alias| match alias.kind {
            AliasKind::Body(body) => body == level,
            AliasKind::Place(_) | AliasKind::Entry => level == 0,
        })
    }

    /// Whether a part has functions with several bodies, or refers to some.
    fn is_touched(&self, part: &Part) -> bool {
        let Some(of) = self.level else { return false };
        part.functions.iter().chain(&part.objects).any(|&node| {
            let mut found = of.versions.differs(node);
            self.nodes.references(node, |reference| {
                found |= reference.node.is_some_and(|target| of.versions.differs(target));
            });
            found
        })
    }

    /// Whether a part is its module as it was.
    fn is_unchanged(&self, part: &Part) -> bool {
        let module = &self.nodes.modules[part.module];
        let own = part.functions.len() + part.objects.len();
        let is_plain =
            |node: NodeId| self.aliases_of(node).next().is_none() && !self.folded.contains_key(&node);
        let is_plain = own == module.len()
            && (module.first..).take(module.len()).all(is_plain)
            && !self.is_touched(part);
        is_plain || module.is_whole
    }

    /// Makes the artifact of a part.
    pub(super) fn artifact(&self, part: &Part) -> Artifact {
        let artifact = self.nodes.modules[part.module].artifact;
        if self.is_unchanged(part) {
            return artifact.clone();
        }
        let mut writer = PartWriter {
            rebuild: self,
            part,
            artifact,
            contents: Contents::default(),
            symbols: HashMap::default(),
            aliases: HashMap::default(),
            signatures: HashMap::default(),
            locations: BTreeSet::new(),
        };
        writer.write();
        writer.contents.finish()
    }
}

/// Makes the artifact of one part.
struct PartWriter<'w, 'r, 'a> {
    rebuild: &'w Rebuild<'r, 'a>,
    part: &'w Part,
    artifact: &'a Artifact,
    contents: Contents,
    /// The new numbers of the module's symbols.
    symbols: HashMap<u32, u32, FastHash>,
    /// The numbers of the symbols of places in other parts.
    aliases: HashMap<Alias, u32, FastHash>,
    /// The new numbers of signatures, by text.
    signatures: HashMap<&'a str, u32, FastHash>,
    /// The source locations of the part's functions.
    locations: BTreeSet<u32>,
}

impl<'a> PartWriter<'_, '_, 'a> {
    fn write(&mut self) {
        let (artifact, contents) = (self.artifact, &mut self.contents);
        let old = artifact.summary();
        let (triple, producer) = (contents.string(artifact.triple()), contents.string(artifact.producer()));
        contents.summary = Summary { triple, producer, zeroed_size: 0.into(), ..*old };
        contents.features = artifact.features().map(|feature| contents.string(feature)).collect();
        contents.cie = artifact.cie().to_vec();
        contents.nops = artifact.nops().to_vec();

        // Places first: symbols and relocations depend on them.
        let mut places = HashMap::<NodeId, u64, FastHash>::default();
        for &node in &self.part.functions {
            let start = self.place_function(node);
            places.insert(node, start);
        }
        for &node in &self.part.objects {
            let start = self.place_object(node);
            places.insert(node, start);
        }
        for &node in self.part.functions.iter().chain(&self.part.objects) {
            self.add_symbols(node, places[&node]);
        }
        for (number, &node) in self.part.functions.iter().enumerate() {
            self.add_function(number, node, places[&node]);
        }
        for &node in &self.part.objects {
            self.add_object(node, places[&node]);
        }
        self.add_lines();
    }

    /// Copies the code of a function, and returns its start.
    fn place_function(&mut self, node: NodeId) -> u64 {
        let record = self.record(node);
        let text = &mut self.contents.text;
        let start = text.len().next_multiple_of(record.align.get().max(1) as usize);
        text.resize(start, self.rebuild.nodes.arch.trap_byte());
        let from = record.start.get() as usize;
        text.extend_from_slice(&self.artifact.text()[from..from + record.len.get() as usize]);
        start as u64
    }

    fn record(&self, node: NodeId) -> &'a FunctionRecord {
        let module = &self.rebuild.nodes.modules[self.part.module];
        &module.functions()[module.function(node).expect("a function's node")]
    }

    /// Copies the bytes of a data object, and returns its start.
    fn place_object(&mut self, node: NodeId) -> u64 {
        let object = *self.rebuild.nodes.modules[self.part.module].object(node);
        let summary = self.artifact.summary();
        let (old, new, align) = match object.section {
            SectionKind::ReadOnly => {
                (self.artifact.read_only(), &mut self.contents.read_only, summary.read_only_align)
            }
            SectionKind::Writable => {
                (self.artifact.writable(), &mut self.contents.writable, summary.writable_align)
            }
            _ => (&[][..], &mut Vec::new(), summary.zeroed_align),
        };
        let len = object.end - object.start;
        let size = match object.section {
            SectionKind::Zeroed => self.contents.summary.zeroed_size.get(),
            _ => new.len() as u64,
        };
        let run = object.run.map(|run| &self.artifact.named_data()[run as usize]);
        // An object has at least the alignment that its old place shows.
        let align = match (run, object.start.trailing_zeros()) {
            (Some(run), _) => u64::from(run.align.get()),
            (None, zeros) => u64::from(align.get()).min(1 << zeros.min(12)),
        };
        // Runs do not touch each other, nor what is in no section.
        let gap = u64::from(run.is_some() && size > 0);
        let start = (size + gap).next_multiple_of(align);
        if object.section == SectionKind::Zeroed {
            self.contents.summary.zeroed_size = (start + len).into();
            return start;
        }
        new.resize(start as usize, 0);
        new.extend_from_slice(&old[object.start as usize..object.end as usize]);
        if let Some(run) = run {
            let name = self.contents.string(self.artifact.section_name(run));
            self.contents.named_data.push(NamedData { name, start: start.into(), ..*run });
        }
        start
    }

    /// Returns the new number of a signature.
    fn signature(&mut self, text: Option<&'a str>) -> u32 {
        let Some(text) = text else { return NONE };
        let contents = &mut self.contents;
        *self.signatures.entry(text).or_insert_with(|| {
            let text = contents.string(text);
            contents.signatures.push(text);
            contents.signatures.len() as u32 - 1
        })
    }

    /// Adds a symbol that is like `record` of `artifact`, under this name and at this offset.
    fn push_symbol(&mut self, artifact: &'a Artifact, record: &SymbolRecord, name: &str, offset: u64) -> u32 {
        let signature = record.signature().and_then(|index| artifact.signature(index));
        let signature = self.signature(signature).into();
        let name = self.contents.string(name);
        self.contents.symbols.push(SymbolRecord { name, offset: offset.into(), signature, ..*record });
        self.contents.symbols.len() as u32 - 1
    }

    /// Adds the symbols of a node that is at `start`: its own, the visible ones of those whose
    /// place it takes, and the one by which other parts know it.
    fn add_symbols(&mut self, node: NodeId, start: u64) {
        let nodes = self.rebuild.nodes;
        let module = &nodes.modules[self.part.module];
        let old = module.start(node);
        let mut first = None;
        for (symbol, record) in module.symbols_of(node) {
            let (record, name) = self.versioned(node, record);
            let number = self.push_symbol(self.artifact, &record, &name, start + (record.offset.get() - old));
            self.symbols.insert(symbol, number);
            first.get_or_insert(record);
        }
        for &folded in self.rebuild.folded.get(&node).into_iter().flatten() {
            let other = &nodes.modules[nodes.module_of(folded)];
            for (_, record) in
                other.symbols_of(folded).filter(|(_, record)| record.linkage() != Linkage::Local)
            {
                self.push_symbol(other.artifact, record, other.artifact.name(record), start);
            }
        }
        let Some(record) = first else { return };
        for alias in self.rebuild.aliases_of(node) {
            let (linkage, inside) = match alias.kind {
                AliasKind::Place(inside) => (Linkage::Hidden, inside),
                AliasKind::Entry => (Linkage::Replaceable, 0),
                AliasKind::Body(_) => (Linkage::Hidden, 0),
            };
            let record = SymbolRecord { linkage: linkage as u8, size: 0.into(), libcall: 0, ..record };
            let number = self.push_symbol(self.artifact, &record, &alias.name(), start + inside);
            self.aliases.insert(alias, number);
        }
    }

    /// Returns the symbol of a node in this part, and its name. Of a function with several bodies,
    /// an exported name is that of the slot, and each body but the first has a name with its level.
    fn versioned(&self, node: NodeId, record: &SymbolRecord) -> (SymbolRecord, Cow<'a, str>) {
        let name = self.artifact.name(record);
        let Some(of) = self.rebuild.level.filter(|of| of.versions.differs(node)) else {
            return (*record, name.into());
        };
        let linkage = match of.level {
            0 if of.versions.is_public(node) => Linkage::Replaceable,
            0 => return (*record, name.into()),
            _ => Linkage::Local,
        };
        let record = SymbolRecord { linkage: linkage as u8, ..*record };
        match of.level {
            0 => (record, name.into()),
            _ if name.is_empty() => (record, name.into()),
            _ => (record, format!("{name}.{}", of.name).into()),
        }
    }

    /// Returns the new number of the symbol of a reference.
    fn symbol(&mut self, from: NodeId, reference: Reference) -> u32 {
        let rebuild = self.rebuild;
        let (nodes, artifact) = (rebuild.nodes, self.artifact);
        let record = &artifact.symbols()[reference.symbol as usize];
        if let Some(alias) = rebuild.alias_of(self.part, from, &reference) {
            if let Some(&known) = self.aliases.get(&alias) {
                return known;
            }
            let number = self.push_import(record, &alias.name());
            self.aliases.insert(alias, number);
            return number;
        }
        if let Some(&known) = self.symbols.get(&reference.symbol) {
            return known;
        }
        // A private function in whose place another one of this part is.
        let place = reference.node.map(|node| rebuild.places[node as usize]);
        if record.linkage() == Linkage::Local
            && let Some(place) = place
        {
            let module = &nodes.modules[self.part.module];
            let own = module.symbols_of(place).next().map(|(symbol, _)| symbol);
            let number = own.and_then(|symbol| self.symbols.get(&symbol)).copied();
            return number.expect("the symbols of the part were added");
        }
        let number = self.push_import(record, artifact.name(record));
        self.symbols.insert(reference.symbol, number);
        number
    }

    fn push_import(&mut self, record: &SymbolRecord, name: &str) -> u32 {
        let (linkage, section) = (Linkage::Import as u8, SectionKind::Undefined as u8);
        let record = SymbolRecord { linkage, section, size: 0.into(), ..*record };
        self.push_symbol(self.artifact, &record, name, 0)
    }

    /// Adds the tables and the relocations of a function.
    fn add_function(&mut self, number: usize, node: NodeId, start: u64) {
        let artifact = self.artifact;
        let nodes = self.rebuild.nodes;
        let function = nodes.modules[self.part.module].function(node).expect("a function's node");
        let record = &artifact.functions()[function];
        let (old, len) = (record.start.get(), record.len.get());
        let shifted = |offset: u32| offset.wrapping_sub(old).wrapping_add(start as u32);
        let symbol = self.symbols[&record.symbol.get()];
        let contents = &mut self.contents;
        let streams = [&contents.traps, &contents.source_ranges, &contents.call_sites, &contents.unwind];
        let [traps, source_ranges, call_sites, unwind] = streams.map(|bytes| U32::new(bytes.len() as u32));
        let mut new = *record;
        (new.symbol, new.start) = (symbol.into(), (start as u32).into());
        (new.traps_start, new.source_ranges_start, new.call_sites_start) = (traps, source_ranges, call_sites);
        (new.unwind_start, new.handlers_start) = (unwind, (contents.handlers.len() as u32).into());
        new.references_start = (contents.references.len() as u32).into();
        let rows = record.unwind_start.get() as usize;
        contents.unwind.extend_from_slice(&artifact.unwind()[rows..rows + record.unwind_len.get() as usize]);
        contents.traps.extend_from_slice(artifact.stream_of(function, Table::Traps));
        contents.source_ranges.extend_from_slice(artifact.stream_of(function, Table::SourceRanges));
        contents.call_sites.extend_from_slice(artifact.stream_of(function, Table::CallSites));
        contents.handlers.extend(artifact.handlers_of(function).iter().map(|handler| {
            let target =
                if is_context(handler) { handler.target } else { shifted(handler.target.get()).into() };
            kiln_artifact::record::Handler { target, ..*handler }
        }));
        for map in returns(artifact.stack_maps(), old, len, |map| map.return_offset.get()) {
            let from = map.entries_start.get() as usize;
            let entries_start = (contents.stack_map_entries.len() as u32).into();
            let return_offset = shifted(map.return_offset.get()).into();
            contents.stack_maps.push(StackMap { return_offset, entries_start, ..*map });
            let entries = &artifact.stack_map_entries()[from..from + map.entries_len.get() as usize];
            contents.stack_map_entries.extend_from_slice(entries);
        }
        for call in returns(artifact.patchable_calls(), old, len, |call| call.end.get()) {
            let end = shifted(call.end.get()).into();
            contents.patchable_calls.push(kiln_artifact::record::PatchableCall { end, ..*call });
        }
        let labels = artifact.labels_stream_of(function);
        let variables: Vec<_> = artifact.variables_of(function).collect();
        if !labels.is_empty() || !variables.is_empty() {
            contents.labelled_functions.push(LabelledFunction {
                function: (number as u32).into(),
                labels_start: (contents.labels.len() as u32).into(),
                variables_start: (contents.variables.len() as u32).into(),
            });
            contents.labels.extend_from_slice(labels);
            let mut before = 0;
            for variable in variables {
                write_variable(&mut contents.variables, before, variable);
                before = variable.label;
            }
        }
        self.locations.insert(record.base_location.get());
        self.locations.extend(artifact.source_ranges_of(function).map(|range| range.location));
        self.add_code_relocs(node, record, start);

        // Those that are left: a call that was optimized away refers to nothing.
        let (from, count) = (record.references_start.get() as usize, record.references_len.get() as usize);
        let references = &artifact.references()[from..from + count];
        let left = references.iter().filter_map(|symbol| self.symbols.get(&symbol.get()));
        let left: Vec<U32> = left.map(|symbol| U32::new(*symbol)).collect();
        new.references_len = (left.len() as u32).into();
        self.contents.references.extend(left);
        self.contents.functions.push(new);
    }

    /// Adds the relocations of a function, also for the calls that were resolved.
    fn add_code_relocs(&mut self, node: NodeId, record: &FunctionRecord, start: u64) {
        let (artifact, nodes, number) = (self.artifact, self.rebuild.nodes, self.part.module);
        let old = u64::from(record.start.get());
        let mut relocs = Vec::new();
        for reloc in part(artifact.text_relocs(), record, |reloc| reloc.offset.get()) {
            let reference = nodes.reference_of(number, reloc);
            let flags = self.flags(node, &reference, reloc.flags);
            let symbol = self.symbol(node, reference).into();
            let offset = (reloc.offset.get() - old + start).into();
            relocs.push(Reloc { offset, symbol, flags, ..*reloc });
        }
        for call in part(artifact.resolved_calls(), record, |call| call.offset.get().into()) {
            let at = u64::from(call.offset.get()) - old + start;
            let width = call.kind().width();
            self.contents.text[at as usize..at as usize + width].copy_from_slice(&call.original[..width]);
            let reference = nodes.call_of(number, call);
            let flags = self.flags(node, &reference, Reloc::OWN);
            let symbol = self.symbol(node, reference).into();
            relocs.push(Reloc {
                offset: at.into(),
                addend: call.addend,
                symbol,
                kind: call.kind,
                flags,
                reserved: [0; 2],
            });
        }
        relocs.sort_by_key(|reloc| reloc.offset.get());
        self.contents.text_relocs.extend(relocs);
    }

    /// Returns the flags of a reference: one to a slot does not mean the body in this part.
    fn flags(&self, from: NodeId, reference: &Reference, flags: u8) -> u8 {
        if self.rebuild.is_entry(from, reference) { flags & !Reloc::OWN } else { flags }
    }

    /// Adds the relocations of a data object.
    fn add_object(&mut self, node: NodeId, start: u64) {
        let nodes = self.rebuild.nodes;
        let module = &nodes.modules[self.part.module];
        let object = module.object(node);
        for (section, reloc) in module.relocs_of(object) {
            let symbol = self.symbol(node, nodes.reference_of(self.part.module, reloc)).into();
            let offset = (reloc.offset.get() - object.start + start).into();
            let reloc = Reloc { offset, symbol, ..**reloc };
            match section {
                SectionKind::ReadOnly => self.contents.read_only_relocs.push(reloc),
                _ => self.contents.writable_relocs.push(reloc),
            }
        }
    }

    /// Adds the source files, and the lines of the part's functions.
    fn add_lines(&mut self) {
        let (artifact, contents) = (self.artifact, &mut self.contents);
        contents.source_files = (artifact.source_files().iter())
            .map(|file| {
                let (name, directory) = artifact.source_file_name(file);
                let (name, directory) = (contents.string(name), contents.string(directory));
                SourceFile { name, directory, ..*file }
            })
            .collect();
        let mut lines = artifact.lines().peekable();
        let mut writer = LineWriter::default();
        while let Some(line) = lines.next() {
            let end = lines.peek().map_or(NONE, |next| next.location);
            if self.locations.range(line.location..end).next().is_some() {
                writer.line(line);
            }
        }
        contents.lines = writer.finish();
    }
}
