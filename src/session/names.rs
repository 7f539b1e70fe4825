//! Names of what objects of a heap point at: functions and data of the session's modules,
//! everything in its bases, and what the host binds.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use kiln_artifact::record::{Linkage, SymbolKind};
use kiln_globals::{Resolve, SlotKey};
use kiln_heap::Name;
use kiln_image::{BaseSymbolKind, Loaded};
use kiln_jit::{Role, Unit};

use super::engine::{Engine, EngineResolver};

/// The name of something in memory, or the reason why it has none in an image.
type Known = Result<(SymbolKind, Box<str>), Box<str>>;

/// Everything in the session's memory and its bases, and all addresses of the host that have names.
pub(super) struct Names {
    /// Functions and data, in order of addresses; of several at one address, the last is meant.
    ranges: Vec<(Range<usize>, Known)>,
    host: HashMap<usize, (SymbolKind, Box<str>)>,
    bases: Vec<Arc<Loaded>>,
}

impl Names {
    /// Finds the names of all that `units` define, which are in order of linking, and of what the
    /// host binds.
    pub(super) fn of(engine: &Engine, units: &[Unit]) -> Self {
        let mut ranges = Vec::new();
        for unit in units {
            ranges.extend(unit.symbols().map(|symbol| {
                let start = symbol.address.addr();
                let record = &unit.artifacts()[symbol.module].symbols()[symbol.symbol];
                let module = || match unit.module_name(symbol.module) {
                    "" => String::new(),
                    name => format!(" of module `{name}`"),
                };
                let what = || if symbol.kind == SymbolKind::Function { "function" } else { "data" };
                let known = match record.linkage() {
                    _ if unit.role() != Role::Program => Err("code that is not saved".into()),
                    Linkage::Local if symbol.name.is_empty() => {
                        Err(format!("anonymous {}{}, which has no name", what(), module()).into())
                    }
                    Linkage::Local => {
                        let (what, name) = (what(), symbol.name);
                        Err(format!("the private {what} `{name}`{}: export it", module()).into())
                    }
                    Linkage::Replaceable if engine.jit.unit_of(symbol.name).as_ref() != Some(unit) => {
                        Err(format!("an earlier definition of `{}`", symbol.name).into())
                    }
                    _ => Ok((symbol.kind, symbol.name.into())),
                };
                (start..start + symbol.size, known)
            }));
        }
        // The address of a replaceable function is that of its stub.
        ranges.extend(engine.jit.exports().into_iter().map(|export| {
            let start = export.address.addr();
            (start..start + export.size.max(1), Ok((export.kind, (&*export.name).into())))
        }));
        let bases = engine.jit.bases().to_vec();
        for (name, symbol, address) in bases.iter().flat_map(|base| base.exports()) {
            let kind = match symbol.kind {
                BaseSymbolKind::Function | BaseSymbolKind::Replaceable => SymbolKind::Function,
                BaseSymbolKind::Data => SymbolKind::Data,
                BaseSymbolKind::Global => SymbolKind::Global,
                BaseSymbolKind::ThreadLocal => continue,
            };
            let (start, size) = (address.addr(), symbol.size.max(1) as usize);
            ranges.push((start..start.saturating_add(size), Ok((kind, name.into()))));
        }
        ranges.sort_by_key(|(range, _)| range.start);

        let mut host = HashMap::new();
        let mut keys: Vec<SlotKey> = engine.host().bindings.keys().collect();
        keys.extend(units.iter().flat_map(Unit::slots));
        for key in keys {
            let kind = match key {
                SlotKey::Global(_) => SymbolKind::Global,
                SlotKey::Symbol(_) => SymbolKind::Function,
                // It has no name that data can refer to.
                SlotKey::Routine(_) => continue,
            };
            if let Ok(address) = EngineResolver(engine).resolve(&key, None) {
                host.entry(address).or_insert_with(|| (kind, key.text().into()));
            }
        }
        Self { ranges, host, bases }
    }

    /// Returns the name of an address. The error says what is there, if that is known.
    pub(super) fn find(&self, address: usize) -> Result<Name, Option<Box<str>>> {
        let after = self.ranges.partition_point(|(range, _)| range.start <= address);
        if let Some((range, known)) = after.checked_sub(1).map(|index| &self.ranges[index])
            && range.contains(&address)
        {
            let (kind, name) = known.clone().map_err(Some)?;
            let offset = (address - range.start) as i64;
            if kind == SymbolKind::Function && offset != 0 {
                return Err(Some(format!("the middle of the function `{name}`").into()));
            }
            return Ok(Name { kind, name, offset });
        }
        if let Some((kind, name)) = self.host.get(&address).cloned() {
            return Ok(Name { kind, name, offset: 0 });
        }
        // What is in an image has no name, if it is not exported, but stays where it is in there.
        let address = std::ptr::without_provenance(address);
        let (name, offset) = self.bases.iter().find_map(|base| base.name_of_place(address)).ok_or(None)?;
        Ok(Name { kind: SymbolKind::Data, name: name.into(), offset: offset as i64 })
    }
}
