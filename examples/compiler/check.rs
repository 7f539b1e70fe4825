//! Checks a program: names, types, and that each function returns.

use std::collections::BTreeMap;

use super::syntax::{Expr, ExprKind, Fault, Function, Operator, Place, Statement, StatementKind, Type};

/// The type of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Signature {
    pub(crate) params: Vec<Type>,
    pub(crate) result: Type,
}

/// The types of all functions, by name: those of the program, and those of the host.
pub(crate) type Signatures = BTreeMap<String, Signature>;

/// Functions of the host that a program may call: name, parameters, result.
pub(crate) const HOST: [(&str, &[Type], Type); 3] = [
    ("argument", &[Type::Int], Type::Int),
    ("print_int", &[Type::Int], Type::Int),
    ("print_float", &[Type::Float], Type::Float),
];

/// The function with which a program begins. It has no parameters and returns an `int`.
pub(crate) const MAIN: &str = "main";

/// Checks a program, and returns the types of its functions. All functions are checked, so that
/// there is an error for each wrong one.
pub(crate) fn check(program: &[Function]) -> Result<Signatures, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut signatures: Signatures = HOST
        .iter()
        .map(|&(name, params, result)| (name.to_owned(), Signature { params: params.to_vec(), result }))
        .collect();
    for function in program {
        let params = function.params.iter().map(|&(_, ty)| ty).collect();
        let signature = Signature { params, result: function.result };
        let main = Signature { params: Vec::new(), result: Type::Int };
        if function.name == MAIN && signature != main {
            faults.push(Fault::new(function.place, "`main` takes nothing and returns int"));
        }
        if signatures.insert(function.name.clone(), signature).is_some() {
            faults.push(Fault::new(function.place, format!("`{}` is defined already", function.name)));
        }
    }
    for function in program {
        let scope = function.params.clone();
        let mut checker = Checker { signatures: &signatures, result: function.result, scope };
        match checker.block(&function.body) {
            Ok(true) => {}
            Ok(false) => {
                faults.push(Fault::new(function.end, format!("`{}` may end without return", function.name)));
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(signatures) } else { Err(faults) }
}

struct Checker<'a> {
    signatures: &'a Signatures,
    result: Type,
    /// The visible variables, the innermost last.
    scope: Vec<(String, Type)>,
}

impl Checker<'_> {
    /// Checks statements, and returns whether they always return.
    fn block(&mut self, statements: &[Statement]) -> Result<bool, Fault> {
        let outer = self.scope.len();
        let mut returns = false;
        for statement in statements {
            if returns {
                return Err(Fault::new(statement.place, "this is never reached"));
            }
            returns = self.statement(statement)?;
        }
        self.scope.truncate(outer);
        Ok(returns)
    }

    fn statement(&mut self, statement: &Statement) -> Result<bool, Fault> {
        match &statement.kind {
            StatementKind::Let(name, value) => {
                let ty = self.value(value)?;
                self.scope.push((name.clone(), ty));
            }
            StatementKind::Assign(name, value) => {
                let ty = self.variable(name, statement.place)?;
                self.expect(value, ty)?;
            }
            StatementKind::If(condition, then, otherwise) => {
                self.expect(condition, Type::Bool)?;
                let returns = self.block(then)?;
                return Ok(self.block(otherwise)? && returns);
            }
            StatementKind::While(condition, body) => {
                self.expect(condition, Type::Bool)?;
                self.block(body)?;
            }
            StatementKind::Return(value) => {
                self.expect(value, self.result)?;
                return Ok(true);
            }
            StatementKind::Value(value) => {
                self.value(value)?;
            }
        }
        Ok(false)
    }

    fn variable(&self, name: &str, place: Place) -> Result<Type, Fault> {
        let found = self.scope.iter().rev().find(|(other, _)| other == name);
        found.map(|&(_, ty)| ty).ok_or_else(|| Fault::new(place, format!("there is no `{name}` here")))
    }

    fn expect(&self, expr: &Expr, expected: Type) -> Result<(), Fault> {
        let found = self.value(expr)?;
        if found == expected {
            return Ok(());
        }
        Err(Fault::new(expr.place, format!("expected {expected}, found {found}")))
    }

    fn value(&self, expr: &Expr) -> Result<Type, Fault> {
        let number = |operand: &Expr| match self.value(operand)? {
            Type::Bool => Err(Fault::new(operand.place, "expected a number, found bool")),
            ty => Ok(ty),
        };
        Ok(match &expr.kind {
            ExprKind::Int(_) => Type::Int,
            ExprKind::Float(_) => Type::Float,
            ExprKind::Bool(_) => Type::Bool,
            ExprKind::Name(name) => self.variable(name, expr.place)?,
            ExprKind::Negate(operand) => number(operand)?,
            ExprKind::Not(operand) => {
                self.expect(operand, Type::Bool)?;
                Type::Bool
            }
            ExprKind::Call(name, arguments) => {
                let signature = self.signatures.get(name);
                let signature =
                    signature.ok_or_else(|| Fault::new(expr.place, format!("no function `{name}`")))?;
                let (expected, found) = (signature.params.len(), arguments.len());
                if expected != found {
                    let message = format!("`{name}` takes {expected} arguments, not {found}");
                    return Err(Fault::new(expr.place, message));
                }
                for (argument, &ty) in arguments.iter().zip(&signature.params) {
                    self.expect(argument, ty)?;
                }
                signature.result
            }
            ExprKind::Binary(operator, operands) => {
                let [left, right] = &**operands;
                match operator {
                    Operator::And | Operator::Or => {
                        self.expect(left, Type::Bool)?;
                        self.expect(right, Type::Bool)?;
                        Type::Bool
                    }
                    Operator::Equal | Operator::NotEqual => {
                        self.expect(right, self.value(left)?)?;
                        Type::Bool
                    }
                    Operator::Rem => {
                        self.expect(left, Type::Int)?;
                        self.expect(right, Type::Int)?;
                        Type::Int
                    }
                    Operator::Add | Operator::Sub | Operator::Mul | Operator::Div => {
                        let ty = number(left)?;
                        self.expect(right, ty)?;
                        ty
                    }
                    Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
                        self.expect(right, number(left)?)?;
                        Type::Bool
                    }
                }
            }
        })
    }
}
