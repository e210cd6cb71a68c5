//! Expressions over named values (contract §1, "Expressions").

use std::fmt;

use serde::{Deserialize, Serialize};

/// A compiled expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expression {
    source: String,
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}
