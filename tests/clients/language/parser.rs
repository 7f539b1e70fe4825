//! Parses tokens to a program, by recursive descent.

use cranelift_module::Linkage;

use super::Failure;
use super::ast::{Constant, Expr, Item, ItemKind, Lambda, Program, Stmt, TextContent, Type};
use super::lexer::{Token, tokens};

/// Reads a program.
pub(crate) fn parse(text: &str) -> Result<Program, Failure> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let mut items = Vec::new();
    while parser.at < parser.tokens.len() {
        items.push(parser.item()?);
    }
    Ok(Program { items })
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn fail<T>(&self, wanted: &str) -> Result<T, Failure> {
        let at = self.at.saturating_sub(1).min(self.tokens.len().saturating_sub(1));
        Err(match self.tokens.get(at) {
            Some((token, line)) => format!("line {line}: {wanted} expected, not {token:?}").into(),
            None => format!("{wanted} expected").into(),
        })
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Failure> {
        if self.take(sign) {
            return Ok(());
        }
        self.at += 1;
        self.fail(sign)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Result<String, Failure> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            _ => self.fail("a name"),
        }
    }

    fn size(&mut self) -> Result<usize, Failure> {
        match self.next() {
            Some(Token::Int(size)) => Ok(usize::try_from(size)?),
            _ => self.fail("a number"),
        }
    }

    /// `one {"," one}`, or nothing, up to `end`.
    fn list<T>(
        &mut self,
        end: &str,
        mut one: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let mut list = Vec::new();
        while !self.take(end) {
            if !list.is_empty() {
                self.expect(",")?;
            }
            list.push(one(self)?);
        }
        Ok(list)
    }

    fn item(&mut self) -> Result<Item, Failure> {
        const LINKAGES: [(&str, Linkage); 4] = [
            ("export", Linkage::Export),
            ("hidden", Linkage::Hidden),
            ("weak", Linkage::Preemptible),
            ("extern", Linkage::Import),
        ];
        let linkage = LINKAGES.iter().find(|(word, _)| self.take_word(word));
        let linkage = linkage.map_or(Linkage::Local, |(_, linkage)| *linkage);
        let keyword = self.word()?;
        let name = self.word()?;
        let kind = match &*keyword {
            "fn" => {
                self.expect("(")?;
                let params = self.list(")", Self::param)?;
                let result = if self.take("->") { self.ty()? } else { Type::Int };
                let body = if linkage == Linkage::Import { None } else { Some(self.block()?) };
                let function = ItemKind::Function(Lambda { params, result, body });
                if linkage != Linkage::Import {
                    return Ok(Item { name, linkage, kind: function });
                }
                function
            }
            "var" if self.take(":") => ItemKind::Variable(self.ty()?, None),
            "var" => {
                self.expect("=")?;
                match self.next() {
                    Some(Token::Int(value)) => ItemKind::Variable(Type::Int, Some(Constant::Int(value))),
                    Some(Token::Float(value)) => {
                        ItemKind::Variable(Type::Float, Some(Constant::Float(value)))
                    }
                    Some(Token::Word(value)) => ItemKind::Variable(Type::Text, Some(Constant::Name(value))),
                    _ => return self.fail("a constant"),
                }
            }
            "text" => {
                self.expect("=")?;
                let content = match self.next() {
                    Some(Token::Text(text)) => TextContent::Literal(text),
                    Some(Token::Word(other)) if self.take_word("from") => {
                        TextContent::Tail(other, self.size()?)
                    }
                    _ => return self.fail("a text"),
                };
                let then = if self.take_word("then") { Some(self.word()?) } else { None };
                ItemKind::Text { content, then }
            }
            "cells" => {
                self.expect("[")?;
                let size = self.size()?;
                self.expect("]")?;
                ItemKind::Cells(size)
            }
            "table" => {
                self.expect("=")?;
                let entries = self.list(";", Self::word)?;
                return Ok(Item { name, linkage, kind: ItemKind::Table(entries) });
            }
            _ => return self.fail("an item"),
        };
        self.expect(";")?;
        Ok(Item { name, linkage, kind })
    }

    fn param(&mut self) -> Result<(String, Type), Failure> {
        let name = self.word()?;
        self.expect(":")?;
        Ok((name, self.ty()?))
    }

    fn ty(&mut self) -> Result<Type, Failure> {
        Ok(match &*self.word()? {
            "int" => Type::Int,
            "float" => Type::Float,
            "text" => Type::Text,
            "cells" => Type::Cells,
            "fn" => {
                self.expect("(")?;
                let params = self.list(")", Self::ty)?;
                self.expect("->")?;
                Type::Function(params, Box::new(self.ty()?))
            }
            _ => return self.fail("a type"),
        })
    }

    fn block(&mut self) -> Result<Vec<Stmt>, Failure> {
        self.expect("{")?;
        let mut body = Vec::new();
        while !self.take("}") {
            body.push(self.stmt()?);
        }
        Ok(body)
    }

    fn stmt(&mut self) -> Result<Stmt, Failure> {
        if self.take_word("if") {
            let condition = self.expr(0)?;
            let yes = self.block()?;
            let no = if self.take_word("else") { self.block()? } else { Vec::new() };
            return Ok(Stmt::If(condition, yes, no));
        }
        if self.take_word("while") {
            return Ok(Stmt::While(self.expr(0)?, self.block()?));
        }
        let stmt = if self.take_word("let") {
            let name = self.word()?;
            self.expect("=")?;
            Stmt::Let(name, self.expr(0)?)
        } else if self.take_word("return") {
            Stmt::Return(self.expr(0)?)
        } else {
            let left = self.expr(0)?;
            match (self.take("="), left) {
                (false, left) => Stmt::Expr(left),
                (true, Expr::Name(name)) => Stmt::Assign(name, self.expr(0)?),
                (true, Expr::Index(array, index)) => Stmt::Store(*array, *index, self.expr(0)?),
                (true, _) => return self.fail("something that can be assigned"),
            }
        };
        self.expect(";")?;
        Ok(stmt)
    }

    /// Operators that bind at least as strongly as `level`.
    fn expr(&mut self, level: usize) -> Result<Expr, Failure> {
        const LEVELS: [&[&str]; 3] = [&["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];
        let Some(operators) = LEVELS.get(level) else { return self.prefix() };
        let mut left = self.expr(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            left = Expr::Binary(operator, Box::new(left), Box::new(self.expr(level + 1)?));
        }
        Ok(left)
    }

    fn prefix(&mut self) -> Result<Expr, Failure> {
        if self.take("-") {
            return Ok(Expr::Negate(Box::new(self.prefix()?)));
        }
        let mut value = self.atom()?;
        loop {
            if self.take("(") {
                value = Expr::Call(Box::new(value), self.list(")", |parser| parser.expr(0))?);
            } else if self.take("[") {
                value = Expr::Index(Box::new(value), Box::new(self.expr(0)?));
                self.expect("]")?;
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<Expr, Failure> {
        match self.next() {
            Some(Token::Int(value)) => Ok(Expr::Int(value)),
            Some(Token::Float(value)) => Ok(Expr::Float(value)),
            Some(Token::Text(text)) => Ok(Expr::Text(text)),
            Some(Token::Word(name)) => Ok(Expr::Name(name)),
            Some(Token::Sign("(")) => {
                let value = self.expr(0)?;
                self.expect(")")?;
                Ok(value)
            }
            Some(Token::Sign("|")) => {
                let params = self.list("|", Self::param)?;
                self.expect("->")?;
                let result = self.ty()?;
                Ok(Expr::Closure(Lambda { params, result, body: Some(self.block()?) }))
            }
            _ => self.fail("a value"),
        }
    }
}
