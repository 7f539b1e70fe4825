//! The language.
//!
//! ```text
//! line ::= "(" "define" name expr ")" | "(" "define" "(" name {name} ")" expr ")" | expr
//! expr ::= number | "nil" | name | "(" "if" expr expr expr ")" | "(" name {expr} ")"
//! ```
//!
//! `+ - * < = rem cons head tail` are functions that are there. 0 and `nil` are false. `head` and
//! `tail` of what is no pair are `nil`. A line that begins with `;` is a comment.

/// The most expressions in a line. It bounds the recursion of all that work on a line.
const MAX_EXPRS: usize = 500;

/// One line of input.
pub(crate) enum Line {
    Variable { name: String, value: Expr },
    Function { name: String, params: Vec<String>, body: Expr },
    Expr(Expr),
}

#[derive(Clone)]
pub(crate) enum Expr {
    Number(i64),
    Nil,
    Name(String),
    If(Box<[Expr; 3]>),
    Call(String, Vec<Expr>),
}

type Parsed<T> = Result<T, String>;

/// Parses a line.
pub(crate) fn parse(text: &str) -> Parsed<Line> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut reader = Reader { tokens: spaced.split_whitespace().rev().collect(), left: MAX_EXPRS };
    let line = reader.line()?;
    match reader.tokens.pop() {
        None => Ok(line),
        Some(rest) => Err(format!("`{rest}` is left over")),
    }
}

/// The tokens that are left, backwards.
struct Reader<'t> {
    tokens: Vec<&'t str>,
    left: usize,
}

impl<'t> Reader<'t> {
    fn line(&mut self) -> Parsed<Line> {
        if !matches!(self.tokens[..], [.., "define", "("]) {
            return Ok(Line::Expr(self.expr()?));
        }
        self.tokens.truncate(self.tokens.len() - 2);
        let line = match self.next()? {
            "(" => {
                let (name, mut params) = (self.name()?, Vec::new());
                while self.tokens.last() != Some(&")") {
                    params.push(self.name()?);
                }
                self.expect(")")?;
                Line::Function { name, params, body: self.expr()? }
            }
            name => Line::Variable { name: check(name)?, value: self.expr()? },
        };
        self.expect(")")?;
        Ok(line)
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.left = self.left.checked_sub(1).ok_or("a line that is too long")?;
        let token = self.next()?;
        if let Ok(number) = token.parse::<i64>() {
            let fits = (number << 1) >> 1 == number;
            return if fits { Ok(Expr::Number(number)) } else { Err(format!("`{token}` is too large")) };
        }
        match token {
            "nil" => Ok(Expr::Nil),
            "(" => {
                let name = self.next()?.to_owned();
                let mut arguments = Vec::new();
                while self.tokens.last() != Some(&")") {
                    arguments.push(self.expr()?);
                }
                self.expect(")")?;
                if name != "if" {
                    return Ok(Expr::Call(name, arguments));
                }
                let parts = arguments.try_into().map_err(|_| "`if` has three parts")?;
                Ok(Expr::If(Box::new(parts)))
            }
            name => Ok(Expr::Name(check(name)?)),
        }
    }

    fn name(&mut self) -> Parsed<String> {
        check(self.next()?)
    }

    fn next(&mut self) -> Parsed<&'t str> {
        self.tokens.pop().ok_or_else(|| "the line ends too early".into())
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        let found = self.next()?;
        if found == token { Ok(()) } else { Err(format!("`{token}` is missing before `{found}`")) }
    }
}

fn check(name: &str) -> Parsed<String> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-?_".contains(c));
    if is_name { Ok(name.into()) } else { Err(format!("`{name}` is not a name")) }
}
