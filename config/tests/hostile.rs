//! No text makes the check panic, or keep it busy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod catalogue;

use catalogue::TestDrivers;
use proptest::prelude::*;
use rtlive_config::check::check;
use rtlive_config::document::{Document, MISTAKES_MAX};
use rtlive_config::report::Report;

const EXAMPLES: [&str; 5] = [
    include_str!("../examples/full.toml"),
    include_str!("../examples/meters-to-broker.toml"),
    include_str!("golden/warnings.toml"),
    include_str!("golden/values.toml"),
    include_str!("golden/linked.toml"),
];

fn report(text: &str) -> String {
    let document = Document::of_text("t.toml", text);
    Report::of(&check(&document, &TestDrivers { documented: true }, Some("0123"))).to_string()
}

/// The byte of `text` at a share of its length, moved to a character's start.
fn byte_at(text: &str, share: f64) -> usize {
    let byte = (text.len() as f64 * share) as usize;
    (0..=byte.min(text.len())).rev().find(|&byte| text.is_char_boundary(byte)).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Pieces of good files, cut out and put elsewhere: most of it still looks like TOML.
    #[test]
    fn pieces_moved(
        from in 0..EXAMPLES.len(),
        into in 0..EXAMPLES.len(),
        places in prop::array::uniform4(0.0..1.0_f64),
    ) {
        let (from, into) = (EXAMPLES[from], EXAMPLES[into]);
        let (a, b) = (byte_at(from, places[0].min(places[1])), byte_at(from, places[0].max(places[1])));
        let (c, d) = (byte_at(into, places[2].min(places[3])), byte_at(into, places[2].max(places[3])));
        report(&format!("{}{}{}", &into[..c], &from[a..b], &into[d..]));
    }

    #[test]
    fn one_character_changed(example in 0..EXAMPLES.len(), share in 0.0..1.0_f64, other in any::<char>()) {
        let text = EXAMPLES[example];
        let byte = byte_at(text, share);
        let rest = text[byte..].chars().next().map_or("", |c| &text[byte + c.len_utf8()..]);
        report(&format!("{}{other}{rest}", &text[..byte]));
    }

    #[test]
    fn any_text_as_a_value(text in ".{0,40}", table in prop::sample::select(vec!["agent", "store", "uplink", "rules.r"])) {
        let quoted = format!("{text:?}").replace("\\u{", "u{").replace("\\'", "'");
        for key in ["id", "commit_every", "broker", "topic", "when", "let", "message"] {
            report(&format!("[{table}]\n{key} = {quoted}\n"));
        }
    }
}

#[test]
fn nesting_and_length_have_bounds() {
    report(&format!("a = {}", "[".repeat(200_000)));
    report(&format!("a = {}1{}", "[".repeat(10_000), "]".repeat(10_000)));
    report(&format!("{}a = 1", "a.".repeat(100_000)));
    report(&format!("[{}a]", "a.".repeat(100_000)));
    report(&format!("a = {}", "{a=".repeat(100_000)));
    let many: String = (0..20_000).map(|i| format!("key{i} = 1\n")).collect();
    report(&format!("[inputs]\n{many}"));
    let tables: String = (0..20_000).map(|i| format!("[windows.w{i}]\n")).collect();
    report(&tables);
    let document = Document::of_text("t.toml", &many);
    let mistakes = check(&document, &TestDrivers { documented: true }, None).unwrap_err();
    assert!(mistakes.0.len() <= MISTAKES_MAX);
    let condition = "(".repeat(100_000);
    report(&format!("[rules.r]\nlet = {{ t = 'a/t' }}\nwhen = '{condition}'\n"));
}
