//! Spans of the feature `tracing`: without it, the macros expand to nothing.

/// Opens a span that ends with the block it is in. Its fields are borrowed texts or numbers.
#[cfg(feature = "tracing")]
macro_rules! span {
    ($name:literal $(, $field:ident = $value:expr)*) => {
        let _span = tracing::debug_span!($name $(, $field = $value)*).entered();
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! span {
    ($($anything:tt)*) => {};
}

/// Sets the field `outcome` of the innermost open span.
#[cfg(feature = "tracing")]
macro_rules! outcome {
    ($text:expr) => {
        tracing::Span::current().record("outcome", $text);
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! outcome {
    ($($anything:tt)*) => {};
}
