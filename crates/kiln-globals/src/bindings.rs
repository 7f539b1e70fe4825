//! A map from keys to addresses, given by a client.

use crate::keys::{KeyMap, Near};
use crate::signature::{Signature, signatures_agree};
use crate::slots::{KeyRef, Resolve, SlotKey, Unresolved};

/// A map from keys to addresses. The address is the part of a global that is different in every
/// process.
///
/// Globals, symbols and routines of the same name are bound separately. Slots are looked up most
/// quickly if they are in the order in which they were bound first, as those of a table of globals
/// are for a client that binds in the order of that table.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    globals: KeyMap<usize>,
    symbols: KeyMap<BoundSymbol>,
    routines: KeyMap<usize>,
}

#[derive(Clone, Debug)]
struct BoundSymbol {
    address: usize,
    /// The type of a function, if it is known.
    signature: Option<Box<str>>,
}

impl Bindings {
    /// Makes an empty set of bindings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds the global `key` to `address`; a later binding of the same key wins.
    pub fn bind(&mut self, key: &str, address: usize) -> &mut Self {
        self.globals.insert(key, address);
        self
    }

    /// Binds the symbol `name`, a function or data object of the host, to `address`. Code may use
    /// it with any type.
    pub fn bind_symbol(&mut self, name: &str, address: usize) -> &mut Self {
        self.symbols.insert(name, BoundSymbol { address, signature: None });
        self
    }

    /// Binds the function `name` of the host to `address`, and says its type. Code that calls it
    /// with another type is refused with [`Unresolved::Type`].
    ///
    /// ```
    /// use kiln_globals::{Bindings, Resolve, SlotKey, Unresolved};
    ///
    /// let mut bindings = Bindings::new();
    /// bindings.bind_function("sin", 0x1000, &"(f64) -> f64 system_v".parse()?);
    /// let sin = SlotKey::Symbol("sin".into());
    /// assert_eq!(bindings.resolve(&sin, Some("(f64) -> f64 system_v")), Ok(0x1000));
    /// let refused = bindings.resolve(&sin, Some("(f32) -> f32 system_v"));
    /// assert!(matches!(refused, Err(Unresolved::Type { .. })));
    /// # Ok::<(), kiln_globals::SignatureError>(())
    /// ```
    pub fn bind_function(&mut self, name: &str, address: usize, signature: &Signature) -> &mut Self {
        let signature = Some(signature.to_string().into());
        self.symbols.insert(name, BoundSymbol { address, signature });
        self
    }

    /// Returns everything that is bound: globals, symbols, then routines, each in the order in
    /// which they were bound first.
    pub fn keys(&self) -> impl Iterator<Item = SlotKey> {
        let globals = self.globals.keys().map(|key| SlotKey::Global(key.into()));
        let symbols = self.symbols.keys().map(|name| SlotKey::Symbol(name.into()));
        globals.chain(symbols).chain(self.routines.keys().map(|name| SlotKey::Routine(name.into())))
    }

    /// Binds the routine `name` of the C library, which the code generator calls, to `address`. A
    /// session has these routines already; a program that only loads images binds those that its
    /// images use.
    pub fn bind_routine(&mut self, name: &str, address: usize) -> &mut Self {
        self.routines.insert(name, address);
        self
    }
}

impl Resolve for Bindings {
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved> {
        self.resolve_ref(key.borrowed(), expected)
    }

    fn resolve_ref(&self, key: KeyRef<'_>, expected: Option<&str>) -> Result<usize, Unresolved> {
        self.resolve_near(key, expected, &mut Near::nowhere())
    }

    fn resolve_near(
        &self,
        key: KeyRef<'_>,
        expected: Option<&str>,
        near: &mut Near,
    ) -> Result<usize, Unresolved> {
        match key {
            KeyRef::Global(key) => self.globals.get(key, near).copied().ok_or(Unresolved::Unknown),
            KeyRef::Routine(name) => self.routines.get(name, near).copied().ok_or(Unresolved::Unknown),
            KeyRef::Symbol(name) => {
                let BoundSymbol { address, signature } =
                    self.symbols.get(name, near).ok_or(Unresolved::Unknown)?;
                match (signature, expected) {
                    (Some(found), Some(expected)) if !agree(expected, found) => {
                        Err(Unresolved::Type { found: found.clone() })
                    }
                    _ => Ok(*address),
                }
            }
        }
    }
}

/// Whether code that expects the signature `expected` can call a function of signature `found`.
fn agree(expected: &str, found: &str) -> bool {
    // A malformed image may have a type of megabytes in every slot, which is not read. Attributes,
    // which are not compared, make a type at most a few times as long.
    expected.len() / 16 <= found.len() && signatures_agree(expected, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slots;

    #[test]
    fn globals_symbols_and_routines_of_one_name_are_three_things() {
        let mut bindings = Bindings::new();
        bindings.bind("puts", 1).bind_symbol("puts", 2).bind_routine("puts", 3);
        let keys = [SlotKey::Symbol, SlotKey::Routine, SlotKey::Global].map(|kind| kind("puts".into()));
        let slots: Slots = keys.into_iter().collect();
        assert_eq!(slots.addresses(&bindings).unwrap(), [2, 3, 1]);
    }

    #[test]
    fn a_function_of_another_type_is_refused() {
        let mut bindings = Bindings::new();
        bindings.bind_function("sin", 1, &"(f64) -> f64 system_v".parse().unwrap());
        let sin = |expected| {
            let slots = [(&SlotKey::Symbol("sin".into()), expected)];
            let anything = |_: &SlotKey| Some(7);
            crate::addresses(slots.into_iter(), &bindings.or(&anything)).map_err(|error| error.to_string())
        };
        assert_eq!(sin(Some("(f64 uext) -> f64 system_v")), Ok(vec![1]));
        assert_eq!(sin(None), Ok(vec![1]));
        let message = "1 slot(s) without an address: symbol `sin` is called as (f32) -> f32 system_v, but is \
                       bound as (f64) -> f64 system_v";
        assert_eq!(sin(Some("(f32) -> f32 system_v")), Err(message.into()));
    }
}
