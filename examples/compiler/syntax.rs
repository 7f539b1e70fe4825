//! The language: its syntax tree, and a parser.
//!
//! ```text
//! fn gcd(a: int, b: int) -> int {
//!     while b != 0 {
//!         let rest = a % b;
//!         a = b;
//!         b = rest;
//!     }
//!     return a;
//! }
//! ```

use std::fmt;

/// How deeply expressions and blocks may be nested, so that no text exhausts the stack.
const MAX_DEPTH: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Int,
    Float,
    Bool,
}

/// A place in the text. Lines and columns count from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) params: Vec<(String, Type)>,
    pub(crate) result: Type,
    pub(crate) body: Vec<Statement>,
    pub(crate) place: Place,
    /// The place after its last token.
    pub(crate) end: Place,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Statement {
    pub(crate) place: Place,
    pub(crate) kind: StatementKind,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum StatementKind {
    /// `let name = value;`
    Let(String, Expr),
    /// `name = value;`
    Assign(String, Expr),
    /// `if condition { .. } else { .. }`
    If(Expr, Vec<Statement>, Vec<Statement>),
    /// `while condition { .. }`
    While(Expr, Vec<Statement>),
    /// `return value;`
    Return(Expr),
    /// `value;`
    Value(Expr),
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Expr {
    pub(crate) place: Place,
    pub(crate) kind: ExprKind,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum ExprKind {
    Int(i64),
    Float(f64),
    Bool(bool),
    Name(String),
    Call(String, Vec<Expr>),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Binary(Operator, Box<[Expr; 2]>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

/// An error in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.line, self.place.column, self.message)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
        })
    }
}

type Parsed<T> = Result<T, Fault>;

/// Reads a program.
pub(crate) fn parse(text: &str) -> Parsed<Vec<Function>> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let mut functions = Vec::new();
    while !parser.token().text.is_empty() {
        functions.push(parser.function()?);
    }
    Ok(functions)
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    place: Place,
    /// Empty at the end of the text.
    text: &'a str,
}

/// Divides a text into words, numbers and signs.
fn tokens(text: &str) -> Parsed<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut line_number = 0;
    for line in text.lines() {
        line_number += 1;
        let mut rest = line.split("//").next().unwrap_or_default();
        loop {
            rest = rest.trim_start();
            let Some(first) = rest.chars().next() else { break };
            let column = line[..rest.as_ptr() as usize - line.as_ptr() as usize].chars().count() + 1;
            let place = Place { line: line_number, column: column as u32 };
            let signs = ["->", "<=", ">=", "==", "!=", "(", ")", "{", "}", ",", ":", ";", "="];
            let signs = signs.iter().chain(&["+", "-", "*", "/", "%", "<", ">"]);
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let len = if is_word(first) {
                let is_part = |c| is_word(c) || c == '.' && first.is_ascii_digit();
                rest.find(|c| !is_part(c)).unwrap_or(rest.len())
            } else if let Some(sign) = signs.into_iter().find(|sign| rest.starts_with(**sign)) {
                sign.len()
            } else {
                return Err(Fault::new(place, format!("unexpected character {first:?}")));
            };
            tokens.push(Token { place, text: &rest[..len] });
            rest = &rest[len..];
        }
    }
    tokens.push(Token { place: Place { line: line_number + 1, column: 1 }, text: "" });
    Ok(tokens)
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn token(&self) -> Token<'a> {
        // The last token is the end, which is never passed.
        self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn is_next(&self, text: &str) -> bool {
        self.token().text == text
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.is_next(text);
        self.next += usize::from(found);
        found
    }

    fn unexpected<T>(&self, expected: &str) -> Parsed<T> {
        let Token { place, text } = self.token();
        let found = if text.is_empty() { "the end of the text".into() } else { format!("`{text}`") };
        Err(Fault::new(place, format!("expected {expected}, found {found}")))
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.take(text) { Ok(()) } else { self.unexpected(&format!("`{text}`")) }
    }

    fn name(&mut self) -> Parsed<String> {
        const WORDS: [&str; 11] =
            ["and", "else", "false", "fn", "if", "let", "not", "or", "return", "true", "while"];
        let text = self.token().text;
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !is_name || WORDS.contains(&text) {
            return self.unexpected("a name");
        }
        self.next += 1;
        Ok(text.to_owned())
    }

    /// Parses something that may contain itself.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::new(self.token().place, "too deeply nested"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn function(&mut self) -> Parsed<Function> {
        let place = self.token().place;
        self.expect("fn")?;
        let name = self.name()?;
        self.expect("(")?;
        let mut params = Vec::new();
        while !self.take(")") {
            let name = self.name()?;
            self.expect(":")?;
            params.push((name, self.ty()?));
            if !self.is_next(")") {
                self.expect(",")?;
            }
        }
        self.expect("->")?;
        let result = self.ty()?;
        let body = self.block()?;
        let end = self.tokens[self.next - 1].place;
        Ok(Function { name, params, result, body, place, end })
    }

    fn ty(&mut self) -> Parsed<Type> {
        let types = [("int", Type::Int), ("float", Type::Float), ("bool", Type::Bool)];
        match types.into_iter().find(|(name, _)| self.is_next(name)) {
            Some((_, ty)) => {
                self.next += 1;
                Ok(ty)
            }
            None => self.unexpected("a type: int, float or bool"),
        }
    }

    fn block(&mut self) -> Parsed<Vec<Statement>> {
        self.nested(|this| {
            this.expect("{")?;
            let mut statements = Vec::new();
            while !this.take("}") {
                statements.push(this.statement()?);
            }
            Ok(statements)
        })
    }

    fn statement(&mut self) -> Parsed<Statement> {
        let place = self.token().place;
        let kind = if self.take("if") {
            return Ok(Statement { place, kind: self.rest_of_if()? });
        } else if self.take("while") {
            return Ok(Statement { place, kind: StatementKind::While(self.expr()?, self.block()?) });
        } else if self.take("let") {
            let name = self.name()?;
            self.expect("=")?;
            StatementKind::Let(name, self.expr()?)
        } else if self.take("return") {
            StatementKind::Return(self.expr()?)
        } else {
            let value = self.expr()?;
            match value.kind {
                ExprKind::Name(name) if self.take("=") => StatementKind::Assign(name, self.expr()?),
                _ => StatementKind::Value(value),
            }
        };
        self.expect(";")?;
        Ok(Statement { place, kind })
    }

    fn rest_of_if(&mut self) -> Parsed<StatementKind> {
        let (condition, then) = (self.expr()?, self.block()?);
        let otherwise = if !self.take("else") {
            Vec::new()
        } else if self.is_next("if") {
            vec![self.nested(Self::statement)?]
        } else {
            self.block()?
        };
        Ok(StatementKind::If(condition, then, otherwise))
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.nested(|this| this.binary(0))
    }

    /// Parses operators that bind at least as strongly as those of `level`.
    fn binary(&mut self, level: usize) -> Parsed<Expr> {
        type Level = &'static [(&'static str, Operator)];
        const LEVELS: [Level; 5] = [
            &[("or", Operator::Or)],
            &[("and", Operator::And)],
            &[
                ("==", Operator::Equal),
                ("!=", Operator::NotEqual),
                ("<", Operator::Less),
                ("<=", Operator::LessEqual),
                (">", Operator::Greater),
                (">=", Operator::GreaterEqual),
            ],
            &[("+", Operator::Add), ("-", Operator::Sub)],
            &[("*", Operator::Mul), ("/", Operator::Div), ("%", Operator::Rem)],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(&(_, operator)) = operators.iter().find(|(sign, _)| self.is_next(sign)) {
            let place = self.token().place;
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = Expr { place, kind: ExprKind::Binary(operator, Box::new([left, right])) };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let place = self.token().place;
        let kind = if self.take("-") {
            ExprKind::Negate
        } else if self.take("not") {
            ExprKind::Not
        } else {
            return self.atom();
        };
        let operand = Box::new(self.nested(Self::unary)?);
        Ok(Expr { place, kind: kind(operand) })
    }

    fn atom(&mut self) -> Parsed<Expr> {
        let Token { place, text } = self.token();
        if self.take("(") {
            let inner = self.expr()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            self.next += 1;
            let int = text.parse().map(ExprKind::Int).ok();
            let float = || text.parse().map(ExprKind::Float).ok().filter(|_| text.contains('.'));
            let kind = int.or_else(float);
            let kind = kind.ok_or_else(|| Fault::new(place, format!("`{text}` is no number of 64 bits")))?;
            return Ok(Expr { place, kind });
        }
        if self.take("true") || self.take("false") {
            return Ok(Expr { place, kind: ExprKind::Bool(text == "true") });
        }
        let name = self.name()?;
        if !self.take("(") {
            return Ok(Expr { place, kind: ExprKind::Name(name) });
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            arguments.push(self.expr()?);
            if !self.is_next(")") {
                self.expect(",")?;
            }
        }
        Ok(Expr { place, kind: ExprKind::Call(name, arguments) })
    }
}
