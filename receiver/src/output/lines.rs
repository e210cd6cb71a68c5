//! JSON lines on standard output.
//!
//! Lines are written and flushed before the commit that makes their numbers known. A process that is killed in between writes them again after its next
//! start, when their messages come again; nothing that was committed comes twice. What a line says of its record (agent, epoch, stream, class, number) is
//! enough to pass over what came before.

use std::io::{self, Write};

use rtlive_core::json::{Origin, write_record};

use crate::new_records::NewRecords;

/// Writes JSON lines.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Lines<W> {
    /// Lines to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Adds the new records of a frame.
    ///
    /// # Errors
    /// What the system said.
    pub fn write(&mut self, records: &NewRecords) -> io::Result<()> {
        let origin = &records.header.origin;
        let epoch = origin.epoch.to_string();
        let origin = Origin::of_frame(origin, &epoch, records.historical);
        let (series, compute) = (&records.contents.series, &records.contents.compute);
        for (seq, record) in records.iter() {
            write_record(&mut self.buffer, &origin, seq, record, series, compute);
            self.buffer.push(b'\n');
        }
        // One frame at a time, so that memory does not grow with a batch of long ones.
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Hands on all that was written.
    ///
    /// # Errors
    /// What the system said.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
