//! Quality: which checks readings must pass, by filters over series.

use rtlive_core::plan::{Mark, Plan, QualityPlan, Switch, ValueType};
use rtlive_core::reading::Check;
use rtlive_core::selector::Selector;
use rtlive_core::sorted;

use crate::quantity::{Period, parse_per_second};
use crate::table::{Table, Value};
use crate::value::{Setting, or_wrong, parse};
use crate::{choices, options};

/// The most quality tables. Each series is held against all of them once, when it appears.
pub const TABLES_MAX: usize = 1_000;

choices! {
    for ValueType {
        /// Floats and integers.
        Number = "number",
        /// true or false.
        Bool = "bool",
        /// Texts.
        Text = "text",
        /// What the first reading of the series had.
        Same = "same",
    }
}

choices! {
    for Mark {
        /// Goes on, marked.
        Suspect = "suspect",
        /// Stays in streams of readings, marked; windows and rules do not see it.
        Bad = "bad",
        /// Goes to the stream `quarantine` alone, marked.
        Quarantine = "quarantine",
        /// Goes nowhere, and is counted.
        Drop = "drop",
    }
}

options! {
    /// Checks of readings as they come, before all streams, rules and windows; the table's name is a filter over series. Where several
    /// filters select a series, each key comes from the most specific one. See [quality](quality.md).
    pub struct QualityOptions {
        /// The least and the greatest number that is right.
        pub range: Option<Switch<Range>>,
        /// How much a number may change in a time, from one reading to the next.
        pub max_rate: Option<Switch<PerSecond>>,
        /// How long a value may stay as it is.
        pub stuck_after: Option<Switch<Period>>,
        /// How many deviations a number may be away from the median of the 11 before it; a deviation is their median absolute deviation
        /// times 1.4826, which is the standard deviation where nothing sticks out.
        pub spike: Option<Switch<Positive>>,
        /// How far from that median a number may always be, in its own unit; without it nothing is a spike while more than half of those
        /// before it are equal.
        pub spike_min: Option<Positive>,
        /// The type that values must have.
        pub value_type: Option<Switch<ValueType>> as "type",
        /// The unit that the source may not contradict; one that says none does not.
        pub unit: Option<Switch<String>>,
        /// Whether a time before the newest of the series is objected to.
        pub backwards: Option<bool>,
        /// Whether a reading is objected to when one of the same series and time is among the last 32.
        pub duplicate: Option<bool>,
        /// What becomes of a reading to which a check objects: one word for all checks but `not_finite`, or a table of check and word, where
        /// `other` stands for those that are not named. Unless set, `suspect`; for `not_finite` (NaN and infinity), `bad`.
        pub mark: Option<Marks>,
    }
}

/// The least and the greatest number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range(pub [f64; 2]);

/// A change in a time, in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerSecond(pub f64);

/// A number above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Positive(pub f64);

/// What becomes of readings, by [`Check::place`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marks(pub [Option<Mark>; Check::ALL.len()]);

impl<T: Setting> Setting for Switch<T> {
    fn expected() -> String {
        format!("{}, or false for no such check", T::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        match value.as_bool() {
            Some(false) => Some(Self::Off),
            Some(true) => or_wrong(value, None),
            None => T::read(value).map(Self::On),
        }
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        T::choices()
    }
}

impl Setting for Range {
    fn expected() -> String {
        "a list of the least and the greatest number, such as [180, 260]".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.list_len() != Some(2) {
            value.wrong(Self::expected());
            return None;
        }
        let bounds: [f64; 2] = value.each(f64::read)?.try_into().ok()?;
        if bounds[0] > bounds[1] {
            value.mistake(Self::expected(), format!("{}, which is more than {}", bounds[0], bounds[1]));
            return None;
        }
        Some(Self(bounds))
    }
}

impl Setting for PerSecond {
    fn expected() -> String {
        "a change in a time above 0, such as \"50/s\", \"0.5/min\" or \"3/h\"".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        parse(value, |text| parse_per_second(text).map(Self))
    }
}

impl Setting for Positive {
    fn expected() -> String {
        "a number above 0".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        or_wrong(value, value.as_number().filter(|number| number.is_finite() && *number > 0.0).map(Self))
    }
}

impl Setting for Marks {
    fn expected() -> String {
        format!("{}, or a table such as {{ range = \"bad\", other = \"suspect\" }}", Mark::expected())
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let Some(table) = value.as_table() else {
            return Mark::read(value).map(|mark| Self(checks_but_not_finite(Some(mark))));
        };
        let named = Check::ALL.into_iter().filter(|&check| check != Check::Source);
        let words: Vec<&'static str> = named.clone().map(Check::name).chain(["other"]).collect();
        let mark = |name| if table.has(name) { table.read::<Mark>(name, None).map(Some) } else { Some(None) };
        // All are read before the first that is wrong counts, so that the mistakes of all are noted.
        let other = mark("other");
        let marks: Vec<(Check, Option<Option<Mark>>)> = named.map(|check| (check, mark(check.name()))).collect();
        table.knows(&words);
        table.close();
        if table.keys().any(|key| !words.contains(&key)) {
            return None;
        }
        let mut all = Self(checks_but_not_finite(other?));
        for (check, mark) in marks {
            let mark = mark?;
            if check == Check::NotFinite && mark == Some(Mark::Suspect) {
                let expected = "\"bad\", \"quarantine\" or \"drop\", since no aggregate can hold what is not finite";
                table.mistake(check.name(), expected, "\"suspect\"");
                return None;
            }
            if let Some(place) = all.0.get_mut(check.place()) {
                *place = mark.or(*place);
            }
        }
        Some(all)
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        Mark::choices()
    }
}

fn checks_but_not_finite(mark: Option<Mark>) -> [Option<Mark>; Check::ALL.len()] {
    Check::ALL.map(|check| mark.filter(|_| check != Check::NotFinite))
}

/// Checks `[quality.*]`; the tables in the order of their filters, so that the order of files changes nothing.
pub(crate) fn check(root: &Table<'_>) -> Vec<QualityPlan> {
    let Some(quality) = root.table("quality") else { return Vec::new() };
    let tables = quality.tables();
    if tables.len() > TABLES_MAX {
        quality.mistake("", format!("at most {TABLES_MAX} tables"), tables.len());
        return Vec::new();
    }
    let mut plans: Vec<QualityPlan> = tables.iter().filter_map(|(filter, table)| self::table(filter, table)).collect();
    sorted::by(&mut plans, |a, b| a.select.cmp(&b.select));
    plans
}

fn table(filter: &str, table: &Table<'_>) -> Option<QualityPlan> {
    let options = QualityOptions::read(table);
    let select = filter.parse::<Selector>();
    if select.is_err() {
        let expected = "a filter such as \"boiler/#\", with `+` or `#` alone in a level and `#` only as the last";
        table.mistake("", expected, format!("{filter:?}"));
    }
    let (select, options) = (select.ok()?, options?);
    if table.keys().next().is_none() {
        table.warn("", "no key, so that it changes nothing");
    }
    let QualityOptions { range, max_rate, stuck_after, spike, spike_min, value_type, unit, backwards, duplicate, mark } =
        options;
    Some(QualityPlan {
        range: range.map(|range| range.map(|Range(bounds)| bounds)),
        max_rate: max_rate.map(|rate| rate.map(|PerSecond(rate)| rate)),
        stuck_after: stuck_after.map(|span| span.map(|Period(span)| span)),
        spike: spike.map(|spike| spike.map(|Positive(deviations)| deviations)),
        spike_min: spike_min.map(|Positive(min)| min),
        value_type,
        unit: unit.map(|unit| unit.map(Into::into)),
        backwards,
        duplicate,
        marks: mark.map_or_else(|| QualityPlan::new(select.clone()).marks, |Marks(marks)| marks),
        ..QualityPlan::new(select)
    })
}

/// Notes tables that select nothing. `makes` tells whether an input may make a series that a filter selects.
pub(crate) fn advise(root: &Table<'_>, plan: &Plan, makes: impl Fn(&Selector) -> bool) {
    for QualityPlan { select, .. } in plan.quality.iter().filter(|table| !makes(&table.select)) {
        let key = format!("quality.{}", crate::document::quoted(&select.to_string()));
        root.warn(&key, format_args!("no input makes a series that \"{select}\" selects"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn read(text: &str) -> (Vec<QualityPlan>, String) {
        let document = Document::of_text("a.toml", text);
        let plans = check(&document.root());
        (plans, document.mistakes().to_string())
    }

    #[test]
    fn a_word_marks_all_but_what_is_not_finite() {
        let (plans, mistakes) = read(
            "[quality.'a/+']\nmark = 'drop'\n[quality.'#']\nmark = { range = 'bad', other = 'quarantine', not_finite = 'drop' }",
        );
        assert_eq!(mistakes, "");
        let [a, rest] = &plans[..] else { panic!("{plans:?}") };
        let mark = |plan: &QualityPlan, check: Check| plan.marks[check.place()];
        assert_eq!((mark(a, Check::Range), mark(a, Check::NotFinite)), (Some(Mark::Drop), None));
        assert_eq!((mark(rest, Check::Range), mark(rest, Check::Spike)), (Some(Mark::Bad), Some(Mark::Quarantine)));
        assert_eq!(mark(rest, Check::NotFinite), Some(Mark::Drop));
    }

    #[test]
    fn false_turns_a_check_off() {
        let (plans, mistakes) = read("[quality.'#']\nstuck_after = false\nmax_rate = '90/min'\nrange = [-1, 2.5]");
        assert_eq!(mistakes, "");
        assert_eq!((plans[0].stuck_after, plans[0].max_rate), (Some(Switch::Off), Some(Switch::On(1.5))));
        assert_eq!(plans[0].range, Some(Switch::On([-1.0, 2.5])));
    }
}
