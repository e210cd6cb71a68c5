//! From tokens to a tree: precedence climbing, with the kinds that are known checked on the way.

use std::fmt;
use std::sync::Arc;

use super::lex::{Lexeme, Token, tokens};
use super::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};
use crate::sorted;

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found} at byte {at} of the expression")]
pub struct ExprError {
    /// The byte of the text, from 0.
    pub at: usize,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl ExprError {
    pub(super) fn new(at: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { at, expected: expected.into(), found: found.into() }
    }
}

/// What an expression evaluates to, as far as that is known without values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer or a float.
    Number,
    /// True or false.
    Bool,
    /// A text.
    Text,
    /// Whatever the series bring.
    Any,
}

impl Kind {
    /// Whether a value of this kind may stand where `wanted` is needed.
    const fn fits(self, wanted: Self) -> bool {
        matches!((self, wanted), (Self::Any, _) | (_, Self::Any))
            || matches!(
                (self, wanted),
                (Self::Number, Self::Number) | (Self::Bool, Self::Bool) | (Self::Text, Self::Text)
            )
    }

    /// The kind of one of two values.
    const fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Number, Self::Number) => Self::Number,
            (Self::Bool, Self::Bool) => Self::Bool,
            (Self::Text, Self::Text) => Self::Text,
            _ => Self::Any,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Text => "a text",
            Self::Any => "a value",
        })
    }
}

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Arc<str>),
    Newest(usize),
    Previous(usize),
    Rate(usize),
    Negate(Box<Self>),
    Not(Box<Self>),
    Abs(Box<Self>),
    Binary(Operator, Box<[Self; 2]>),
    Least(Box<[Self]>),
    Greatest(Box<[Self]>),
    Clamp(Box<[Self; 3]>),
    If(Box<[Self; 3]>),
}

/// An operator between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// How tightly operators bind; more is tighter.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARISON: u8 = 4;
const SUM: u8 = 5;
const PRODUCT: u8 = 6;
const NEGATION: u8 = 7;

impl Operator {
    /// The operator that a token is, and how tightly it binds.
    fn of(token: &Lexeme) -> Option<(Self, u8)> {
        Some(match token {
            Lexeme::Name(name) if name == "or" => (Self::Or, OR),
            Lexeme::Name(name) if name == "and" => (Self::And, AND),
            Lexeme::Sign("==") => (Self::Equal, COMPARISON),
            Lexeme::Sign("!=") => (Self::Unequal, COMPARISON),
            Lexeme::Sign("<") => (Self::Less, COMPARISON),
            Lexeme::Sign("<=") => (Self::LessOrEqual, COMPARISON),
            Lexeme::Sign(">") => (Self::Greater, COMPARISON),
            Lexeme::Sign(">=") => (Self::GreaterOrEqual, COMPARISON),
            Lexeme::Sign("+") => (Self::Add, SUM),
            Lexeme::Sign("-") => (Self::Subtract, SUM),
            Lexeme::Sign("*") => (Self::Multiply, PRODUCT),
            Lexeme::Sign("/") => (Self::Divide, PRODUCT),
            Lexeme::Sign("%") => (Self::Remainder, PRODUCT),
            _ => return None,
        })
    }

    /// What it takes and what it gives.
    const fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::Or | Self::And => (Kind::Bool, Kind::Bool),
            Self::Equal | Self::Unequal => (Kind::Any, Kind::Bool),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => (Kind::Number, Kind::Bool),
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => {
                (Kind::Number, Kind::Number)
            }
        }
    }
}

/// A node, its kind, how deep it is, and the byte at which it begins.
struct Part {
    node: Node,
    kind: Kind,
    height: usize,
    at: usize,
}

impl Part {
    fn needs(&self, wanted: Kind) -> Result<(), ExprError> {
        if self.kind.fits(wanted) {
            return Ok(());
        }
        Err(ExprError::new(self.at, wanted.to_string(), self.kind.to_string()))
    }
}

/// Parses a whole text.
pub(super) fn parse(text: &str, bindings: &[(&str, Kind)]) -> Result<(Node, Kind), ExprError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return Err(ExprError::new(EXPRESSION_BYTES_MAX, format!("at most {EXPRESSION_BYTES_MAX} bytes"), found));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, bindings };
    let part = parser.expression(0)?;
    match parser.peek() {
        Lexeme::End => Ok((part.node, part.kind)),
        other => Err(ExprError::new(parser.at(), "an operator or the end", other.describe())),
    }
}

struct Parser<'a> {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    bindings: &'a [(&'a str, Kind)],
}

impl Parser<'_> {
    /// The next token; the last one, the end, is never passed.
    fn peek(&self) -> &Lexeme {
        self.tokens.get(self.next).map_or(&Lexeme::End, |token| &token.what)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |token| token.at)
    }

    fn take(&mut self) -> Lexeme {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn expect(&mut self, sign: &'static str, expected: &str) -> Result<(), ExprError> {
        if *self.peek() != Lexeme::Sign(sign) {
            return Err(ExprError::new(self.at(), expected, self.peek().describe()));
        }
        self.take();
        Ok(())
    }

    /// An expression whose operators all bind more tightly than `floor`.
    fn expression(&mut self, floor: u8) -> Result<Part, ExprError> {
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        let mut left = self.prefix()?;
        while let Some((operator, binding)) = Operator::of(self.peek()) {
            if binding <= floor {
                break;
            }
            if left.kind == Kind::Bool && binding == COMPARISON && is_comparison(&left.node) && !self.closed_before() {
                return Err(ExprError::new(self.at(), "`and`, `or` or the end", self.peek().describe()));
            }
            // A chain such as 1 + 1 + … grows to the left: as deep to evaluate as parentheses.
            if left.height >= EXPRESSION_DEPTH_MAX {
                return Err(too_deep(self.at()));
            }
            self.take();
            let right = self.expression(binding)?;
            left = join(operator, left, right)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// Whether what was just read ended with a parenthesis, so that `(a < b) == c` is meant.
    fn closed_before(&self) -> bool {
        self.next.checked_sub(1).and_then(|i| self.tokens.get(i)).is_some_and(|token| token.what == Lexeme::Sign(")"))
    }

    /// A value, or something with an operator before it.
    fn prefix(&mut self) -> Result<Part, ExprError> {
        let at = self.at();
        let (node, kind, height) = match self.take() {
            Lexeme::Int(value) => (Node::Int(value), Kind::Number, 1),
            Lexeme::Float(value) => (Node::Float(value), Kind::Number, 1),
            Lexeme::Text(text) => (Node::Text(text.into()), Kind::Text, 1),
            Lexeme::Sign("-") => {
                let part = self.expression(NEGATION)?;
                part.needs(Kind::Number)?;
                (Node::Negate(part.node.into()), Kind::Number, part.height + 1)
            }
            Lexeme::Sign("(") => {
                let part = self.expression(0)?;
                self.expect(")", "an operator or `)`")?;
                (part.node, part.kind, part.height)
            }
            Lexeme::Name(name) => match name.as_str() {
                "true" => (Node::Bool(true), Kind::Bool, 1),
                "false" => (Node::Bool(false), Kind::Bool, 1),
                "not" => {
                    let part = self.expression(NOT)?;
                    part.needs(Kind::Bool)?;
                    (Node::Not(part.node.into()), Kind::Bool, part.height + 1)
                }
                name if *self.peek() == Lexeme::Sign("(") => self.call(name, at)?,
                name => {
                    let place = self.binding(name, at)?;
                    (Node::Newest(place), self.kind(place), 1)
                }
            },
            other => return Err(ExprError::new(at, "a value", other.describe())),
        };
        Ok(Part { node, kind, height, at })
    }

    /// The place of a name among the bindings.
    fn binding(&self, name: &str, at: usize) -> Result<usize, ExprError> {
        self.bindings.iter().position(|(binding, _)| *binding == name).ok_or_else(|| {
            let mut names: Vec<_> = self.bindings.iter().map(|(binding, _)| format!("`{binding}`")).collect();
            sorted::by(&mut names, Ord::cmp);
            let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
            ExprError::new(at, format!("a name of `let` (it has {names})"), format!("`{name}`"))
        })
    }

    /// The kind of a name's values.
    fn kind(&self, place: usize) -> Kind {
        self.bindings.get(place).map_or(Kind::Any, |(_, kind)| *kind)
    }

    /// A function's arguments, after its name.
    fn call(&mut self, name: &str, at: usize) -> Result<(Node, Kind, usize), ExprError> {
        if !["min", "max", "abs", "clamp", "if", "prev", "rate"].contains(&name) {
            let expected = "a function: min, max, abs, clamp, if, prev or rate";
            return Err(ExprError::new(at, expected, format!("`{name}`")));
        }
        self.take();
        if name == "prev" || name == "rate" {
            let argument_at = self.at();
            let place = match self.take() {
                Lexeme::Name(name) if name.contains('.') => {
                    let expected = "a name without an aggregate: what a window says has no value before";
                    return Err(ExprError::new(argument_at, expected, format!("`{name}`")));
                }
                Lexeme::Name(argument) => self.binding(&argument, argument_at)?,
                other => return Err(ExprError::new(argument_at, "a name of `let`", other.describe())),
            };
            self.expect(")", "`)`")?;
            if name == "rate" && !self.kind(place).fits(Kind::Number) {
                return Err(ExprError::new(argument_at, Kind::Number.to_string(), self.kind(place).to_string()));
            }
            return Ok(match name {
                "prev" => (Node::Previous(place), self.kind(place), 1),
                _ => (Node::Rate(place), Kind::Number, 1),
            });
        }
        let mut parts = vec![self.expression(0)?];
        while *self.peek() == Lexeme::Sign(",") {
            self.take();
            parts.push(self.expression(0)?);
        }
        let closes_at = self.at();
        self.expect(")", "`,` or `)`")?;
        let count = parts.len();
        let height = 1 + parts.iter().map(|part| part.height).max().unwrap_or(0);
        let wrong_count = |wanted: &str| {
            ExprError::new(closes_at, format!("{wanted} of `{name}`"), format!("{count} argument{}", plural(count)))
        };
        if name == "if" {
            let [condition, then, otherwise] =
                <[Part; 3]>::try_from(parts).map_err(|_| wrong_count("the three arguments"))?;
            condition.needs(Kind::Bool)?;
            let kind = then.kind.join(otherwise.kind);
            return Ok((Node::If([condition.node, then.node, otherwise.node].into()), kind, height));
        }
        for part in &parts {
            part.needs(Kind::Number)?;
        }
        let nodes: Vec<Node> = parts.into_iter().map(|part| part.node).collect();
        let node = match name {
            "min" => Node::Least(nodes.into()),
            "max" => Node::Greatest(nodes.into()),
            "abs" => {
                let [node] = <[Node; 1]>::try_from(nodes).map_err(|_| wrong_count("the one argument"))?;
                Node::Abs(node.into())
            }
            _ => {
                let nodes = <[Node; 3]>::try_from(nodes).map_err(|_| wrong_count("the three arguments"))?;
                Node::Clamp(nodes.into())
            }
        };
        Ok((node, Kind::Number, height))
    }
}

fn too_deep(at: usize) -> ExprError {
    ExprError::new(at, format!("at most {EXPRESSION_DEPTH_MAX} levels"), "a deeper or longer expression")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn is_comparison(node: &Node) -> bool {
    matches!(node, Node::Binary(operator, _) if !matches!(operator, Operator::And | Operator::Or))
}

fn join(operator: Operator, left: Part, right: Part) -> Result<Part, ExprError> {
    let (takes, gives) = operator.kinds();
    left.needs(takes)?;
    right.needs(takes)?;
    right.needs(left.kind)?;
    let height = 1 + left.height.max(right.height);
    Ok(Part { node: Node::Binary(operator, [left.node, right.node].into()), kind: gives, height, at: left.at })
}
