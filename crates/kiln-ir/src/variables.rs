//! Names for values of a function, for debuggers.
//!
//! Cranelift's labels say which values are the same variable of the client's program, by number.
//! The client gives names and types for the numbers. They are no part of the function's code: with
//! another name, it is the same function.

use crate::body::wire::{ByteReader, ByteWriter, DecodeResult};

/// A name for the values of a function that have the same label, for debuggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The number of the label, a `cranelift_codegen::ir::ValueLabel`.
    pub label: u32,
    /// The name; not empty, without zero bytes.
    pub name: Box<str>,
    /// The type of the values.
    pub ty: VariableType,
}

/// The type of a variable: how a debugger reads and prints its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariableType {
    /// The encoding.
    pub encoding: Encoding,
    /// The size in bytes, from 1 to 16.
    pub size: u8,
}

/// The encoding of the bytes of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A signed integer.
    Signed,
    /// An unsigned integer.
    Unsigned,
    /// A floating-point number.
    Float,
    /// An address.
    Address,
}

impl Encoding {
    /// All encodings, in the order of their numbers in the binary form.
    pub(crate) const ALL: [Self; 4] = [Self::Signed, Self::Unsigned, Self::Float, Self::Address];

    /// Returns the word for it in the text form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Float => "float",
            Self::Address => "address",
        }
    }
}

/// The largest size of a variable, in bytes.
pub(crate) const MAX_SIZE: u8 = 16;

impl Variable {
    /// Whether the name and the size are allowed.
    pub(crate) fn is_valid(&self) -> bool {
        let Self { label, name, ty } = self;
        let named = !name.is_empty() && !name.contains('\0');
        named && *label != u32::MAX && (1..=MAX_SIZE).contains(&ty.size)
    }
}

/// Whether `variables` are valid, and in ascending order of their labels.
pub(crate) fn are_variables(variables: &[Variable]) -> bool {
    variables.iter().all(Variable::is_valid) && variables.is_sorted_by(|a, b| a.label < b.label)
}

impl ByteWriter {
    /// Writes the variables of a function.
    pub(crate) fn variables(&mut self, variables: &[Variable]) {
        self.count(variables.len());
        for Variable { label, name, ty: VariableType { encoding, size } } in variables {
            self.uint(u64::from(*label));
            self.str(name);
            self.byte(*encoding as u8);
            self.byte(*size);
        }
    }
}

impl ByteReader<'_> {
    /// Reads the variables of a function.
    pub(crate) fn variables(&mut self) -> DecodeResult<Box<[Variable]>> {
        let mut variables = Vec::new();
        for _ in 0..self.count()? {
            let (label, name) = (self.u32()?, self.str()?.into());
            let encoding = Encoding::ALL.get(usize::from(self.byte()?)).copied();
            let encoding = encoding.ok_or_else(|| self.error("not an encoding"))?;
            variables.push(Variable { label, name, ty: VariableType { encoding, size: self.byte()? } });
        }
        match are_variables(&variables) {
            true => Ok(variables.into()),
            false => Err(self.error("not variables, or out of order")),
        }
    }
}
