//! `rtlive store verify`: every checksum, and whether the sums agree.

use std::process::ExitCode;

use rtlive_core::frame;

use super::progress::Progress;
use crate::command::{Failure, print, told};
use crate::message::StoredFrame;
use crate::store::look::{Look, Looked};

/// Reads everything, and tells what does not hold; the exit code is 1 then.
pub(super) fn verify(store: &Look) -> Result<ExitCode, Failure> {
    let book = store.book()?;
    let mut faults = book.reckon().faults;
    let (mut frames, mut records) = (0_u64, 0_u64);
    let mut progress = Progress::new(store.frame_count()?, "frames");
    store.each_frame(|looked| -> Result<(), Failure> {
        progress.step();
        frames += 1;
        match looked {
            Looked::Damaged { key, epoch, numbers: (from, to) } => {
                faults.push(format!(
                    "stream {}, epoch {epoch}, records {from} to {to}: the frame is damaged",
                    key.stream
                ));
            }
            Looked::Whole(frame) => {
                records += u64::from(frame.records);
                if let Err(fault) = check(&frame) {
                    faults.push(format!("stream {}, epoch {}: {fault}", frame.stream, frame.epoch));
                }
            }
        }
        Ok(())
    })?;
    drop(progress);
    let (commits, snapshots) = (book.chunks.len(), book.snapshots.len());
    faults.iter().try_for_each(|fault| print(format_args!("{fault}\n")))?;
    print(format_args!(
        "{}: {frames} frames with {records} records, {commits} commits in the journal, {snapshots} snapshots: {}\n",
        store.path().display(),
        if faults.is_empty() { "all is well".into() } else { format!("{} faults", faults.len()) }
    ))?;
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a frame can be opened and says what its row says.
fn check(frame: &StoredFrame) -> Result<(), String> {
    if frame.json {
        return Ok(());
    }
    let (header, contents) = frame::open(&frame.bytes).map_err(|error| told(&error))?;
    let (said, found) = (u64::from(frame.records), contents.records.len() as u64);
    if header.origin.epoch != frame.epoch || header.origin.stream != frame.stream || said != found {
        return Err(format!(
            "expected a frame of {said} records, found one of {found} of stream {}, epoch {}",
            header.origin.stream, header.origin.epoch
        ));
    }
    Ok(())
}
