//! `file`: follows files to which other programs append lines, over rotation and restarts.
//!
//! Files are looked at every `every`, not watched: inotify says nothing on network file systems, loses events when its queue is
//! full, and would need the same look at sizes after every start; a look costs a few system calls a file. Reading is done on a
//! thread of its own, so that a file system that hangs holds up no other input.
//!
//! How far each file was read is committed together with its readings, so that after a power cut nothing is missing and nothing comes
//! twice. What rotation compressed or deleted while the program was not running is lost to it.

mod follow;

use std::time::Duration;

use rtlive_config::quantity::{ByteCount, Span};
use rtlive_config::table::Table;
use rtlive_config::{choices, options};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::warn;

use crate::fields::{Fields, LineDecoder, LineOptions, Reader};
use crate::input::{CheckedInput, Decoder, Driver, Input, InputError, Running};
use crate::outlet::Session;
use follow::{Chunk, Follower, Scan};

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "file",
    summary: "lines that other programs append to files, followed over rotation",
    example: r#"[inputs.app]
driver = "file"
path = "/var/log/app/*.log"
format = "json"
fields = [{ series = "latency", pointer = "/ms", type = "f64", unit = "ms" }]
"#,
    options: || FileOptions::reference().with(LineOptions::reference()),
    check,
};

choices! {
    /// Where reading begins.
    pub enum From {
        /// With the first line.
        Start = "start",
        /// With what is written from now on; files that appear later are read from their first line.
        End = "end",
    }
}

options! {
    /// Lines that other programs append to files.
    pub struct FileOptions {
        /// The files: a path, in which `*`, `?`, `[a-z]` and `**` match many.
        pub path: String,
        /// Where reading begins in files that are there when the input first runs.
        pub from: From = "start",
        /// How often the files are looked at.
        pub every: Span = "1s",
        /// The longest line that is taken; longer ones are counted and skipped.
        pub max_line: ByteCount = "64 KiB",
        /// How long it is remembered how far a file was read that is no longer there.
        pub forget_after: Span = "1d",
    }
}

fn check(table: &Table<'_>) -> Option<CheckedInput> {
    let options = FileOptions::read_part(table);
    let lines = LineOptions::read_part(table);
    table.close();
    let fields = lines.as_ref().and_then(|lines| Fields::check(lines, table));
    let (options, fields) = (options?, fields?);
    if let Err(error) = glob::Pattern::new(&options.path) {
        table.mistake("path", "a path with * ? [a-z] or **", format!("{:?}: {error}", options.path));
        return None;
    }
    if options.every.0.is_zero() {
        table.mistake("every", "a span above zero", "none");
        return None;
    }
    let series = fields.series();
    let input = FileInput {
        path: options.path,
        from: options.from,
        every: options.every.0,
        line_bytes_max: usize::try_from(options.max_line.0).unwrap_or(usize::MAX),
        forget_after: options.forget_after.0,
        fields,
    };
    Some(CheckedInput {
        input: Box::new(input),
        polled: false,
        every: None,
        can_be_asked_again: true,
        series,
        has_others: false,
        readings_per_second: None,
    })
}

/// An input, checked.
struct FileInput {
    path: String,
    from: From,
    every: Duration,
    line_bytes_max: usize,
    forget_after: Duration,
    fields: Fields,
}

impl Input for FileInput {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(self.run(session))
    }

    fn decoder(&self) -> Option<Box<dyn Decoder>> {
        Some(Box::new(LineDecoder::new(&self.fields, self.line_bytes_max, Duration::ZERO)))
    }
}

impl FileInput {
    async fn run(&self, session: &mut Session) -> Result<(), InputError> {
        let mut follower =
            Follower::new(&self.path, self.line_bytes_max, self.forget_after, self.from == From::End, session.kept());
        let mut reader = Reader::new(&self.fields, "");
        let mut rounds = interval_at(Instant::now(), self.every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unreadable = 0;
        loop {
            tokio::select! {
                biased;
                () = session.stopping() => return Ok(()),
                _ = rounds.tick() => {}
            }
            let scan;
            (follower, scan) = blocking(follower, Follower::scan).await?;
            note(&scan, &mut unreadable, session);
            loop {
                let read;
                (follower, read) = blocking(follower, Follower::next).await?;
                let Some(chunk) = read.map_err(|error| self.failed(&error.to_string()))? else { break };
                let arrival = session.now();
                let Chunk { lines, too_long, state } = chunk;
                lines.iter().for_each(|line| reader.read(line, arrival, session));
                if too_long > 0 {
                    session.reject("line_too_long", too_long);
                }
                keep(state, session);
                // Between two chunks a stop is noticed; what was read of this one is whole.
                if session.deliver(arrival, false).await.is_err() || *session.stop_signal().borrow() {
                    return Ok(());
                }
            }
            if session.deliver(session.now(), false).await.is_err() {
                return Ok(());
            }
        }
    }

    fn failed(&self, cause: &str) -> InputError {
        InputError { doing: format!("read {}", self.path), cause: cause.to_owned(), hint: None }
    }
}

/// Does a step of the follower on a thread where it may block.
async fn blocking<T: Send + 'static>(
    mut follower: Follower,
    step: impl FnOnce(&mut Follower) -> T + Send + 'static,
) -> Result<(Follower, T), InputError> {
    let done = tokio::task::spawn_blocking(move || {
        let result = step(&mut follower);
        (follower, result)
    });
    done.await.map_err(|error| InputError { doing: "read files".into(), cause: error.to_string(), hint: None })
}

/// Shows in health and state what a scan found; an error is shown while it lasts, and logged when it begins.
fn note(scan: &Scan, unreadable: &mut u64, session: &mut Session) {
    if scan.truncated > 0 {
        session.count("truncated", scan.truncated);
    }
    if scan.unreadable > *unreadable {
        warn!(input = session.name(), "{}", scan.error.as_deref().unwrap_or_default());
        session.count("unreadable", scan.unreadable - *unreadable);
    }
    *unreadable = scan.unreadable;
    {
        let mut health = session.health();
        health.state = "running";
        health.error = match &scan.error {
            Some(error) => Some(format!("{error} (the service's user must be able to read it)")),
            None if scan.too_many > 0 => {
                Some(format!("more than {} files match; the others are not read", follow::FILES_MAX))
            }
            None => None,
        };
    }
    keep(scan.state.clone(), session);
}

fn keep(state: Vec<(String, Option<Vec<u8>>)>, session: &mut Session) {
    state.into_iter().for_each(|(key, value)| session.keep(&key, value));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fields::Lines;
    use crate::rig::{Rig, checked, session, shared};

    #[tokio::test]
    async fn lines_are_read_once_through_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let options = format!(
            "path = '{}/*.log'\nevery = '10ms'\nformat = 'json'\nfields = [{{ series = 'n', pointer = '/n' }}]",
            folder.path().display()
        );
        std::fs::write(&path, "{\"n\":0}\n{\"n\":1}\n{\"n\":").unwrap();
        let mut rig = Rig::new(&DRIVER, &options);
        rig.start();
        while rig.uncommitted() < 2 {
            rig.take().await;
        }
        rig.crash().await;
        rig.start();
        rig.commit_until(|rig| rig.readings.len() == 2).await;
        rig.stop().await;
        std::fs::rename(&path, folder.path().join("app.old")).unwrap();
        let mut old = std::fs::OpenOptions::new().append(true).open(folder.path().join("app.old")).unwrap();
        std::io::Write::write_all(&mut old, b"2}\nno json\n").unwrap();
        std::fs::write(&path, "{\"n\":3}\n").unwrap();
        rig.start();
        rig.commit_until(|rig| rig.readings.len() == 4).await;
        let mut numbers: Vec<_> = rig.readings.iter().map(|reading| reading.value.as_number().unwrap()).collect();
        numbers.sort_by(f64::total_cmp);
        assert_eq!(numbers, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(rig.rejected, BTreeMap::from([("not_json".into(), 1)]));
        rig.stop().await;
    }

    #[test]
    fn real_logs_give_the_lines_that_were_counted() {
        let Some(logs) = shared("logs") else { return };
        let stats: serde_json::Value =
            serde_json::from_slice(&std::fs::read(logs.join("line_stats.json")).unwrap()).unwrap();
        for (name, stats) in stats.as_object().unwrap() {
            let bytes = std::fs::read(logs.join(name)).unwrap();
            let mut lines = Lines::new(64 << 10);
            let mut found = Vec::new();
            bytes.chunks(7).for_each(|chunk| lines.take(chunk, |line| found.push(line.to_vec())));
            assert_eq!(Some(found.len() as u64), stats["newline_terminated_lines"].as_u64(), "{name}");
            assert!(found.iter().all(|line| !line.contains(&b'\r')), "{name}");
        }
    }

    #[test]
    fn a_real_json_log_is_decoded_and_its_bad_lines_counted() {
        let Some(logs) = shared("logs") else { return };
        let bytes = std::fs::read(logs.join("json.json")).unwrap();
        let options = "path = '/x'\nformat = 'json'\ntime = '/ts'\nfields = [{ series = 'level', pointer = '/lvl' }]";
        let input = checked(&DRIVER, options).unwrap().input;
        let mut decoder = input.decoder().unwrap();
        let (mut session, ..) = session(BTreeMap::new());
        bytes.chunks(100).for_each(|chunk| decoder.take(chunk, &mut session));
        let batch = session.take(session.now(), false).unwrap().batch;
        let rejected: u64 = batch.rejected.iter().map(|rejected| rejected.count).sum();
        let blank = bytes.split(|byte| *byte == b'\n').filter(|line| line.trim_ascii().is_empty()).count() - 1;
        assert_eq!(batch.readings.len() + usize::try_from(rejected).unwrap() + blank, 14);
        assert_eq!(batch.readings[0].time.to_string(), "2013-09-06T20:00:48.124817Z");
        assert!(batch.rejected.iter().any(|rejected| &*rejected.reason == "bad_time"), "the line with ts xxx");
    }

    #[test]
    fn mistakes_in_the_options_are_named() {
        let rest = "format = 'json'\nfields = [{ series = 'n', pointer = '/n' }]";
        for (options, mistake) in [
            ("path = '/a['", "path"),
            ("path = '/a'\nevery = '0s'", "every"),
            ("", "path"),
            ("path = '/a'\npth = 1", "pth"),
        ] {
            let mistakes = checked(&DRIVER, &format!("{options}\n{rest}")).err().unwrap();
            assert!(mistakes.contains(mistake), "{options}: {mistakes}");
        }
    }
}
