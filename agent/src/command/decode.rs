//! `rtlive decode`: messages from the broker to JSON lines.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, tell, told};
use crate::opener::{OpenError, Opened, Opener};

/// How much is read at once.
const READ_BYTES: usize = 1 << 16;

/// Decodes files, or standard input, of messages in a row; each file begins anew. Lines are flushed message by message. What cannot be
/// decoded is told on standard error and passed over; the exit code is then 1.
///
/// # Errors
/// [`Failure::Failed`] when a file cannot be read or the lines cannot be written.
pub fn decode(files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let stdin = [PathBuf::from("-")];
    let files = if files.is_empty() { &stdin } else { files };
    let mut faults = 0;
    for path in files {
        let reader: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(Failure::at(format!("open {}", path.display())))?)
        };
        faults += decode_one(path, reader)?;
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Decodes one stream, and returns how much of it could not be decoded.
fn decode_one(path: &Path, mut reader: impl Read) -> Result<u64, Failure> {
    let mut opener = Opener::default();
    let mut faults = 0;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let count = match reader.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::at(format!("read {}", path.display()))(error)),
        };
        opener.feed(bytes.get(..count).unwrap_or_default());
        while let Some(opened) = opener.next_opened() {
            faults += print(path, opened)?;
        }
    }
    while let Some(opened) = opener.finish() {
        faults += print(path, opened)?;
    }
    let incomplete = opener.frames_incomplete();
    if incomplete > 0 {
        tell(format_args!("{}: {incomplete} frames lack parts", path.display()));
    }
    let without_schema = opener.frames_without_schema();
    if without_schema > 0 {
        tell(format_args!(
            "{}: {without_schema} frames lack their schema, a retained message of the agent",
            path.display()
        ));
    }
    Ok(faults + (incomplete + without_schema) as u64)
}

fn print(path: &Path, opened: Result<Opened, OpenError>) -> Result<u64, Failure> {
    match opened {
        Ok(opened) => {
            let mut lines = Vec::new();
            opened.write_lines(&mut lines);
            let mut out = io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush()).map_err(Failure::at("write to standard output"))?;
            Ok(0)
        }
        Err(error) => {
            tell(format_args!("{}: {}", path.display(), told(&error)));
            Ok(1)
        }
    }
}
