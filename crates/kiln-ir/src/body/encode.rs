//! Encodes functions, which a client or a reader has built, into canonical form.
//!
//! The form is written in the order of its parts, but the tables at its start hold only what the
//! code uses. So the code comes first and goes into a buffer of its own:
//!
//! 1. Blocks get numbers, in layout order.
//! 2. The code is written. Each value gets the next number where it is defined. Global values,
//!    functions, signatures and memory flags get their numbers where they are first used. If a
//!    value is used in a block that precedes its definition, the code is written again, with all
//!    values numbered first.
//! 3. The tables are written, for everything that has a number by now. An entry can use further
//!    entries: a global value has a base, a function has a signature, memory flags have an alias
//!    region. So a table is written before the tables that its entries refer to, and the buffers
//!    are then joined in the order of the form.
//!
//! The function `%f(i32) -> i32 system_v { block0(v0: i32): v1 = iadd v0, v0; return v1 }` becomes
//!
//! | bytes (hexadecimal) | meaning |
//! |---|---|
//! | `02 01 76 00 01 76 00` | System V; 1 parameter and 1 result: `i32`, normal, not extended |
//! | `00` ×9 | the tables from alias regions to signatures are empty, and there is no stack limit |
//! | `02 01` | 2 values, 1 block |
//! | `02 76` | 1 parameter (shifted by a bit that marks cold blocks): `i32` |
//! | `4a 76 02 02` | `iadd.i32`; both operands were defined 1 value back (2 is the zigzag of 1) |
//! | `08 01 02` | `return` of 1 value, defined 1 value back |
//! | `00` | end of the block |
//! | `00 00 00 00` | no source locations, debug tags, stack maps, labels |
//!
//! Invariants:
//! - Entities that the code in the layout does not use are not written. Stack slots and dynamic
//!   types are an exception: they take up space in the frame whether or not an instruction names
//!   them.
//! - Cranelift's structures are destructured with every field named, without `..`, so that a new
//!   field is a compile error. Structures with private fields (the data flow graph, memory flags,
//!   parameters) are read by their methods.

mod encoder;
mod instructions;
mod locations;
mod renumbering;
mod side_tables;
mod tables;

use cranelift_codegen::ir;

pub(crate) use self::encoder::{EncodeError, Encoded, Encoder, ExternalRef};
use super::limits::max_values;

const TOO_MANY_VALUES: &str = "the function has more than 64 values for each byte of its canonical form";

impl Encoder {
    /// Encodes `function`.
    ///
    /// `name` returns a number for the symbol or library call that a reference names, always the
    /// same number for the same symbol or call. It is called for every reference that the function
    /// uses, in order of first use.
    ///
    /// # Errors
    ///
    /// [`EncodeError`], and the errors of `name`.
    pub(crate) fn encode<E: From<EncodeError>>(
        &mut self,
        function: &ir::Function,
        mut name: impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<Encoded, E> {
        // Blocks and code.
        self.clear();
        self.number_blocks(function)?;
        if self.code(function).is_err() {
            // In rare cases a value is used in a block that precedes the block that defines it.
            self.clear();
            self.number_blocks(function)?;
            self.number_values(function);
            self.code(function)?;
        }

        // Tables of what the code uses.
        self.used_tables(function, &mut name)?;
        self.head(function)?;

        // Everything in the order of the form.
        let mut bytes = Vec::with_capacity(self.head.0.len() + self.code.0.len());
        bytes.extend_from_slice(&self.head.0);
        bytes.extend_from_slice(&self.code.0);
        if self.next_value as u64 > max_values(bytes.len()) {
            return Err(EncodeError::Form(TOO_MANY_VALUES).into());
        }
        let references = self.references.order.clone();
        Ok(Encoded { bytes, references, base: function.params.base_srcloc() })
    }

    /// Writes the code, and the tables before and after it that do not depend on what it uses.
    fn code(&mut self, function: &ir::Function) -> Result<(), EncodeError> {
        self.kept_tables(function)?;
        for number in 0..self.block_order.len() {
            self.block(function, self.block_order[number])?;
        }
        self.side_tables(function)
    }
}

#[cfg(test)]
mod tests {
    use cranelift_codegen::cursor::{Cursor, FuncCursor};
    use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, UserFuncName, types};
    use cranelift_codegen::isa::CallConv;

    use super::*;

    #[test]
    fn the_example_above() {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(types::I32));
        signature.returns.push(AbiParam::new(types::I32));
        let mut function = ir::Function::with_name_signature(UserFuncName::default(), signature);
        let block = function.dfg.make_block();
        let argument = function.dfg.append_block_param(block, types::I32);
        function.layout.append_block(block);
        let mut cursor = FuncCursor::new(&mut function).at_bottom(block);
        let sum = cursor.ins().iadd(argument, argument);
        cursor.ins().return_(&[sum]);

        let encoded = Encoder::default().encode(&function, |_| Ok::<u32, EncodeError>(0));
        let example: Vec<&[u8]> = vec![
            &[2, 1, 0x76, 0, 1, 0x76, 0],
            &[0; 9],
            &[2, 1],
            &[2, 0x76],
            &[0x4a, 0x76, 2, 2],
            &[8, 1, 2],
            &[0],
            &[0; 4],
        ];
        assert_eq!(encoded.unwrap().bytes, example.concat());
    }

    /// Returns the error for a function that a client built from instructions and never verified.
    fn refused(build: impl FnOnce(&mut FuncCursor<'_>)) -> String {
        let mut function = ir::Function::new();
        let block = function.dfg.make_block();
        function.layout.append_block(block);
        build(&mut FuncCursor::new(&mut function).at_bottom(block));
        let encoded = Encoder::default().encode(&function, |_| Ok::<u32, EncodeError>(0));
        encoded.err().expect("an error").to_string()
    }

    #[test]
    fn undefined_entities_are_named() {
        use cranelift_codegen::ir::{Block, FuncRef, GlobalValue, SigRef, StackSlot, Value};

        let value = Value::from_u32(3_000_000_000);
        let error = refused(|at| _ = at.ins().return_(&[value]));
        assert_eq!(error, "v3000000000 is used and not defined");
        let error = refused(|at| _ = at.ins().jump(Block::from_u32(7), &[]));
        assert_eq!(error, "block7 is used and not defined");
        // Numbers that a table of their size would need gigabytes for.
        let far = 4_000_000_000;
        let error = refused(|at| _ = at.ins().symbol_value(types::I64, GlobalValue::from_u32(far)));
        assert_eq!(error, "gv4000000000 is used and not defined");
        let error = refused(|at| _ = at.ins().func_addr(types::I64, FuncRef::from_u32(far)));
        assert_eq!(error, "fn4000000000 is used and not defined");
        let error = refused(|at| _ = at.ins().stack_addr(types::I64, StackSlot::from_u32(far), 0));
        assert_eq!(error, "ss4000000000 is used and not defined");
        let error = refused(|at| {
            let name = at.func.declare_imported_user_function(ir::UserExternalName::new(0, 0));
            let function = at.func.import_function(ir::ExtFuncData {
                name: ir::ExternalName::user(name),
                signature: SigRef::from_u32(far),
                colocated: false,
                patchable: false,
            });
            at.ins().func_addr(types::I64, function);
        });
        assert_eq!(error, "sig4000000000 is used and not defined");
        let error = refused(|at| {
            let address = at.ins().iconst(types::I64, 0);
            at.ins().load(types::I64, ir::MemFlagsData::new(), address, 0);
            at.func.dfg.mem_flags.clear();
        });
        assert_eq!(error, "inst1 has memory flags that are not defined");
    }

    #[test]
    fn too_many_values() {
        let error = refused(|at| {
            let mut signature = Signature::new(CallConv::Tail);
            signature.returns = vec![AbiParam::new(types::I8); 65_535];
            // The signature takes its own bytes once, and each call uses it.
            let signature = at.func.import_signature(signature);
            let callee = at.ins().iconst(types::I64, 0);
            for _ in 0..200 {
                at.ins().call_indirect(signature, callee, &[]);
            }
        });
        assert_eq!(error, TOO_MANY_VALUES);
    }
}
