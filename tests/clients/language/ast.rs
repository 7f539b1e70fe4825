//! The syntax tree of a program.

use cranelift_module::Linkage;

/// A type. Every value takes 8 bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Int,
    Float,
    /// A pointer to a length, a pointer to bytes, and a pointer to the next text or null.
    Text,
    /// A pointer to integers.
    Cells,
    /// A pointer to pointers.
    Table(Box<Type>),
    /// A pointer to a code pointer, which the captured values follow.
    Function(Vec<Type>, Box<Type>),
}

/// A whole program.
pub(crate) struct Program {
    pub(super) items: Vec<Item>,
}

pub(super) struct Item {
    pub(super) name: String,
    pub(super) linkage: Linkage,
    pub(super) kind: ItemKind,
}

pub(super) enum ItemKind {
    /// The body is missing if another program defines the function.
    Function(Lambda),
    Variable(Type, Option<Constant>),
    Text {
        content: TextContent,
        then: Option<String>,
    },
    /// A number of zeros.
    Cells(usize),
    /// Texts, or functions, by name.
    Table(Vec<String>),
}

pub(super) enum TextContent {
    Literal(String),
    /// The rest of another text, from a position.
    Tail(String, usize),
}

pub(super) enum Constant {
    Int(i64),
    Float(f64),
    /// A text or a function.
    Name(String),
}

/// A function or a closure.
pub(super) struct Lambda {
    pub(super) params: Vec<(String, Type)>,
    pub(super) result: Type,
    pub(super) body: Option<Vec<Stmt>>,
}

pub(super) enum Stmt {
    Let(String, Expr),
    Assign(String, Expr),
    Store(Expr, Expr, Expr),
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    While(Expr, Vec<Stmt>),
    Return(Expr),
    Expr(Expr),
}

pub(super) enum Expr {
    Int(i64),
    Float(f64),
    Text(String),
    Name(String),
    Negate(Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Call(Box<Expr>, Vec<Expr>),
    Index(Box<Expr>, Box<Expr>),
    Closure(Lambda),
}

/// Calls `visit` with every name that the statements read or assign.
pub(super) fn names<'a>(body: &'a [Stmt], visit: &mut dyn FnMut(&'a str)) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, value) | Stmt::Return(value) | Stmt::Expr(value) => value.names(visit),
            Stmt::Assign(name, value) => {
                visit(name);
                value.names(visit);
            }
            Stmt::Store(array, index, value) => [array, index, value].iter().for_each(|e| e.names(visit)),
            Stmt::If(condition, yes, no) => {
                condition.names(visit);
                names(yes, visit);
                names(no, visit);
            }
            Stmt::While(condition, body) => {
                condition.names(visit);
                names(body, visit);
            }
        }
    }
}

impl Expr {
    fn names<'a>(&'a self, visit: &mut dyn FnMut(&'a str)) {
        match self {
            Self::Int(_) | Self::Float(_) | Self::Text(_) => {}
            Self::Name(name) => visit(name),
            Self::Negate(value) => value.names(visit),
            Self::Binary(_, a, b) | Self::Index(a, b) => {
                a.names(visit);
                b.names(visit);
            }
            Self::Call(callee, arguments) => {
                callee.names(visit);
                arguments.iter().for_each(|argument| argument.names(visit));
            }
            Self::Closure(lambda) => names(lambda.body.as_deref().unwrap_or_default(), visit),
        }
    }
}
