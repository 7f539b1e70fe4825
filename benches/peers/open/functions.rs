//! Images of many functions, assembled without a compiler.

use std::path::Path;

use kiln::artifact::record::{FunctionRecord, Linkage, SectionKind, Str, Summary, SymbolKind, SymbolRecord};
use kiln::artifact::{Artifact, Contents};
use kiln::globals::GlobalTable;
use kiln::image::{ImageOptions, save, write_image};

use crate::setup::Failure;

/// Bytes of a function.
const SIZE: usize = 400;

/// Writes an image that exports functions `function_0`, `function_1` and so on, whose code is not
/// called.
pub(crate) fn save_functions(count: usize, path: &Path) -> Result<(), Failure> {
    let image = write_image(&[functions(count)?], &GlobalTable::new(), &ImageOptions::default());
    Ok(save(path, &image.map_err(|errors| errors[0].to_string())?)?)
}

/// Assembles functions of traps, since to compile as many would take minutes.
fn functions(count: usize) -> Result<Artifact, Failure> {
    let triple = kiln::ir::Target::host().triple().to_string();
    let mut contents = Contents::default();
    let (triple, producer) = (contents.string(&triple), contents.string("benches/peers"));
    let align = 16.into();
    contents.summary = Summary {
        triple,
        producer,
        text_align: align,
        read_only_align: align,
        writable_align: align,
        zeroed_align: align,
        ..Summary::default()
    };
    // Code alignment 1, data alignment -8, return address 16; CFA = rsp + 8, return address there.
    contents.cie =
        [0x14, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0]
            .to_vec();
    let signature: Str = contents.string("() system_v");
    contents.signatures.push(signature);
    contents.text = vec![0xcc; count * SIZE];
    for number in 0..count {
        let start = number * SIZE;
        let name = contents.string(&format!("function_{number}"));
        contents.symbols.push(SymbolRecord {
            name,
            offset: (start as u64).into(),
            size: (SIZE as u64).into(),
            signature: 0.into(),
            kind: SymbolKind::Function as u8,
            linkage: Linkage::Export as u8,
            section: SectionKind::Text as u8,
            libcall: 0,
        });
        let rows = u32::try_from(contents.unwind.len())?;
        contents.unwind.extend([0x41, 0x0e, 0x10]); // advance 1; CFA offset 16
        contents.functions.push(FunctionRecord {
            symbol: u32::try_from(number)?.into(),
            start: u32::try_from(start)?.into(),
            len: u32::try_from(SIZE)?.into(),
            unwind_start: rows.into(),
            unwind_len: 3.into(),
            align: 1.into(),
            ..FunctionRecord::default()
        });
    }
    Ok(contents.finish())
}
