//! Checks data objects that a client defines.

use cranelift_module::{DataDescription, Init as DescribedInit, ModuleDeclarations, ModuleRelocTarget};

use kiln_globals::{THREAD_LOCAL_SECTION, is_reserved_section};

use super::error::{BuildError, DataError};
use super::pending::{PendingData, declared};
use crate::data::{Init, MAX_ALIGN};

/// Returns the data object that `description` describes, whose name is `name`. Of one that is
/// thread-local, each thread has a copy.
pub(super) fn data_object(
    declarations: &ModuleDeclarations,
    name: &str,
    description: &DataDescription,
    is_thread_local: bool,
) -> Result<PendingData, BuildError> {
    let fault = |reason| BuildError::Data { name: name.into(), reason };
    let DataDescription {
        init,
        function_decls,
        data_decls,
        function_relocs,
        data_relocs,
        custom_section,
        align,
        // Kiln drops no definition.
        used: _,
    } = description;
    let section = custom_section.as_deref().map(Box::from);
    if custom_section.as_ref().is_some_and(|name| name.is_empty() || name.contains('\0')) {
        return Err(fault(DataError::Section));
    }
    if let Some(section) = section.as_deref().filter(|section| is_reserved_section(section)) {
        return Err(BuildError::Section { name: name.into(), section: section.into() });
    }
    let section = match (section, is_thread_local) {
        (Some(_), true) => return Err(fault(DataError::ThreadLocal)),
        (None, true) => Some(THREAD_LOCAL_SECTION.into()),
        (section, false) => section,
    };
    let align = align.map_or(Some(8), |align| u32::try_from(align).ok());
    let align = align
        .filter(|align| align.is_power_of_two() && *align <= MAX_ALIGN)
        .ok_or_else(|| fault(DataError::Align))?;
    let size = match init {
        DescribedInit::Uninitialized => return Err(fault(DataError::Uninitialized)),
        DescribedInit::Zeros { .. } | DescribedInit::Bytes { .. } => init.size(),
    };

    let mut places: Vec<(u32, &ModuleRelocTarget, i64)> = Vec::new();
    let missing = || BuildError::Undeclared { referrer: name.into() };
    for &(offset, function) in function_relocs {
        places.push((offset, function_decls.get(function).ok_or_else(missing)?, 0));
    }
    for &(offset, object, addend) in data_relocs {
        places.push((offset, data_decls.get(object).ok_or_else(missing)?, addend));
    }
    places.sort_by_key(|(offset, ..)| *offset);
    let mut end = 0;
    for &(offset, ..) in &places {
        let start = u64::from(offset);
        if start < end {
            return Err(fault(DataError::AddressOverlap(offset)));
        }
        end = start + 8;
        if end > size as u64 {
            return Err(fault(DataError::AddressOutside(offset)));
        }
    }

    let mut addresses = Vec::with_capacity(places.len());
    for (offset, target, addend) in places {
        let declaration = match target {
            ModuleRelocTarget::User { namespace, index } => declared(declarations, *namespace, *index),
            _ => None,
        };
        addresses.push((u64::from(offset), declaration.ok_or_else(missing)?, addend));
    }
    let init = match init {
        DescribedInit::Bytes { contents } => {
            let mut bytes = contents.to_vec();
            for (offset, ..) in &addresses {
                // In range, as checked above.
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                bytes[start..start + 8].fill(0);
            }
            Init::of(bytes, addresses.is_empty())
        }
        _ if addresses.is_empty() => Init::Zeros(size as u64),
        _ => Init::Bytes(vec![0; size]),
    };
    Ok(PendingData { align, init, section, addresses })
}
