//! JSON lines, in and out: one object a line, the same keys in the same order everywhere.
//!
//! What is written here is what `rtlive decode`, `replay` and `tail` print, and what `format = "json"` sends; what is read here is
//! what `replay` takes. Times are printed in UTC with the shortest fraction, floats with the fewest digits that read back as the
//! same float, NaN and infinities as `null`, since JSON has no word for them.

mod read;
mod write;

pub use read::{LineError, LineFault, LineValue, ReadingLine, parse_reading};
pub use write::{Origin, write_last, write_record, write_values};
