//! Outputs: where records go that were not here before.

mod lines;

pub use lines::Lines;
