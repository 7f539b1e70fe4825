//! A function's type, and its conversion from and to text.
//!
//! The text is in Cranelift's notation, so Cranelift can parse it, and a loader can compare two
//! signatures without linking Cranelift: `(i64 vmctx, i32 uext) -> i8, f64 system_v`.

/// A parameter or return value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Param {
    /// Cranelift type: `i64`, `f32`, `i8x16`.
    pub ty: Box<str>,
    /// Extension and purpose, in Cranelift's words: `uext`, `sext`, `vmctx`, `sret`, `sarg(16)`.
    /// Usually empty.
    pub attributes: Vec<Box<str>>,
}

/// A function's type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Return values in order.
    pub returns: Vec<Param>,
    /// Calling convention, in Cranelift's words: `system_v`, `tail`, `fast`.
    pub call_conv: Box<str>,
}

/// The error for text that is not a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureError {
    text: Box<str>,
}

impl std::fmt::Display for SignatureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a signature: {:?}", self.text)
    }
}

impl std::error::Error for SignatureError {}

impl Signature {
    /// Whether a caller that expects `self` can call a function of type `other`: same calling
    /// convention, same types, and the same values passed in special ways (`sret`, `sarg`).
    /// Extensions and `vmctx` do not change where a value is passed, and are not compared.
    pub fn is_compatible(&self, other: &Self) -> bool {
        fn passing(param: &Param) -> impl Iterator<Item = &str> {
            param
                .attributes
                .iter()
                .map(|word| &**word)
                .filter(|word| !matches!(*word, "uext" | "sext" | "vmctx"))
        }
        fn same(a: &[Param], b: &[Param]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.ty == b.ty && passing(a).eq(passing(b)))
        }
        self.call_conv == other.call_conv
            && same(&self.params, &other.params)
            && same(&self.returns, &other.returns)
    }
}

/// Whether a caller that expects signature `a` can call a function of signature `b`, both as text.
///
/// Text that is not a signature agrees only with equal text.
pub fn signatures_agree(a: &str, b: &str) -> bool {
    a == b
        || matches!((a.parse::<Signature>(), b.parse::<Signature>()), (Ok(a), Ok(b)) if a.is_compatible(&b))
}

impl std::str::FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        parse(text).ok_or_else(|| SignatureError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<Signature> {
    let rest = text.trim().strip_prefix('(')?;
    // `sarg(16)` nests one level; find the parenthesis that closes the list.
    let mut depth = 0usize;
    let close = rest.find(|c| match c {
        '(' => {
            depth += 1;
            false
        }
        ')' if depth == 0 => true,
        ')' => {
            depth -= 1;
            false
        }
        _ => false,
    })?;
    let params = list(&rest[..close])?;
    let rest = rest[close + 1..].trim();
    let (returns, call_conv) = match rest.strip_prefix("->") {
        None => (Vec::new(), rest),
        Some(rest) => {
            let (returns, call_conv) = rest.trim().rsplit_once(' ')?;
            (list(returns)?, call_conv)
        }
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if call_conv.is_empty() || !call_conv.chars().all(word) {
        return None;
    }
    Some(Signature { params, returns, call_conv: call_conv.into() })
}

fn list(text: &str) -> Option<Vec<Param>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|param| {
            let mut words = param.split_whitespace();
            let ty = words.next().filter(|ty| ty.chars().all(|c| c.is_ascii_alphanumeric()))?;
            Some(Param { ty: ty.into(), attributes: words.map(Into::into).collect() })
        })
        .collect()
}

impl std::fmt::Display for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.ty)?;
        self.attributes.iter().try_for_each(|attribute| write!(f, " {attribute}"))
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn list(f: &mut std::fmt::Formatter<'_>, params: &[Param]) -> std::fmt::Result {
            for (index, param) in params.iter().enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{param}")?;
            }
            Ok(())
        }
        f.write_str("(")?;
        list(f, &self.params)?;
        f.write_str(")")?;
        if !self.returns.is_empty() {
            f.write_str(" -> ")?;
            list(f, &self.returns)?;
        }
        write!(f, " {}", self.call_conv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "() system_v",
            "(i64 vmctx, i32 uext) -> i8, f64 system_v",
            "(i64 sarg(16), i8x16) -> i32 sext tail",
            "(i64 sret) fast",
        ] {
            assert_eq!(text.parse::<Signature>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in
            ["", "(", "()", "i32", "(i32) ->", "(i32) -> i32", "(i3(2) system_v", "(,) fast", "() sys-v"]
        {
            assert!(text.parse::<Signature>().is_err(), "{text}");
        }
    }

    #[test]
    fn attributes_do_not_make_a_conflict_but_types_do() {
        let a: Signature = "(i32 uext) -> i8 system_v".parse().unwrap();
        assert!(a.is_compatible(&"(i32) -> i8 sext system_v".parse().unwrap()));
        assert!(!a.is_compatible(&"(i64) -> i8 system_v".parse().unwrap()));
        assert!(!a.is_compatible(&"(i32) -> i8 fast".parse().unwrap()));
        assert!(!a.is_compatible(&"(i32) system_v".parse().unwrap()));
        let b: Signature = "(i64 vmctx, i64) system_v".parse().unwrap();
        assert!(b.is_compatible(&"(i64, i64) system_v".parse().unwrap()));
        assert!(!b.is_compatible(&"(i64 vmctx, i64 sarg(16)) system_v".parse().unwrap()));
        assert!(!b.is_compatible(&"(i64 sret, i64) system_v".parse().unwrap()));
    }
}
