//! Expressions over named values (contract §1, "Expressions").
//!
//! ```text
//! text ──lex──▶ tokens ──parse (with the kinds that are known)──▶ tree ──eval (with the newest samples)──▶ value or missing
//! ```
//!
//! **Why a parser of its own.** The grammar is small, and what makes it ours is what general expression crates lack: a value that is
//! *missing* passes through every operator, `prev` and `rate` look at the sample before, and nothing is allocated per reading.
//!
//! **Meaning.**
//! - Precedence, loosest first: `or`, `and`, `not`, comparison, `+ -`, `* / %`, unary `-`. Comparisons do not chain.
//! - Integers stay integers under `+ - * %`, `abs`, `min`, `max`, `clamp` unless they overflow, then they become floats; `/` always
//!   gives a float. `%` has the sign of its left side.
//! - A side that is missing, bad, or of a kind that the operator does not take makes the result missing: also of `and` and `or`
//!   whose other side alone would decide. `if` looks only at the branch that it takes.
//! - A number that is not finite (a division by zero) is missing.
//! - `prev(x)` is the value of `x` at the sample before the newest, `rate(x)` the change since then per second. Both are missing
//!   until there are two.

mod eval;
mod lex;
mod parse;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::reading::{Scalar, Value};
use crate::time::Timestamp;

pub use parse::{ExprError, Kind};

/// The longest text of an expression, in bytes. Twenty times what a person still reads.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// How deep an expression may be nested: evaluation recurses, and a gateway's stack is small.
pub const EXPRESSION_DEPTH_MAX: usize = 64;

/// A compiled expression.
///
/// Equal when text and bindings are; stored as these two, and compiled again when read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Expression {
    written: Written,
    root: parse::Node,
    kind: Kind,
}

/// What an expression is stored as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Written {
    text: String,
    bindings: Vec<Arc<str>>,
}

/// One observation, as expressions see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was observed.
    pub time: Timestamp,
    /// What was observed; `None` where the reading was bad.
    pub value: Option<Value>,
}

/// Where an expression finds the samples of its bindings, by their place in the list that it was compiled against.
pub trait Scope {
    /// The newest sample.
    fn newest(&self, binding: usize) -> Option<&Sample>;
    /// The sample before the newest.
    fn previous(&self, binding: usize) -> Option<&Sample>;
}

impl Expression {
    /// Compiles a text against the names that it may use.
    ///
    /// # Errors
    /// [`ExprError`] says at which byte of the text what was expected.
    pub fn parse<N: AsRef<str>>(text: &str, bindings: &[N]) -> Result<Self, ExprError> {
        let names: Vec<(&str, Kind)> = bindings.iter().map(|name| (name.as_ref(), Kind::Any)).collect();
        Self::parse_typed(text, &names)
    }

    /// Compiles a text against names of which it is known what kind of values they have.
    ///
    /// # Errors
    /// See [`Expression::parse`].
    pub fn parse_typed(text: &str, bindings: &[(&str, Kind)]) -> Result<Self, ExprError> {
        let (root, kind) = parse::parse(text, bindings)?;
        let bindings = bindings.iter().map(|(name, _)| Arc::from(*name)).collect();
        let written = Written { text: text.to_owned(), bindings };
        Ok(Self { written, root, kind })
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.written.text
    }

    /// The names that it was compiled against; places in a [`Scope`] count along these.
    pub fn bindings(&self) -> &[Arc<str>] {
        &self.written.bindings
    }

    /// What it evaluates to, as far as that is known without values. A condition must be [`Kind::Bool`] or [`Kind::Any`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The value, or `None` when it is missing. Does not allocate.
    pub fn eval<'a>(&'a self, scope: &'a impl Scope) -> Option<Scalar<'a>> {
        eval::eval(&self.root, scope)
    }

    /// The value as a condition: `None` when it is missing or no bool.
    pub fn holds(&self, scope: &impl Scope) -> Option<bool> {
        match self.eval(scope) {
            Some(Scalar::Bool(value)) => Some(value),
            _ => None,
        }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written.text)
    }
}

impl From<Expression> for Written {
    fn from(expression: Expression) -> Self {
        expression.written
    }
}

impl TryFrom<Written> for Expression {
    type Error = ExprError;

    fn try_from(written: Written) -> Result<Self, ExprError> {
        let names: Vec<(&str, Kind)> = written.bindings.iter().map(|name| (&**name, Kind::Any)).collect();
        let (root, kind) = parse::parse(&written.text, &names)?;
        Ok(Self { written, root, kind })
    }
}

#[cfg(test)]
mod tests;
