//! Data: texts and tables that point at each other, variables, arrays, and functions as values.

use cranelift_codegen::ir::InstBuilder;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, Module};

use super::Failure;
use super::ast::{Constant, ItemKind, Program, TextContent};
use super::generate::{Generator, Global};

/// Offsets in a text: the address of its bytes, and the address of the next text.
const BYTES: u32 = 8;
const NEXT: u32 = 16;

impl<M: Module> Generator<'_, M> {
    /// Defines all data of the program.
    pub(super) fn constants(&mut self, program: &Program) -> Result<(), Failure> {
        // Bytes first: another text may be their tail.
        for item in &program.items {
            if let ItemKind::Text { content: TextContent::Literal(text), .. } = &item.kind {
                let bytes = self.define_bytes(text)?;
                self.bytes.insert(item.name.clone(), (bytes, text.len()));
            }
        }
        let mut data = DataDescription::new();
        for item in &program.items {
            data.clear();
            // Modules differ in their default alignment of data.
            data.set_align(8);
            match &item.kind {
                ItemKind::Function(_) | ItemKind::Variable(_, None) => continue,
                ItemKind::Variable(_, Some(Constant::Int(value))) => {
                    data.define(Box::new(value.to_ne_bytes()))
                }
                ItemKind::Variable(_, Some(Constant::Float(value))) => {
                    data.define(Box::new(value.to_ne_bytes()))
                }
                ItemKind::Variable(_, Some(Constant::Name(name))) => {
                    data.define(Box::new([0; 8]));
                    self.point(&mut data, 0, name)?;
                }
                ItemKind::Text { content, then } => {
                    let ((bytes, len), skipped) = match content {
                        TextContent::Literal(_) => (self.bytes[&item.name], 0),
                        TextContent::Tail(of, skipped) => {
                            let bytes = self.bytes.get(of).filter(|(_, len)| skipped <= len);
                            (*bytes.ok_or_else(|| format!("`{of}` has no such tail"))?, *skipped)
                        }
                    };
                    self.text(&mut data, bytes, skipped, len - skipped);
                    data.set_align(16);
                    if let Some(then) = then {
                        self.point(&mut data, NEXT, then)?;
                    }
                }
                ItemKind::Cells(count) => {
                    data.define_zeroinit(8 * count);
                    data.set_align(64);
                }
                ItemKind::Table(entries) => {
                    data.define(vec![0; 8 * entries.len()].into());
                    for (at, entry) in (0..).step_by(8).zip(entries) {
                        self.point(&mut data, at, entry)?;
                    }
                }
            }
            let id = self.datum(&item.name)?;
            self.module.define_data(id, &data)?;
        }
        Ok(())
    }

    fn define_bytes(&mut self, text: &str) -> Result<DataId, Failure> {
        let mut data = DataDescription::new();
        data.define(text.as_bytes().into());
        let id = self.module.declare_anonymous_data(false, false)?;
        self.module.define_data(id, &data)?;
        Ok(id)
    }

    /// A text of `len` bytes of `bytes`, from `skipped` on.
    fn text(&mut self, data: &mut DataDescription, bytes: DataId, skipped: usize, len: usize) {
        let mut content = [0; 24];
        content[..8].copy_from_slice(&(len as u64).to_ne_bytes());
        data.define(Box::new(content));
        let bytes = self.module.declare_data_in_data(bytes, data);
        data.write_data_addr(BYTES, bytes, skipped as i64);
    }

    /// A text without a name. Equal content gives the same text.
    pub(super) fn literal(&mut self, text: &str) -> Result<DataId, Failure> {
        if let Some(id) = self.literals.get(text) {
            return Ok(*id);
        }
        let bytes = self.define_bytes(text)?;
        let mut data = DataDescription::new();
        data.set_align(8);
        self.text(&mut data, bytes, 0, text.len());
        let id = self.module.declare_anonymous_data(false, false)?;
        self.module.define_data(id, &data)?;
        self.literals.insert(text.into(), id);
        Ok(id)
    }

    /// Writes the address of `name` into `data`.
    fn point(&mut self, data: &mut DataDescription, offset: u32, name: &str) -> Result<(), Failure> {
        let target = match self.globals.get(name) {
            Some(Global::Function(..)) => self.value(name)?,
            _ => self.datum(name)?,
        };
        let target = self.module.declare_data_in_data(target, data);
        data.write_data_addr(offset, target, 0);
        Ok(())
    }

    /// The function `name` as a value: a closure that captures nothing, so that it can be a
    /// constant.
    pub(super) fn value(&mut self, name: &str) -> Result<DataId, Failure> {
        if let Some(id) = self.values.get(name) {
            return Ok(*id);
        }
        let Some(Global::Function(params, result)) = self.globals.get(name).cloned() else {
            return Err(format!("there is no function `{name}`").into());
        };
        // An adaptor drops the environment, which functions do not take.
        let target = self.function(name)?;
        let mut context = self.module.make_context();
        context.func.signature = self.signature(&params, &result, true);
        let adaptor = self.module.declare_anonymous_function(&context.func.signature)?;
        let mut scratch = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
        let block = builder.create_block();
        builder.append_block_params_for_function_params(block);
        builder.switch_to_block(block);
        let target = self.module.declare_func_in_func(target, builder.func);
        let arguments = builder.block_params(block)[1..].to_vec();
        let call = builder.ins().call(target, &arguments);
        let results = builder.inst_results(call).to_vec();
        builder.ins().return_(&results);
        builder.seal_all_blocks();
        builder.finalize(self.module.target_config());
        self.module.define_function(adaptor, &mut context)?;

        let mut data = DataDescription::new();
        data.define(Box::new([0; 8]));
        data.set_align(8);
        let adaptor = self.module.declare_func_in_data(adaptor, &mut data);
        data.write_function_addr(0, adaptor);
        let id = self.module.declare_anonymous_data(false, false)?;
        self.module.define_data(id, &data)?;
        self.values.insert(name.into(), id);
        Ok(id)
    }
}
