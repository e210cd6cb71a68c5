//! Report by exception: what a stream of readings leaves out.

use rtlive_core::plan::{Deadband, ReportPlan};

use crate::options;
use crate::quantity::Period;
use crate::table::{Table, Value};
use crate::value::{Setting, or_wrong};

options! {
    /// What a stream of readings leaves out, because it tells nothing new.
    pub struct ReportOptions {
        /// How far a number must be from the last one of its series that went along: in its own unit (`0.5`), or a part of that one
        /// (`"2 %"`). What is no number must be another, and a reading whose quality or check differs always goes along.
        pub deadband: Option<Deadband>,
        /// Whether a reading goes along only if its value is not that of the last one that did.
        pub on_change: bool = false,
        /// After how much event time a reading goes along although nothing changed. It takes a reading: a silent source stays silent.
        pub heartbeat: Option<Period>,
    }
}

const KEYS: [&str; 3] = ["deadband", "on_change", "heartbeat"];

impl Setting for Deadband {
    fn expected() -> String {
        "a number such as 0.5, or a part such as \"2 %\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let bound = |number: f64| (number.is_finite() && number >= 0.0).then_some(number);
        let percent = |text: &str| text.strip_suffix('%')?.trim_end().parse::<f64>().ok();
        let absolute = value.as_number().and_then(bound).map(Self::Absolute);
        let relative =
            || value.as_text().and_then(percent).and_then(bound).map(|percent| Self::Relative(percent / 100.0));
        or_wrong(value, absolute.or_else(relative))
    }
}

/// Reads the keys from a stream's table that another type reads too; `None` inside for a stream that leaves nothing out.
pub(crate) fn read(table: &Table<'_>) -> Option<Option<ReportPlan>> {
    let ReportOptions { deadband, on_change, heartbeat } = ReportOptions::read_part(table)?;
    let heartbeat = heartbeat.map(|Period(heartbeat)| heartbeat);
    match (deadband, on_change) {
        (None, false) if heartbeat.is_some() => {
            table.mistake("heartbeat", "`deadband` or `on_change` beside it", "neither: all readings go along");
            None
        }
        (None, false) => Some(None),
        (deadband, _) => Some(Some(ReportPlan { deadband: deadband.unwrap_or(Deadband::Any), heartbeat })),
    }
}

/// Refuses the keys in the table of a window or of a stream that the program itself writes.
pub(crate) fn refuse(table: &Table<'_>, why: &str) {
    for key in KEYS.into_iter().filter(|key| table.has(key)) {
        table.mistake(key, format!("no `{key}` here: {why}"), "one");
        table.dealt_with(key);
    }
}
