//! A report, for a person.

use std::fmt;

use super::{Completeness, Hole, Report};

/// How many holes of a kind a person is told; `--json` has them all.
const HOLES_TOLD_MAX: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, stream, class, state, until, records, gaps, missing, unannounced } = self;
        write!(f, "{agent} {stream} ({class}): {records} records, ")?;
        f.write_str(match state {
            Completeness::Complete => "complete",
            Completeness::Gaps => "complete but for gaps",
            Completeness::Missing => "records are missing",
            Completeness::Unannounced => "an end was never announced",
        })?;
        match until {
            Some(until) if matches!(state, Completeness::Complete | Completeness::Gaps) => {
                write!(f, ", up to {until}")?
            }
            Some(until) => write!(f, ", whole up to {until}")?,
            None => {}
        }
        for hole in gaps.iter().take(HOLES_TOLD_MAX) {
            write!(f, "\n  {}", Told(hole))?;
        }
        for hole in missing.iter().take(HOLES_TOLD_MAX) {
            write!(f, "\n  {}", Told(hole))?;
        }
        for end in unannounced.iter().take(HOLES_TOLD_MAX) {
            write!(f, "\n  epoch {}: what follows {} was never announced", end.epoch, end.after)?;
        }
        let holes = [gaps.len(), missing.len(), unannounced.len()];
        let more: usize = holes.iter().map(|count| count.saturating_sub(HOLES_TOLD_MAX)).sum();
        if more > 0 { write!(f, "\n  and {more} more") } else { Ok(()) }
    }
}

struct Told<'a>(&'a Hole);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hole { epoch, from, to, count, reason, covered_by } = self.0;
        write!(f, "epoch {epoch}: {from} to {to}, ")?;
        if let Some(count) = count {
            write!(f, "{count} of them ")?;
        }
        f.write_str(reason.as_deref().unwrap_or("missing"))?;
        match covered_by {
            Some(stream) => write!(f, ", covered by {stream}"),
            None => Ok(()),
        }
    }
}
