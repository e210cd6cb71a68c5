use super::*;

/// Samples given in a test: newest and previous of each binding.
struct Given(Vec<(Option<Sample>, Option<Sample>)>);

impl Scope for Given {
    fn newest(&self, binding: usize) -> Option<&Sample> {
        self.0.get(binding)?.0.as_ref()
    }

    fn previous(&self, binding: usize) -> Option<&Sample> {
        self.0.get(binding)?.1.as_ref()
    }
}

fn at(seconds: i64, value: Value) -> Option<Sample> {
    Some(Sample { time: Timestamp::from_nanos(seconds * 1_000_000_000), value: Some(value) })
}

const NAMES: [&str; 5] = ["t", "n", "pump", "state", "gone"];

fn given() -> Given {
    Given(vec![
        (at(10, Value::Float(91.5)), at(8, Value::Float(90.0))),
        (at(10, Value::Int(7)), at(6, Value::Int(i64::MAX))),
        (at(10, Value::Bool(false)), None),
        (at(10, Value::Text("on".into())), None),
        (Some(Sample { time: Timestamp::EPOCH, value: None }), None),
    ])
}

fn value(text: &str) -> Option<Value> {
    let expression = Expression::parse(text, &NAMES).unwrap_or_else(|error| panic!("{text}: {error}"));
    let scope = given();
    expression.eval(&scope).map(|value| match value {
        Scalar::Float(value) => Value::Float(value),
        Scalar::Int(value) => Value::Int(value),
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Text(value) => Value::Text(value.clone()),
    })
}

#[test]
fn computes_as_the_contract_says() {
    use Value::{Bool, Float, Int};
    for (text, expected) in [
        ("1 + 2 * 3", Int(7)),
        ("(1 + 2) * 3", Int(9)),
        ("10 - 2 - 3", Int(5)),
        ("7 / 2", Float(3.5)),
        ("-7 % 3", Int(-1)),
        ("7.5 % 2", Float(1.5)),
        ("1 + 0.5", Float(1.5)),
        ("2 * -3", Int(-6)),
        ("--3", Int(3)),
        (".5e1", Float(5.0)),
        ("1e-3", Float(0.001)),
        ("9223372036854775807 + 1", Float(9_223_372_036_854_775_808.0)),
        ("-9223372036854775807 - 1", Int(i64::MIN)),
        ("abs(-9223372036854775807 - 1)", Float(9_223_372_036_854_775_808.0)),
        ("(-9223372036854775807 - 1) % -1", Int(0)),
        ("min(3, 2.5, 4)", Float(2.5)),
        ("max(3, 2.5)", Int(3)),
        ("clamp(t, 0, 90)", Int(90)),
        ("clamp(-1, 0, 90)", Int(0)),
        ("clamp(n, 0, 90)", Int(7)),
        ("abs(-2.5)", Float(2.5)),
        ("t > 90 and not pump", Bool(true)),
        ("not t > 90 or pump", Bool(false)),
        ("false or true and false", Bool(false)),
        ("state == 'on'", Bool(true)),
        ("state != 'it''s'", Bool(true)),
        ("n == 7.0", Bool(true)),
        ("(1 < 2) == true", Bool(true)),
        ("if(pump, 1, 2.5)", Float(2.5)),
        ("if(pump, gone, n)", Int(7)),
        ("prev(t)", Float(90.0)),
        ("rate(t)", Float(0.75)),
        ("state", Value::Text("on".into())),
    ] {
        assert_eq!(value(text), Some(expected), "{text}");
    }
}

#[test]
fn what_is_missing_stays_missing() {
    for text in [
        "gone",
        "gone > 1",
        "not gone",
        "false and gone",
        "true or gone",
        "if(gone, 1, 2)",
        "prev(pump)",
        "rate(pump)",
        "rate(state)",
        "1 / 0",
        "n % 0",
        "1e308 * 10",
        "state > 1",
        "pump == 1",
        "state + 1",
        "min(1, gone)",
        "min(1, state)",
        "clamp(1, 0, state)",
        "-state",
        "abs(pump)",
        "not n",
    ] {
        assert_eq!(value(text), None, "{text}");
    }
}

#[test]
fn the_difference_of_large_integers_is_exact() {
    assert_eq!(value("rate(n)"), Some(Value::Float((i128::from(7) - i128::from(i64::MAX)) as f64 / 4.0)));
}

#[test]
fn errors_name_the_byte_and_what_was_expected() {
    for (text, at, message) in [
        ("", 0, "expected a value, found the end at byte 0 of the expression"),
        ("t >", 3, "expected a value, found the end at byte 3 of the expression"),
        ("t > 90 pump", 7, "expected an operator or the end, found `pump` at byte 7 of the expression"),
        ("(t > 90", 7, "expected an operator or `)`, found the end at byte 7 of the expression"),
        ("t = 3", 2, "expected a value or an operator, found `=` (equality is `==`) at byte 2 of the expression"),
        ("pump && t", 5, "expected a value or an operator, found `&` (write `and`) at byte 5 of the expression"),
        ("1 < t < 3", 6, "expected `and`, `or` or the end, found `<` at byte 6 of the expression"),
        (
            "x > 1",
            0,
            "expected a name of `let` (it has `gone`, `n`, `pump`, `state`, `t`), found `x` at byte 0 of the expression",
        ),
        (
            "sqrt(t)",
            0,
            "expected a function: min, max, abs, clamp, if, prev or rate, found `sqrt` at byte 0 of the expression",
        ),
        ("prev(t + 1)", 7, "expected `)`, found `+` at byte 7 of the expression"),
        ("prev(1)", 5, "expected a name of `let`, found `1` at byte 5 of the expression"),
        ("abs(1, 2)", 8, "expected the one argument of `abs`, found 2 arguments at byte 8 of the expression"),
        ("if(true, 1)", 10, "expected the three arguments of `if`, found 2 arguments at byte 10 of the expression"),
        ("1 + true", 4, "expected a number, found true or false at byte 4 of the expression"),
        ("not 1", 4, "expected true or false, found a number at byte 4 of the expression"),
        ("1 == 'a'", 5, "expected a number, found a text at byte 5 of the expression"),
        ("'open", 0, "expected a closing quote, found the end at byte 0 of the expression"),
        ("1.2.3", 0, "expected a number such as 12, 0.5 or 1e-3, found `1.2.3` at byte 0 of the expression"),
        ("12abc", 0, "expected a number such as 12, 0.5 or 1e-3, found `12abc` at byte 0 of the expression"),
        ("1e999", 0, "expected a number such as 12, 0.5 or 1e-3, found `1e999` at byte 0 of the expression"),
        (
            "ü",
            0,
            "expected a name of `let` (it has `gone`, `n`, `pump`, `state`, `t`), found `ü` at byte 0 of the expression",
        ),
    ] {
        let error = Expression::parse(text, &NAMES).unwrap_err();
        assert_eq!((error.at, error.to_string().as_str()), (at, message), "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    assert!(Expression::parse(&nested(EXPRESSION_DEPTH_MAX - 1), &NAMES).is_ok());
    assert!(Expression::parse(&nested(EXPRESSION_DEPTH_MAX), &NAMES).is_err());
    assert!(Expression::parse(&format!("1{}", "+1".repeat(EXPRESSION_DEPTH_MAX - 1)), &NAMES).is_ok());
    assert!(Expression::parse(&format!("1{}", "+1".repeat(EXPRESSION_DEPTH_MAX)), &NAMES).is_err());
    assert!(Expression::parse(&" ".repeat(EXPRESSION_BYTES_MAX + 1), &NAMES).is_err());
}

#[test]
fn kinds_are_known_where_they_can_be() {
    let kind = |text: &str| Expression::parse(text, &NAMES).unwrap().kind();
    assert_eq!(kind("t > 1"), Kind::Bool);
    assert_eq!(kind("t + 1"), Kind::Number);
    assert_eq!(kind("'a'"), Kind::Text);
    assert_eq!(kind("pump"), Kind::Any);
    assert_eq!(kind("if(pump, 1, 'a')"), Kind::Any);
}

#[test]
fn stored_as_its_text_and_names() {
    let expression = Expression::parse("t > 90", &NAMES).unwrap();
    let bytes = postcard::to_stdvec(&expression).unwrap();
    assert_eq!(postcard::from_bytes::<Expression>(&bytes).unwrap(), expression);
    let wrong = postcard::to_stdvec(&("t >", vec!["t"])).unwrap();
    assert!(postcard::from_bytes::<Expression>(&wrong).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[ a-z0-9.+*/%<>=!()',-]{0,60}|\\PC{0,40}") {
        if let Ok(expression) = Expression::parse(&text, &NAMES) {
            expression.eval(&given());
        }
    }

    #[test]
    fn what_is_made_of_the_grammar_is_understood(text in conditions()) {
        let expression = Expression::parse(&text, &NAMES);
        proptest::prop_assert!(expression.is_ok(), "{}: {:?}", text, expression);
    }
}

/// Texts of conditions, well formed.
fn conditions() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let number = prop_oneof![Just("t".to_owned()), Just("n".to_owned()), Just("rate(t)".to_owned()), "[0-9]{1,4}"];
    let number = (number.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), number)
        .prop_map(|(a, operator, b)| format!("abs({a} {operator} -{b})"));
    let comparison = (number.clone(), prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]), number)
        .prop_map(|(a, operator, b)| format!("{a} {operator} {b}"));
    comparison.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), prop::sample::select(vec!["and", "or"]), inner)
            .prop_map(|(a, operator, b)| format!("not ({a}) {operator} {b}"))
    })
}
