//! Calls with a signature that is known only at run time.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::Signature;
use kiln_backend::{Job, compile};
use kiln_ir::{ModuleSettings, Target, entry_thunk};
use kiln_jit::{Cell, Jit, JitOptions};

use crate::{CompilerError, SessionError};

/// An entry thunk: machine code that calls any function of one signature.
///
/// A call is three steps: [`Thunk::encode`] the arguments, [`kiln_jit::invoke`] (which is `unsafe`,
/// since it runs machine code), [`Thunk::decode`] the results.
#[derive(Debug)]
pub struct Thunk {
    signature: Signature,
    address: *const u8,
    /// Keeps the code mapped.
    #[cfg_attr(not(feature = "trap"), expect(dead_code, reason = "it is only kept"))]
    jit: Jit,
}

impl Thunk {
    /// Compiles the thunk. `settings` are the settings of the callee's module, which may change the
    /// calling convention.
    ///
    /// # Errors
    ///
    /// [`SessionError`] if the target has no code generator, is not this machine, or cannot pass
    /// such values.
    pub fn new(
        target: &Target,
        settings: &ModuleSettings,
        signature: &Signature,
    ) -> Result<Self, SessionError> {
        let isa = target.isa(settings).map_err(|source| {
            SessionError::Compile(CompilerError::Target { module: 0, name: "entry thunk".into(), source })
        })?;
        let module = entry_thunk("thunk", signature, settings, &*isa);
        let built = compile(&Job::new(&module, &*isa))
            .map_err(|errors| SessionError::Compile(CompilerError::Functions(errors)))?;
        let jit = Jit::new(JitOptions::default())?;
        jit.link(&[built.artifact], &kiln_jit::libcalls::process)?;
        let address = jit.address("thunk").expect("the thunk was just linked");
        Ok(Self { signature: signature.clone(), address, jit })
    }

    /// Returns the address of the thunk's code, for [`kiln_jit::invoke`].
    pub fn address(&self) -> *const u8 {
        self.address
    }

    /// Registers the thunk's code with `kiln-trap`, so that a trap of a function that it calls can
    /// be caught: `call` takes the thunk as the function, and the function and the cells as its
    /// arguments.
    ///
    /// # Errors
    ///
    /// [`RegisterError`](kiln_trap::RegisterError) if too many ranges are registered.
    #[cfg(feature = "trap")]
    pub fn catch_traps(&self) -> Result<(), kiln_trap::RegisterError> {
        self.jit.memory().catch_traps()
    }

    /// Returns the signature of the functions that the thunk calls.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Writes `arguments` to cells. There are enough cells for the results as well. Returns `None`
    /// if the number of arguments, or the size of any of them, differs from the signature's
    /// parameters.
    pub fn encode(&self, arguments: &[DataValue]) -> Option<Vec<Cell>> {
        let params = &self.signature.params;
        let fits = arguments.len() == params.len()
            && arguments
                .iter()
                .zip(params)
                .all(|(value, param)| value.ty().bytes() == param.value_type.bytes());
        if !fits {
            return None;
        }
        let mut cells = vec![Cell::default(); params.len().max(self.signature.returns.len())];
        for (cell, value) in cells.iter_mut().zip(arguments) {
            value.write_to_slice_ne(&mut cell.0);
        }
        Some(cells)
    }

    /// Reads the results that a call left in `cells`. Returns `None` if there are too few cells.
    pub fn decode(&self, cells: &[Cell]) -> Option<Vec<DataValue>> {
        let returns = &self.signature.returns;
        let values = cells
            .iter()
            .zip(returns)
            .map(|(cell, param)| DataValue::read_from_slice_ne(&cell.0, param.value_type));
        (cells.len() >= returns.len()).then(|| values.collect())
    }
}
