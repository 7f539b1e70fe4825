//! Names the limit of Cranelift that a function exceeds, because Cranelift's own messages do not.

use cranelift_codegen::CodegenError;
use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Function, Signature};

use crate::error::CompileErrorKind;

/// The bytes of stack that parameters, or results, may take.
const MAX_PARAMS: u64 = 128 << 20;

/// Returns the reason why Cranelift did not compile `function`.
pub(crate) fn reason(error: CodegenError, function: &Function) -> CompileErrorKind {
    let message = match error {
        CodegenError::ImplLimitExceeded => stack(function),
        CodegenError::CodeTooLarge => {
            let (values, blocks) = (function.dfg.num_values(), function.dfg.num_blocks());
            let insts = function.dfg.num_insts();
            format!(
                "it needs more registers than the code generator can number: \
                 {insts} instructions, {values} values, {blocks} blocks"
            )
        }
        error => return CompileErrorKind::Codegen(error),
    };
    CompileErrorKind::Limit(message.into())
}

/// Says what takes too much stack: the parameters or results of a signature, or else the frame.
fn stack(function: &Function) -> String {
    let signatures = std::iter::once((None, &function.signature))
        .chain(function.dfg.signatures.iter().map(|(_, s)| (Some(()), s)));
    for (callee, signature) in signatures {
        let Signature { params, returns, .. } = signature;
        for (what, list) in [("parameters", params), ("results", returns)] {
            let size: u64 = list.iter().map(size_of).sum();
            if size > MAX_PARAMS {
                let whose = if callee.is_some() { "of a function that it calls" } else { "of the function" };
                return format!("the {what} {whose} take {size} bytes of stack, limit {MAX_PARAMS}");
            }
        }
    }
    let sizes = function.sized_stack_slots.values().map(|slot| u64::from(slot.size));
    let (count, total) = (sizes.len(), sizes.clone().sum::<u64>());
    let largest = sizes.max().unwrap_or(0);
    format!(
        "its stack frame is larger than the code generator can address: \
         {count} stack slots of {total} bytes, of which the largest has {largest}"
    )
}

fn size_of(param: &AbiParam) -> u64 {
    match param.purpose {
        ArgumentPurpose::StructArgument(size) => size.into(),
        _ => u64::from(param.value_type.bytes()).max(8),
    }
}
