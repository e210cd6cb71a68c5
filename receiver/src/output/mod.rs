//! Outputs: where records go that were not here before.

mod files;
mod lines;
pub mod parquet;

pub use files::{Files, FilesError};
pub use lines::Lines;
