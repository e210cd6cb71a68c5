//! Derived series and rules as both sides take them: for the engine a text, for the model a function.

use std::time::Duration;

use rtlive_core::expr::Expression;
use rtlive_core::plan::{Binding, BindingSource, Condition, DerivedPlan, Join, Plan, RulePlan, Severity, WindowJoin};
use rtlive_core::reading::{InputId, Value};

use crate::plans::{COMPUTE, SECOND};
use crate::random::Random;

/// The names of `let`, in every definition.
const NAMES: [&str; 2] = ["x", "y"];

/// What is known of a series at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) newest: Option<Value>,
    pub(crate) previous: Option<Value>,
}

/// An expression: its text, and what it means for `x` and `y`.
type Formula<T> = (&'static str, fn(&Seen, &Seen) -> Option<T>);

/// What derived series are.
pub(crate) const VALUES: [Formula<Value>; 4] = [
    ("x + y", |x, y| sum(x.newest.as_ref()?, y.newest.as_ref()?, 1)),
    ("y - prev(x)", |x, y| sum(y.newest.as_ref()?, x.previous.as_ref()?, -1)),
    ("if(x > 0, x, y)", |x, y| match number(&x.newest)? > 0.0 {
        true => x.newest.clone(),
        false => y.newest.clone(),
    }),
    ("x", |x, _| x.newest.clone()),
];

/// What raises and clears.
pub(crate) const CONDITIONS: [Formula<bool>; 5] = [
    ("x > 10", |x, _| Some(number(&x.newest)? > 10.0)),
    ("x < 0", |x, _| Some(number(&x.newest)? < 0.0)),
    ("x > y", |x, y| Some(number(&x.newest)? > number(&y.newest)?)),
    ("x > prev(x)", |x, _| Some(number(&x.newest)? > number(&x.previous)?)),
    ("x == 'a'", |x, _| Some(**x.newest.as_ref()?.as_text()? == *"a")),
];

fn number(value: &Option<Value>) -> Option<f64> {
    value.as_ref()?.as_number()
}

/// The sum of two numbers, of which the second has a sign. All are small, so that nothing overflows or is rounded.
fn sum(a: &Value, b: &Value, sign: i64) -> Option<Value> {
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a + sign * b),
        _ => Value::Float(a.as_number()? + sign as f64 * b.as_number()?),
    })
}

/// A derived series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Derivation {
    /// The series; `{1}` is a level of the one that made the instance.
    pub(crate) name: &'static str,
    /// What `x` and `y` are; a filter makes an instance for each that it selects.
    pub(crate) sides: [&'static str; 2],
    /// Seconds.
    pub(crate) within: i64,
    pub(crate) is_left: bool,
    /// Which of [`VALUES`].
    pub(crate) value: usize,
    /// The window whose aggregates are joined, and for each side which of [`COMPUTE`].
    pub(crate) over: Option<(&'static str, [usize; 2])>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) condition: Wanted,
    /// Seconds.
    pub(crate) repeat: Option<i64>,
}

/// What raises and clears.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// Which of [`CONDITIONS`], for how many seconds.
    Holds { sides: [&'static str; 2], when: usize, clear: Option<usize>, hold: i64 },
    /// For how many seconds.
    Absent { select: Vec<&'static str>, after: i64 },
}

/// The name of a series for another one: its level stands for `{1}`.
pub(crate) fn rendered(template: &str, maker: &str) -> Option<String> {
    if !template.contains("{1}") {
        return Some(template.to_owned());
    }
    Some(template.replace("{1}", maker.split('/').nth(1)?))
}

/// Whether a filter selects a series.
pub(crate) fn selects(filter: &str, series: &str) -> bool {
    filter.parse::<rtlive_core::selector::Selector>().unwrap().matches(series)
}

/// The filter among the sides, where there is one.
pub(crate) fn filter(sides: &[&'static str; 2]) -> Option<&'static str> {
    sides.iter().copied().find(|side| side.contains('+'))
}

fn bindings(sides: &[&str; 2]) -> Vec<Binding> {
    let source = |side: &str| match side.contains('+') {
        true => BindingSource::Each(side.parse().unwrap()),
        false => BindingSource::Series(side.parse().unwrap()),
    };
    NAMES.iter().zip(sides).map(|(name, side)| Binding { name: (*name).into(), source: source(side) }).collect()
}

fn expression(text: &str) -> Expression {
    Expression::parse(text, &NAMES).unwrap()
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds as u64)
}

impl Derivation {
    /// The three that there may be, those that others need first.
    pub(crate) fn new(place: usize, random: &mut Random) -> Self {
        let mut sides = [["a/x", "b/y"], ["d/j", "a/y"], ["a/+/v", "b/{1}/v"]][place];
        if random.below(2) == 0 && place == 0 {
            sides.reverse();
        }
        let function = |random: &mut Random| [0, 3, 4, 5, 6][random.below(5) as usize];
        let window = ["early", "first", "first", "second", "third", "zone"][random.below(6) as usize];
        let over = (place == 2).then(|| (window, [function(random), function(random)]));
        Self {
            name: ["d/j", "d/k", "d/{1}/w"][place],
            sides,
            within: if over.is_some() { 0 } else { random.below(10) as i64 },
            is_left: random.below(2) == 0,
            // There is no value before in an aggregate that all windows share.
            value: [0, 1, 2, 3, 0, 0][random.below(6) as usize],
            over,
        }
    }

    /// The name of the input that stands for it.
    pub(crate) fn input(&self) -> String {
        format!("derived:{}", self.name)
    }

    pub(crate) fn plan(&self, plan: &Plan, input: InputId) -> DerivedPlan {
        let over = self.over.map(|(window, functions)| WindowJoin {
            window: plan.stream_named(window).unwrap(),
            functions: functions.map(|function| COMPUTE[function]).to_vec(),
        });
        DerivedPlan {
            name: self.name.parse().unwrap(),
            input,
            bindings: bindings(&self.sides),
            within: seconds(self.within),
            join: if self.is_left { Join::Left } else { Join::Inner },
            expr: expression(VALUES[self.value].0),
            unit: None,
            over,
        }
    }
}

impl Rule {
    pub(crate) fn new(name: &str, random: &mut Random) -> Self {
        let repeat = (random.below(3) == 0).then(|| 1 + random.below(30) as i64);
        let condition = if name == "silent" {
            let select = [&["a/+/v", "b/never"][..], &["d/#", "b/y"], &["#"], &["d/+", "a/x", "a/z/v"]];
            let after = 1 + random.below(40) as i64;
            Wanted::Absent { select: select[random.below(4) as usize].to_vec(), after }
        } else {
            let sides = [["a/x", "b/y"], ["d/j", "a/y"], ["a/+/v", "b/{1}/v"], ["d/+/w", "d/k"], ["d/k", "d/k"]];
            let condition = |random: &mut Random| random.below(CONDITIONS.len() as u64) as usize;
            let when = condition(random);
            let clear = (random.below(2) == 0).then(|| condition(random));
            let hold = random.below(8).saturating_sub(2) as i64;
            Wanted::Holds { sides: sides[random.below(5) as usize], when, clear, hold }
        };
        Self { condition, repeat }
    }

    pub(crate) fn plan(&self, name: &str) -> RulePlan {
        let (bindings, condition) = match &self.condition {
            Wanted::Holds { sides, when, clear, hold } => {
                let when = expression(CONDITIONS[*when].0);
                let clear = clear.map(|clear| expression(CONDITIONS[clear].0));
                (bindings(sides), Condition::Holds { when, clear, hold: seconds(*hold) })
            }
            Wanted::Absent { select, after } => {
                let select = select.iter().map(|filter| filter.parse().unwrap()).collect();
                (Vec::new(), Condition::Absent { after: seconds(*after), select })
            }
        };
        let repeat = self.repeat.map(seconds);
        RulePlan { name: name.into(), bindings, condition, severity: Severity::Warning, message: None, repeat }
    }
}

/// In nanoseconds.
pub(crate) const fn span(seconds: i64) -> i64 {
    seconds * SECOND
}
