//! `rtlive store repair`: what is whole in a damaged store, as a new one, with a report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rtlive_core::sorted;
use serde::Serialize;

use super::progress::Progress;
use crate::command::{Failure, print};
use crate::store::look::{Look, Looked};
use crate::store::repair::{Salvaged, repair};

/// What came of it.
#[derive(Serialize)]
struct Report {
    path: String,
    output: String,
    saved: Salvaged,
    records: u64,
    lost: Vec<Lost>,
    /// Commits that are missing from the journal: the first and the last.
    commits_lost: Vec<(u64, u64)>,
    faults: Vec<String>,
}

/// Records that are not there.
#[derive(Serialize)]
struct Lost {
    stream: String,
    class: String,
    epoch: String,
    from: u64,
    to: u64,
    why: &'static str,
}

/// Writes the new file, beside the damaged one unless told otherwise, and tells what is in it and what is not.
pub(super) fn repair_store(from: &Path, to: Option<PathBuf>, json: bool) -> Result<ExitCode, Failure> {
    let to = to.unwrap_or_else(|| {
        let mut name = from.as_os_str().to_owned();
        name.push(".repaired");
        name.into()
    });
    let mut progress: Option<Progress> = None;
    let saved = repair(from, &to, |_, count| {
        progress.get_or_insert_with(|| Progress::new(count.into(), "pages")).step();
    })?;
    drop(progress);
    let report = report(from, &to, saved)?;
    if json {
        let line = serde_json::to_string(&report).map_err(Failure::at("write the report"))?;
        print(format_args!("{line}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Salvaged { frames, commits, snapshots, unreadable_pages } = saved;
    print(format_args!(
        "saved {frames} frames with {} records, {commits} commits, {snapshots} snapshots\n",
        report.records
    ))?;
    if unreadable_pages > 0 {
        print(format_args!("{unreadable_pages} pages could not be read: what lay there is lost\n"))?;
    }
    for Lost { stream, class, epoch, from, to, why } in &report.lost {
        print(format_args!("lost: stream {stream} ({class}), epoch {epoch}, records {from} to {to}: {why}\n"))?;
    }
    for (from, to) in &report.commits_lost {
        print(format_args!("lost: commits {from} to {to} of the journal, and what came behind them\n"))?;
    }
    report.faults.iter().try_for_each(|fault| print(format_args!("{fault}\n")))?;
    print(format_args!(
        "{}: to use it, stop the agent and put it in the place of store.db, without the -wal and -shm of that; the next start reports what is missing\n",
        report.output
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn report(from: &Path, to: &Path, saved: Salvaged) -> Result<Report, Failure> {
    let store = Look::open(to).map_err(Failure::at(format!("look into {}", to.display())))?;
    let book = store.book()?;
    let mut lost = Vec::new();
    let mut records = 0;
    let mut last: BTreeMap<_, u64> = BTreeMap::new();
    store.each_frame(|looked| -> Result<(), Failure> {
        let (key, epoch, (from, to), is_whole) = match looked {
            Looked::Whole(frame) => {
                let key = rtlive_core::journal::StreamKey { stream: frame.stream.clone(), class: frame.class.clone() };
                let last = (frame.first + u64::from(frame.records)).saturating_sub(1);
                (key, frame.epoch, (frame.first, last), true)
            }
            Looked::Damaged { key, epoch, numbers } => (key, epoch, numbers, false),
        };
        let mut lose = |from: u64, to: u64, why| {
            let (stream, class, epoch) = (key.stream.to_string(), key.class.to_string(), epoch.to_string());
            lost.push(Lost { stream, class, epoch, from, to, why });
        };
        let before = last.insert((key.clone(), epoch), to);
        if let Some(before) = before.filter(|before| from > before + 1) {
            lose(before + 1, from - 1, "no frame has them; they may have been delivered");
        }
        if is_whole {
            records += to + 1 - from;
        } else {
            lose(from, to, "their frame is damaged");
        }
        Ok(())
    })?;
    let known = book.snapshots.last().map(|(number, _)| *number);
    let numbers = known.into_iter().chain(book.chunks.iter().map(|(number, _)| *number));
    let numbers: Vec<u64> = sorted::set(numbers).into_iter().collect();
    let pairs = numbers.iter().zip(numbers.iter().skip(1));
    let commits_lost = pairs.filter(|(a, b)| **b > **a + 1).map(|(a, b)| (a + 1, b - 1)).collect();
    let mut faults = Vec::new();
    if book.snapshots.is_empty() {
        faults.push("no snapshot is whole: the engine begins anew, and what is in no frame is lost".to_owned());
    }
    Ok(Report {
        path: from.display().to_string(),
        output: to.display().to_string(),
        saved,
        records,
        lost,
        commits_lost,
        faults,
    })
}
