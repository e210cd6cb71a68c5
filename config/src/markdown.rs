//! The configuration reference in Markdown: docs/configuration.md is what [`reference_markdown`] writes.

use std::fmt::Write;

use rtlive_core::sorted;

use crate::agent::AgentOptions;
use crate::catalogue::Catalogue;
use crate::deadband::ReportOptions;
use crate::derived::DerivedOptions;
use crate::input::InputOptions;
use crate::ladder::LadderOptions;
use crate::link::{BoundOptions, LinkOptions};
use crate::quality::QualityOptions;
use crate::reference::{Key, Reference};
use crate::rule::RuleOptions;
use crate::store::StoreOptions;
use crate::stream::{LaneOptions, StreamOptions, WindowOptions};
use crate::uplink::UplinkOptions;

/// With this heading the part of the drivers begins; what stands before it does not depend on them.
pub const DRIVERS_HEADING: &str = "## Drivers";

const INTRODUCTION: &str = r#"# Configuration reference

Generated from the doc comments of the option types; do not edit it here.

Without `-c` the program reads `/etc/rtlive/rtlive.toml` and then `/etc/rtlive/conf.d/*.toml` by name; with `-c` (repeatable, a file
or a folder) only these. Tables of several files merge. A key that is set twice is a mistake that names both places; lists are not
joined. `rtlive check` reports all mistakes at once, each with file, line, column and what was expected, or the plan.

**Values.** Units are part of a value: spans `"10s"`, `"300ms"`, `"1h30m"` (ns, us, ms, s, m, h, d, w), sizes `"64 KiB"`, `"1 MB"`.
**Names** of inputs, streams, windows, rules and maps are of `a-z`, `0-9`, `_` and `-`, at most 64 characters. Streams and windows share
one namespace with the reserved `alerts`, `gaps`, `late`, `quarantine`, `unsynced`, `audit`, `status`, `schema` and `cmd`.
**Series** are paths, `<input>/<rest>`. **Filters** select them as MQTT does: `+` is one level, a trailing `#` all that follow.
**Templates** have places: `{0}`, `{1}`, … are the levels of what was matched, `{agent}` and others stand by name; `{{` is a brace.
**Secrets** are references: `{ file = "PATH" }`, `{ credential = "NAME" }` (systemd's `LoadCredential=`) or `{ env = "NAME" }`.
**Expressions** have numbers, `true`, `false`, `'text'`, `+ - * / %`, `== != < <= > >=`, `and or not`, `( )`, `min max abs clamp`,
`if(c, a, b)`, `prev(x)` and `rate(x)`. What is missing makes the result missing; a missing condition neither raises nor clears.

With neither `[streams]` nor `[windows]` there is one stream `raw` that selects `#`; else only what is written.
"#;

/// The whole reference: the tables that every configuration has, and then each driver's.
pub fn reference_markdown<I>(catalogue: &dyn Catalogue<I>) -> String {
    let mut text = INTRODUCTION.to_owned();
    section(&mut text, "## `[agent]`", &AgentOptions::reference());
    section(&mut text, "## `[inputs.NAME]`", &InputOptions::reference());
    let _ = writeln!(text, "\nThe other keys are the driver's: see [Drivers](#drivers).");
    text.push_str(
        "\n## `[maps.NAME]`\n\nA device type, used by many devices; its keys are those of the driver that uses it.\n",
    );
    section(
        &mut text,
        "## `[streams.NAME]`",
        &StreamOptions::reference().with(ReportOptions::reference()).with(LaneOptions::reference()),
    );
    text.push_str(
        "\n`[streams.alerts]`, `[streams.gaps]`, `[streams.late]`, `[streams.quarantine]` and `[streams.unsynced]` set the keys, but `select`, of the \
         streams that the program itself writes. Gaps and alerts have the priority `alert`, the others `live`.\n",
    );
    section(&mut text, "## `[windows.NAME]`", &WindowOptions::reference().with(LaneOptions::reference()));
    section(&mut text, "## `[quality.\"FILTER\"]`", &QualityOptions::reference());
    section(&mut text, "## `[derived.\"SERIES\"]`", &DerivedOptions::reference());
    section(&mut text, "## `[rules.NAME]`", &RuleOptions::reference());
    section(&mut text, "## `[ladders.NAME]`", &LadderOptions::reference());
    section(&mut text, "## `[store]`", &StoreOptions::reference());
    let (uplink, link, bounds) = (UplinkOptions::reference(), LinkOptions::reference(), BoundOptions::reference);
    section(&mut text, "## `[uplink]`", &uplink.with(bounds()));
    section(&mut text, "## `[uplink.links.NAME]`", &link.with(bounds()));
    let mut names = catalogue.names();
    sorted::by(&mut names, Ord::cmp);
    if !names.is_empty() {
        let _ = writeln!(text, "\n{DRIVERS_HEADING}");
    }
    for name in names {
        let (Some(summary), Some(reference)) = (catalogue.summary(name), catalogue.reference(name)) else { continue };
        section(&mut text, &format!("### `driver = \"{name}\"`\n\n{summary}"), &reference);
    }
    text
}

/// A heading, what the table is, its keys, and the tables in it.
pub fn section(text: &mut String, heading: &str, reference: &Reference) {
    let _ = write!(text, "\n{heading}\n\n{}\n", one_line(reference.doc));
    if !reference.keys.is_empty() {
        text.push_str("\n| key | takes | default | meaning |\n|---|---|---|---|\n");
    }
    for key in &reference.keys {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            key.name,
            cell(&takes(key)),
            key.default.as_ref().map_or_else(
                || if key.required { "must be there".into() } else { String::new() },
                |text| cell(&format!("`{text}`"))
            ),
            cell(&meaning(key)),
        );
    }
    if !reference.later.is_empty() {
        let later: Vec<String> = reference.later.iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(text, "\nNot yet in this version: {}.", later.join(", "));
    }
    for key in &reference.keys {
        if let Some(table) = &key.table {
            // One level below the table that it stands in.
            let level = heading.chars().take_while(|&c| c == '#').count() + 1;
            section(text, &format!("{} In `{}`", "#".repeat(level), key.name), table);
        }
    }
}

fn takes(key: &Key) -> String {
    match &key.table {
        Some(_) => format!("{}, see below", key.expected),
        None => key.expected.clone(),
    }
}

fn meaning(key: &Key) -> String {
    let mut meaning = one_line(key.doc);
    for (word, doc) in &key.choices {
        let _ = write!(meaning, " `{word}`: {}", one_line(doc));
    }
    meaning
}

/// A doc comment without its line breaks.
fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
