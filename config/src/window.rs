//! The kinds of windows: which keys go together, and what is made of them.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::engine::SLOT_PANES_MAX;
use rtlive_core::plan::{CalendarLength, WindowKind};

use crate::quantity::{Period, Span, Step, write_span};
use crate::stream::WindowOptions;
use crate::table::Table;
use crate::zone;

/// The most sliding windows that a reading lies in: each is a window of its own in memory and on the link.
const OVERLAPPING_MAX: u128 = 1_000;

/// How many windows of one series may be open before check advises: each holds its state in memory.
const OPEN_WINDOWS_ADVISED: u128 = 1_000;

/// How long a session may be unless `longest` says so; one that never ends would never be final.
const LONGEST: Duration = Duration::from_secs(86_400);

const DAY: Duration = Duration::from_secs(86_400);

/// The kind of a window, and how often it is emitted early. `None` if keys do not go together.
pub(crate) fn kind(table: &Table<'_>, options: &WindowOptions) -> Option<(WindowKind, Option<Duration>)> {
    let WindowOptions { every, over, gap, longest, emit_every, .. } = options;
    let kind = match (every, gap) {
        (Some(_), Some(_)) => {
            table.mistake("gap", "`gap` for sessions, or `every` for other windows", "both");
            None
        }
        (None, None) => {
            table.mistake("", "`every`, or `gap` for sessions", "neither");
            None
        }
        (None, Some(Period(gap))) => session(table, *gap, longest.map(|longest| longest.0), options),
        (Some(every), None) => {
            if longest.is_some() {
                table.mistake("longest", "no `longest` but for sessions, which have a `gap`", "one");
            }
            repeated(table, *every, over.map(|over| over.0), options).filter(|_| longest.is_none())
        }
    };
    let emit_every = emit_every.map(|every| every.0);
    if let Some(emit_every) = emit_every {
        if over.is_some() {
            table.mistake("emit_every", "no `emit_every` for sliding windows, which come every `every`", "one");
            return None;
        }
        let length = kind.as_ref()?.length();
        if emit_every >= length {
            let expected = format!("a span shorter than the window, {}", write_span(length));
            table.mistake("emit_every", expected, write_span(emit_every));
            return None;
        }
    }
    let kind = kind?;
    advise(table, &kind, options.lateness.0);
    Some((kind, emit_every))
}

fn session(table: &Table<'_>, gap: Duration, longest: Option<Duration>, options: &WindowOptions) -> Option<WindowKind> {
    let mut is_right = true;
    let others =
        [("over", options.over.is_some()), ("offset", options.offset.is_some()), ("zone", options.zone.is_some())];
    for (key, _) in others.into_iter().filter(|(_, is_there)| *is_there) {
        table.mistake(key, format!("no `{key}` for sessions, which begin with a reading"), "one");
        is_right = false;
    }
    let longest = longest.unwrap_or(LONGEST.max(gap));
    if longest < gap {
        let expected = format!("a span of at least the gap, {}", write_span(gap));
        table.mistake("longest", expected, write_span(longest));
        is_right = false;
    }
    is_right.then_some(WindowKind::Session { gap, longest })
}

fn repeated(table: &Table<'_>, every: Step, over: Option<Duration>, options: &WindowOptions) -> Option<WindowKind> {
    let offset = options.offset.map_or(Duration::ZERO, |Span(offset)| offset);
    let is_calendar = options.zone.is_some() || matches!(every, Step::Months(_));
    if is_calendar && over.is_some() {
        table.mistake("over", "no `over` for windows of a calendar", "one");
        return None;
    }
    let kind = match every {
        _ if is_calendar => calendar(table, every, offset, options.zone.as_deref())?,
        Step::Span(every) => match over {
            Some(over) if over != every => {
                let count = over.as_nanos() / every.as_nanos();
                if over.as_nanos() % every.as_nanos() != 0 || count > OVERLAPPING_MAX {
                    let expected =
                        format!("a multiple of `every`, {}, at most {OVERLAPPING_MAX} times", write_span(every));
                    table.mistake("over", expected, write_span(over));
                    return None;
                }
                WindowKind::Sliding { every, over, offset }
            }
            _ => WindowKind::Tumbling { every, offset },
        },
        Step::Months(_) => return None,
    };
    if offset >= kind.step() {
        let expected = format!("a span shorter than `every`, {}", write_span(kind.step()));
        table.mistake("offset", expected, write_span(offset));
        return None;
    }
    Some(kind)
}

/// Windows of days or months in a zone.
fn calendar(table: &Table<'_>, every: Step, offset: Duration, zone: Option<&str>) -> Option<WindowKind> {
    let days = |every: Duration| {
        let is_whole = every.as_nanos().is_multiple_of(DAY.as_nanos());
        is_whole.then(|| u16::try_from(every.as_nanos() / DAY.as_nanos()).ok()).flatten()
    };
    let length = match every {
        Step::Months(months) => Some(CalendarLength::Months(months)),
        Step::Span(every) => days(every).map(CalendarLength::Days),
    };
    if length.is_none() {
        table.mistake(
            "every",
            "days, weeks or months beside `zone`, as hours are the same in all of them",
            "another span",
        );
    }
    let name = zone.unwrap_or("UTC");
    let zone = zone::find(name);
    if let Err(error) = &zone {
        table.mistake("zone", error.expected(), format!("{name:?}"));
    }
    Some(WindowKind::Calendar { length: length?, offset, zone: Arc::clone(&zone.ok()?) })
}

/// Notes when many windows of a series will be open at once.
fn advise(table: &Table<'_>, kind: &WindowKind, lateness: Duration) {
    let step = kind.step().as_nanos().max(1);
    let overlapping = if matches!(kind, WindowKind::Sliding { .. }) { kind.length().as_nanos() / step } else { 1 };
    let open = overlapping + lateness.as_nanos() / step;
    if open > OPEN_WINDOWS_ADVISED {
        let beyond = match open > SLOT_PANES_MAX as u128 {
            true => format!(", of which {SLOT_PANES_MAX} may be (then the oldest ends early)"),
            false => ", each with its state in memory".into(),
        };
        table.warn(
            "lateness",
            format_args!("keeps up to {open} windows of each series open{beyond}; a shorter lateness or a longer `every` needs less"),
        );
    }
}
