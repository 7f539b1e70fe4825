//! Unwind rows of one function, encoded as DWARF call frame instructions.
//!
//! The encoding does not depend on the function's address: the linker writes the address range in
//! front of the rows.

use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::{CodegenResult, CompiledCode, ir::Endianness};
use gimli::write::{Address, EhFrame, Error, FrameTable, Writer};
use gimli::{RunTimeEndian, constants};

/// Size of a frame description entry (FDE) up to its instructions: length, CIE pointer, start and
/// size of the function (4 bytes each), and the length of the (empty) augmentation data.
const FDE_HEADER: usize = 4 + 4 + 4 + 4 + 1;

/// The unwind rows of one function, and the CIE that they refer to.
#[derive(Default)]
pub(crate) struct UnwindRows {
    /// The common information entry (CIE) with its length field; empty if the function has no rows.
    pub(crate) cie: Vec<u8>,
    /// The rows, encoded as call frame instructions.
    pub(crate) rows: Vec<u8>,
}

/// Returns the rows of `code`: none if Cranelift has none for the target or the calling convention.
pub(crate) fn rows(code: &CompiledCode, isa: &dyn TargetIsa) -> CodegenResult<UnwindRows> {
    let Some(UnwindInfo::SystemV(info)) = code.create_unwind_info(isa)? else {
        return Ok(UnwindRows::default());
    };
    let Some(mut cie) = isa.create_systemv_cie() else {
        return Ok(UnwindRows::default());
    };
    cie.fde_address_encoding = constants::DwEhPe(constants::DW_EH_PE_pcrel.0 | constants::DW_EH_PE_sdata4.0);
    let mut table = FrameTable::default();
    let id = table.add_cie(cie);
    table.add_fde(id, info.to_fde(Address::Constant(0)));
    let endian = match isa.endianness() {
        Endianness::Little => RunTimeEndian::Little,
        Endianness::Big => RunTimeEndian::Big,
    };
    // Enough for most functions, so that the bytes are not moved.
    let mut section = EhFrame(Bytes { bytes: Vec::with_capacity(256), endian });
    table.write_eh_frame(&mut section).expect("rows with constant addresses can be encoded");
    let bytes = &*section.bytes;
    let cie_len = 4 + read_u32(bytes, endian) as usize;
    let fde = &bytes[cie_len..];
    let fde_len = 4 + read_u32(fde, endian) as usize;
    Ok(UnwindRows { cie: bytes[..cie_len].to_vec(), rows: fde[FDE_HEADER..fde_len].to_vec() })
}

/// Bytes that are being written. Unlike gimli's own writer, it can begin with a capacity.
#[derive(Clone, Debug)]
struct Bytes {
    bytes: Vec<u8>,
    endian: RunTimeEndian,
}

impl Writer for Bytes {
    type Endian = RunTimeEndian;

    fn endian(&self) -> RunTimeEndian {
        self.endian
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn write(&mut self, bytes: &[u8]) -> gimli::write::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> gimli::write::Result<()> {
        let to = self.bytes.get_mut(offset..).ok_or(Error::OffsetOutOfBounds)?;
        to.get_mut(..bytes.len()).ok_or(Error::LengthOutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }
}

fn read_u32(bytes: &[u8], endian: RunTimeEndian) -> u32 {
    let bytes = bytes[..4].try_into().expect("four bytes");
    match endian {
        RunTimeEndian::Little => u32::from_le_bytes(bytes),
        RunTimeEndian::Big => u32::from_be_bytes(bytes),
    }
}
