//! A small typed language, compiled by code that is generic over `cranelift_module::Module`.
//!
//! This folder is a client as others write them: it uses the trait and knows none of its
//! implementations, and a test makes sure that it names none. The language is small, but complete:
//! functions of every linkage, recursion, integers and floats, texts, tables, arrays, global
//! variables, and closures that capture by value.
//!
//! ```text
//! item  ::= [linkage] "fn" name "(" [param {"," param}] ")" ["->" type] (block | ";")
//!         | [linkage] "var" name (":" type | "=" (number | name)) ";"
//!         | [linkage] "text" name "=" (string | name "from" int) ["then" name] ";"
//!         | [linkage] "cells" name "[" int "]" ";"
//!         | [linkage] "table" name "=" name {"," name} ";"
//! linkage ::= "export" | "hidden" | "weak" | "extern"                    ; private if left out
//! type  ::= "int" | "float" | "text" | "cells" | "fn" "(" [type {"," type}] ")" "->" type
//! stmt  ::= "let" name "=" expr ";" | name "=" expr ";" | expr ";"
//!         | expr "[" expr "]" "=" expr ";" | "if" expr block ["else" block] | "while" expr block
//!         | "return" expr ";"
//! expr  ::= the usual, and "|" params "|" "->" type block for a closure
//! ```
//!
//! A function without a `return` at its end returns zero. Functions that are built in: `len`,
//! `next`, `int`, `float`, `sqrt`, `floor`, `fused` (multiply and add), `address`. The host has
//! `allocate`, which closures use.

mod ast;
mod body;
mod closure;
mod constants;
mod expression;
mod generate;
mod lexer;
mod parser;

pub(crate) use ast::Program;
pub(crate) use generate::generate;
pub(crate) use parser::parse;

/// An error message.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
