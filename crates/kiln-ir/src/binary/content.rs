//! Reads the content of a module: symbols, functions and data.

use crate::body::wire::{ByteReader, DecodeResult};
use crate::body::{Body, CheckScratch};
use crate::comments::Comments;
use crate::data::{DataAddress, DataObject, Init, MAX_ALIGN};
use crate::function::{Code, CodeReloc, CodeTarget, Function, InlineHint, MachineCode};
use crate::limits::MAX_ZEROS;
use crate::relocs;
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

#[derive(Default)]
pub(super) struct ContentReader<'b> {
    pub(super) symbols: Vec<Symbol>,
    /// The encoded type of each symbol, if it is known. A type has only one encoding, so equal
    /// types have equal bytes.
    signatures: Vec<Option<&'b [u8]>>,
    /// Whether each symbol has been defined.
    pub(super) defined: Vec<bool>,
    scratch: CheckScratch,
}

impl<'b> ContentReader<'b> {
    pub(super) fn symbols(&mut self, content: &mut ByteReader<'b>) -> DecodeResult<()> {
        let count = content.count()?;
        if count >= u32::MAX as usize {
            return Err(content.error("too many symbols"));
        }
        self.symbols.reserve_exact(count);
        self.signatures.reserve_exact(count);
        for _ in 0..count {
            let kind = match content.byte()? {
                0 => SymbolKind::Function,
                1 => SymbolKind::Data,
                2 => SymbolKind::Global,
                _ => return Err(content.error("not a kind of symbol")),
            };
            let linkage = match content.byte()? {
                0 => Linkage::Import,
                1 => Linkage::Local,
                2 => Linkage::Hidden,
                3 => Linkage::Export,
                4 => Linkage::Preemptible,
                5 => Linkage::Replaceable,
                _ => return Err(content.error("not a linkage")),
            };
            if kind == SymbolKind::Global && linkage != Linkage::Import {
                return Err(content.error("a global that is defined"));
            }
            if kind != SymbolKind::Function && linkage == Linkage::Replaceable {
                return Err(content.error("replaceable data"));
            }
            let name = if linkage == Linkage::Local { "".into() } else { content.str()?.into() };
            let typed = content.bool()?;
            let before = content.clone();
            let signature = if typed { Some(content.signature()?) } else { None };
            self.signatures.push(if typed { Some(before.until(content)) } else { None });
            if signature.is_some() && kind != SymbolKind::Function {
                return Err(content.error("data with the type of a function"));
            }
            self.symbols.push(Symbol { name, kind, linkage, signature, line: 0 });
        }
        self.defined = vec![false; count];
        Ok(())
    }

    fn symbol(&self, reader: &mut ByteReader<'_>) -> DecodeResult<SymbolId> {
        let index = reader.index(self.symbols.len(), "no such symbol")?;
        // There are fewer than 2^32 symbols.
        Ok(SymbolId::from_u32(index as u32))
    }

    /// Reads the symbol of a definition.
    fn define(&mut self, reader: &mut ByteReader<'_>, kind: SymbolKind) -> DecodeResult<SymbolId> {
        let id = self.symbol(reader)?;
        let symbol = &self.symbols[id.index()];
        if symbol.kind != kind || symbol.linkage == Linkage::Import || self.defined[id.index()] {
            return Err(reader.error("a definition of an import, of another kind, or a second one"));
        }
        self.defined[id.index()] = true;
        Ok(id)
    }

    pub(super) fn function(&mut self, content: &mut ByteReader<'_>) -> DecodeResult<Function> {
        let symbol = self.define(content, SymbolKind::Function)?;
        let code = match content.byte()? {
            0 => Code::Ir(self.body(content)?),
            1 => Code::Machine(self.machine(content)?),
            _ => return Err(content.error("neither IR nor machine code")),
        };
        let fits = match (&code, self.signatures[symbol.index()]) {
            // The form of a function starts with its type.
            (Code::Ir(body), Some(declared)) => body.as_bytes().starts_with(declared),
            (Code::Machine(_), Some(_)) => true,
            (_, None) => false,
        };
        if !fits {
            return Err(content.error("a function whose type is not that of its symbol"));
        }
        let (inline, variables, comments) = (InlineHint::BySize, Box::default(), Comments::new());
        Ok(Function { symbol, code, inline, line: 0, variables, comments })
    }

    fn body(&mut self, content: &mut ByteReader<'_>) -> DecodeResult<Body> {
        let base = content.u32()?;
        let count = content.count()?;
        let mut references = Vec::with_capacity(count);
        for _ in 0..count {
            references.push(self.symbol(content)?);
        }
        let length = content.count()?;
        let offset = content.offset();
        let bytes = content.raw(length)?;
        let reader = ByteReader::with_base(bytes, offset);
        Body::check(reader, bytes, references.into(), base, &mut self.scratch)
    }

    fn machine(&self, content: &mut ByteReader<'_>) -> DecodeResult<MachineCode> {
        let align = align(content)?;
        let bytes: Box<[u8]> = content.bytes()?.into();
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len != 0);
        let len = len.ok_or_else(|| content.error("code that is empty or has 4 GiB or more"))?;
        let mut relocs = Vec::new();
        for _ in 0..content.count()? {
            let offset = content.u32()?;
            let kind = relocs::named(content.str()?);
            let kind = kind.ok_or_else(|| content.error("not a relocation"))?;
            let addend = content.int()?;
            let target = match content.byte()? {
                0 => CodeTarget::Symbol(self.symbol(content)?),
                1 => CodeTarget::LibCall(content.libcall()?),
                2 => CodeTarget::Here(content.u32()?),
                _ => return Err(content.error("not a target of a relocation")),
            };
            let last = relocs.last().map_or(0, |last: &CodeReloc| last.offset);
            if offset >= len || offset < last {
                return Err(content.error("a relocation outside of its code or out of order"));
            }
            relocs.push(CodeReloc { offset, kind, target, addend });
        }
        Ok(MachineCode { bytes, align, relocs })
    }

    pub(super) fn data(&mut self, content: &mut ByteReader<'_>) -> DecodeResult<DataObject> {
        let symbol = self.define(content, SymbolKind::Data)?;
        let writable = content.bool()?;
        let align = align(content)?;
        let section = content.str()?;
        if section.contains('\0') {
            return Err(content.error("a section's name with a zero byte"));
        }
        let section = (!section.is_empty()).then(|| section.into());
        let init = match content.byte()? {
            0 => Init::Zeros(content.uint()?),
            1 => Init::Bytes(content.bytes()?.to_vec()),
            _ => return Err(content.error("neither zeros nor bytes")),
        };
        if init.len() > MAX_ZEROS {
            return Err(content.error("a data object of more than 2^40 bytes"));
        }
        let mut addresses = Vec::new();
        let mut end = 0;
        for _ in 0..content.count()? {
            let offset = content.uint()?;
            let address = DataAddress { offset, symbol: self.symbol(content)?, addend: content.int()? };
            let next = offset.checked_add(8).filter(|next| offset >= end && *next <= init.len());
            end =
                next.ok_or_else(|| content.error("a pointer outside of its data object or over another"))?;
            let zero = |bytes: &Vec<u8>| bytes[offset as usize..end as usize].iter().all(|byte| *byte == 0);
            if !matches!(&init, Init::Bytes(bytes) if zero(bytes)) {
                return Err(content.error("a pointer over other content"));
            }
            addresses.push(address);
        }
        if let (Init::Bytes(bytes), true) = (&init, addresses.is_empty())
            && bytes.iter().all(|byte| *byte == 0)
        {
            return Err(content.error("zeros as bytes"));
        }
        Ok(DataObject { symbol, writable, align, init, section, addresses, line: 0 })
    }
}

fn align(reader: &mut ByteReader<'_>) -> DecodeResult<u32> {
    let align = reader.u32()?;
    if align.is_power_of_two() && align <= MAX_ALIGN {
        Ok(align)
    } else {
        Err(reader.error("not an alignment"))
    }
}

/// Skips the settings that affect code.
pub(super) fn skip_settings(content: &mut ByteReader<'_>) -> DecodeResult<()> {
    fn list(content: &mut ByteReader<'_>) -> DecodeResult<()> {
        for _ in 0..content.count()? {
            content.str()?;
            content.bool()?;
            content.str()?;
        }
        Ok(())
    }
    list(content)?;
    for _ in 0..content.count()? {
        content.str()?;
        list(content)?;
    }
    Ok(())
}
