//! The language: functions of 64-bit integers.
//!
//! ```text
//! line       ::= "fn" name "(" [name {"," name}] ")" "=" expression | expression
//! expression ::= comparison ["?" expression ":" expression]      ; 0 is false
//! comparison ::= sum [("<" | "==") sum]
//! sum        ::= product {("+" | "-") product}
//! product    ::= atom {"*" atom}
//! atom       ::= number | name ["(" [expression {"," expression}] ")"] | "-" atom
//!              | "(" expression ")"
//! ```
//!
//! There is no division, so nothing in the language can trap.

use std::fmt;

/// The largest number of atoms in a line. It bounds the recursion of all that work on a line.
const MAX_ATOMS: usize = 500;

/// One line of input.
pub(crate) enum Line {
    Define(Function),
    Evaluate(Expr),
}

pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) params: Vec<String>,
    pub(crate) body: Expr,
}

pub(crate) enum Expr {
    Number(i64),
    /// The parameter with this position.
    Param(usize),
    Call(String, Vec<Expr>),
    Binary(Operator, Box<[Expr; 2]>),
    /// Condition, value if it is not zero, value if it is.
    If(Box<[Expr; 3]>),
}

#[derive(Clone, Copy)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    Less,
    Equal,
}

/// The error for a line that is not of the language.
#[derive(Debug)]
pub(crate) struct SyntaxError(String);

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SyntaxError {}

type Parsed<T> = Result<T, SyntaxError>;

/// Parses a line, which is not empty.
pub(crate) fn parse(line: &str) -> Parsed<Line> {
    let mut parser = Parser { rest: line.trim(), params: Vec::new(), atoms: 0 };
    let line = match parser.keyword("fn") {
        true => Line::Define(parser.function()?),
        false => Line::Evaluate(parser.expression()?),
    };
    if !parser.rest.is_empty() {
        return Err(SyntaxError(format!("`{}` is left over", parser.rest)));
    }
    Ok(line)
}

struct Parser<'a> {
    /// The text that is not read yet, without spaces in front.
    rest: &'a str,
    params: Vec<String>,
    atoms: usize,
}

impl<'a> Parser<'a> {
    fn function(&mut self) -> Parsed<Function> {
        let name = self.name()?;
        self.expect("(")?;
        while !self.take(")") {
            if !self.params.is_empty() {
                self.expect(",")?;
            }
            let param = self.name()?;
            if self.params.contains(&param) {
                return Err(SyntaxError(format!("two parameters are called `{param}`")));
            }
            self.params.push(param);
        }
        self.expect("=")?;
        let body = self.expression()?;
        Ok(Function { name, params: std::mem::take(&mut self.params), body })
    }

    fn expression(&mut self) -> Parsed<Expr> {
        let condition = self.comparison()?;
        if !self.take("?") {
            return Ok(condition);
        }
        let yes = self.expression()?;
        self.expect(":")?;
        Ok(Expr::If(Box::new([condition, yes, self.expression()?])))
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.sum()?;
        for (token, operator) in [("<", Operator::Less), ("==", Operator::Equal)] {
            if self.take(token) {
                return Ok(Expr::Binary(operator, Box::new([left, self.sum()?])));
            }
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed<Expr> {
        let mut left = self.product()?;
        loop {
            let operator = match () {
                () if self.take("+") => Operator::Add,
                () if self.take("-") => Operator::Sub,
                () => return Ok(left),
            };
            left = Expr::Binary(operator, Box::new([left, self.product()?]));
        }
    }

    fn product(&mut self) -> Parsed<Expr> {
        let mut left = self.atom()?;
        while self.take("*") {
            left = Expr::Binary(Operator::Mul, Box::new([left, self.atom()?]));
        }
        Ok(left)
    }

    fn atom(&mut self) -> Parsed<Expr> {
        self.atoms += 1;
        if self.atoms > MAX_ATOMS {
            return Err(SyntaxError(format!("more than {MAX_ATOMS} operands")));
        }
        if self.take("-") {
            return Ok(Expr::Binary(Operator::Sub, Box::new([Expr::Number(0), self.atom()?])));
        }
        if self.take("(") {
            let value = self.expression()?;
            self.expect(")")?;
            return Ok(value);
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            let digits = self.word();
            let number = digits.parse().map_err(|error| SyntaxError(format!("`{digits}`: {error}")))?;
            return Ok(Expr::Number(number));
        }
        let name = self.name()?;
        if !self.take("(") {
            let param = self.params.iter().position(|param| *param == name);
            return param.map(Expr::Param).ok_or_else(|| SyntaxError(format!("no parameter `{name}`")));
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.expression()?);
        }
        Ok(Expr::Call(name, arguments))
    }

    fn name(&mut self) -> Parsed<String> {
        match self.rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            true => Ok(self.word().to_owned()),
            false => Err(SyntaxError(format!("a name or number is missing before `{}`", self.rest))),
        }
    }

    /// Takes letters, digits and underscores.
    fn word(&mut self) -> &'a str {
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let (word, rest) = self.rest.split_at(self.rest.find(is_end).unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        word
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let after = self.rest.strip_prefix(keyword).filter(|rest| rest.starts_with(char::is_whitespace));
        self.rest = after.map_or(self.rest, str::trim_start);
        after.is_some()
    }

    fn take(&mut self, token: &str) -> bool {
        let after = self.rest.strip_prefix(token);
        self.rest = after.map_or(self.rest, str::trim_start);
        after.is_some()
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        match self.take(token) {
            true => Ok(()),
            false => Err(SyntaxError(format!("`{token}` is missing before `{}`", self.rest))),
        }
    }
}
