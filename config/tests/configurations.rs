//! Whole configurations: the examples, the documented one, the defaults, the report and the reference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod catalogue;

use std::path::{Path, PathBuf};
use std::time::Duration;

use catalogue::TestDrivers;
use rtlive_config::check::{Config, check};
use rtlive_config::document::Document;
use rtlive_config::load::{load, state_dir};
use rtlive_config::markdown::{DRIVERS_HEADING, reference_markdown};
use rtlive_config::mistake::Mistakes;
use rtlive_config::report::Report;
use rtlive_core::plan::{BindingSource, Function, Priority, StreamId, StreamKind};

const DRIVERS: TestDrivers = TestDrivers { documented: true };

fn checked(text: &str) -> Result<Config<()>, Mistakes> {
    check(&Document::of_text("t.toml", text), &DRIVERS, Some("0123456789abcdef"))
}

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_examples_have_neither_mistake_nor_warning() {
    let mut count = 0;
    for entry in std::fs::read_dir(crate_folder().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let config = load(std::slice::from_ref(&path), &DRIVERS).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let mut warnings = config.warnings;
        // That nothing leaves the machine is the point of the minimal one.
        warnings.retain(|warning| !warning.problem.to_string().starts_with("no [uplink]"));
        assert_eq!(warnings, [], "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 4);
}

/// The example of the contract is right, and is done.
#[test]
fn the_documented_configuration_is_accepted() {
    let data = std::env::var_os("RTLIVE_DATA").map_or_else(|| crate_folder().join("../../shared/data"), PathBuf::from);
    let contract = data.join("../contract.md");
    let Ok(text) = std::fs::read_to_string(&contract) else {
        println!("SKIPPED: {} is not there", contract.display());
        return;
    };
    let start = text.find("```toml\n").unwrap() + "```toml\n".len();
    let example = &text[start..];
    let example = &example[..example.find("```").unwrap()];
    checked(example).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
}

#[test]
fn without_streams_and_windows_all_readings_go() {
    let plan = checked("[inputs.a]\ndriver = 'simulated'").unwrap().plan;
    assert_eq!(plan.streams.len(), 6);
    assert_eq!(plan.stream_named("gaps"), Some(StreamId::GAPS));
    assert_eq!(plan.stream_named("alerts"), Some(StreamId::ALERTS));
    assert_eq!(plan.stream_named("late"), Some(StreamId::LATE));
    assert_eq!(plan.stream_named("quarantine"), Some(StreamId::QUARANTINE));
    assert_eq!(plan.stream_named("unsynced"), Some(StreamId::UNSYNCED));
    assert_eq!(*plan.streams[5].name, *"raw");
    assert!(matches!(&plan.streams[5].kind, StreamKind::Raw { select, report: None } if select[0].to_string() == "#"));
    for text in ["[streams]", "[windows.minute]\nselect = '#'\nevery = '1m'"] {
        assert_eq!(checked(text).unwrap().plan.stream_named("raw"), None, "{text}");
    }
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let text = "
[inputs.asked]
driver = 'bus'
port = '/dev/ttyS0'
every = '5s'
[inputs.pushed]
driver = 'feed'
broker = 'mqtt://127.0.0.1'
prefix = 'hall/floor'
[windows.minute]
select = '#'
every = '1m'
[uplink]
broker = 'mqtts://b'
[rules.r]
let = { b = 'pushed/+/t', a = 'asked/{1}/t' }
when = 'a > b'
";
    let config = checked(text).unwrap();
    let plan = &config.plan;
    assert_eq!(config.agent.state_dir, Path::new(rtlive_config::STATE_DIR));
    assert_eq!(config.store.commit_every, Duration::from_secs(1));
    let (asked, pushed) = (&plan.inputs[0], &plan.inputs[1]);
    assert_eq!((asked.out_of_order, asked.idle), (Duration::ZERO, Duration::from_secs(15)));
    assert_eq!((pushed.out_of_order, pushed.idle), (Duration::from_secs(2), Duration::from_secs(10)));
    assert_eq!((&*pushed.prefix, pushed.max_ahead), ("hall/floor", Duration::from_secs(300)));
    let minute = &plan.streams[5];
    let StreamKind::Window(window) = &minute.kind else { panic!("{minute:?}") };
    assert_eq!(window.lateness, Duration::from_secs(10));
    let functions = [Function::Count, Function::Min, Function::Max, Function::Mean, Function::Last];
    assert_eq!(window.compute, functions);
    assert_eq!((minute.priority, &*minute.class), (Priority::Live, "process"));
    let uplink = config.uplink.unwrap();
    assert_eq!(uplink.client_id, format!("rtlive-{}", config.agent.id));
    assert_eq!((uplink.keep_alive, uplink.broker.address.port), (Duration::from_secs(60), 8883));
    // In the order of the configuration, not of the alphabet.
    let names: Vec<&str> = plan.rules[0].bindings.iter().map(|binding| &*binding.name).collect();
    assert_eq!(names, ["b", "a"]);
    assert!(matches!(plan.rules[0].bindings[0].source, BindingSource::Each(_)));
}

#[test]
fn the_order_of_the_file_changes_nothing() {
    let tables = [
        "[inputs.a]\ndriver = 'simulated'\n",
        "[inputs.b]\ndriver = 'simulated'\n",
        "[streams.raw]\nselect = '#'\n",
        "[windows.minute]\nselect = '#'\nevery = '1m'\n",
        "[windows.hour]\nselect = '#'\nevery = '1h'\n",
    ];
    let forwards = checked(&tables.concat()).unwrap().plan;
    let backwards: String = tables.iter().rev().copied().collect();
    assert_eq!(forwards, checked(&backwards).unwrap().plan);
}

#[test]
fn a_file_beside_its_folder_is_read_once_and_hidden_files_never() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.toml", "[agent]\nid = 'gw-1'\n");
    write("b.toml", "[inputs.a]\ndriver = 'simulated'\n");
    write(".#a.toml", "not toml");
    write("notes.txt", "not toml");
    let config = load(&[folder.path().join("a.toml"), folder.path().to_owned()], &DRIVERS).unwrap();
    assert_eq!((&*config.agent.id, config.inputs.len()), ("gw-1", 1));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; 5 << 20]).unwrap();
    let missing = folder.path().join("missing.toml");
    let mistakes = load(&[large, missing], &DRIVERS).unwrap_err().to_string();
    assert!(mistakes.contains("large.toml: expected a file of at most 4 MiB, found more"), "{mistakes}");
    assert!(mistakes.contains("missing.toml: open the file: No such file"), "{mistakes}");
}

#[test]
fn the_state_folder_is_found_whatever_else_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
    std::fs::write(&good, "[agent]\nstate_dir = \"/data/rtlive\"\n[inputs.x]\ndriver = \"none\"").unwrap();
    std::fs::write(&bad, "this is no TOML").unwrap();
    assert_eq!(state_dir(&[good.clone(), bad.clone()]).unwrap(), Path::new("/data/rtlive"));
    assert!(state_dir(std::slice::from_ref(&bad)).unwrap_err().to_string().contains("b.toml:1:"));
    std::fs::write(&bad, "[agent]\nid = 7").unwrap();
    assert_eq!(state_dir(&[bad]).unwrap(), Path::new(rtlive_config::STATE_DIR));
}

#[test]
fn the_report_in_json_is_stable() {
    let bad = serde_json::to_value(Report::of(&checked("[agent]\nid = 'gw'\nlabls = {}\n"))).unwrap();
    let expected = serde_json::json!({
        "ok": false,
        "mistakes": [{
            "file": "t.toml", "line": 3, "column": 1, "key": "agent.labls",
            "kind": "unknown_key", "nearest": "labels", "known": ["clock", "id", "labels", "state_dir"],
        }],
        "warnings": [],
        "plan": null,
    });
    assert_eq!(bad, expected);
    let good = "[agent]\nid = 'gw'\n[inputs.a]\ndriver = 'bus'\nport = 'p'\n[inputs.b]\ndriver = 'mqtt'\n";
    let good = serde_json::to_value(Report::of(&checked(good))).unwrap();
    assert_eq!(good["ok"], true);
    assert_eq!(good["warnings"][0]["kind"], "advice");
    let plan = &good["plan"];
    assert_eq!(plan["inputs"][0]["power_cut_loss_ms"], 1000);
    assert_eq!(plan["rate_unknown"], serde_json::json!(["b"]));
    assert_eq!(plan["streams"][5]["name"], "raw");
    assert_eq!(plan["link_bytes_per_day"], serde_json::Value::Null);
}

/// The part of docs/configuration.md that does not depend on drivers. `RTLIVE_BLESS=1` writes it anew and leaves the drivers' part.
#[test]
fn the_reference_is_up_to_date() {
    struct NoDrivers;
    impl rtlive_config::catalogue::Catalogue<()> for NoDrivers {
        fn names(&self) -> Vec<&'static str> {
            Vec::new()
        }
        fn summary(&self, _: &str) -> Option<&'static str> {
            None
        }
        fn reference(&self, _: &str) -> Option<rtlive_config::reference::Reference> {
            None
        }
        fn check(
            &self,
            _: &str,
            _: &rtlive_config::table::Table<'_>,
        ) -> Option<rtlive_config::catalogue::CheckedInput<()>> {
            None
        }
    }
    let path = crate_folder().join("../docs/configuration.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let end = written.find(&format!("\n{DRIVERS_HEADING}\n")).unwrap_or(written.len());
    let expected = reference_markdown(&NoDrivers);
    if std::env::var_os("RTLIVE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{expected}{}", &written[end..])).unwrap();
        return;
    }
    let is_same = written[..end] == expected;
    assert!(is_same, "docs/configuration.md differs from the options: RTLIVE_BLESS=1 cargo test -p rtlive-config");
}

#[test]
fn the_reference_has_every_driver() {
    let text = reference_markdown(&DRIVERS);
    assert!(text.contains("### `driver = \"bus\"`\n\nFor tests."), "{text}");
    assert!(text.contains("#### In `devices`"), "{text}");
    assert!(text.contains("##### In `registers`"), "{text}");
    assert!(text.contains("Not yet in this version: `schedule`."), "{text}");
}

#[test]
fn history_at_some_resolution_outlives_detail() {
    let text = "
        [inputs.a]
        driver = 'bus'
        port = '/dev/ttyS0'
        every = '1s'
        [[inputs.a.devices]]
        unit_id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        registers = [REGISTERS]
        [streams.raw]
        select = '#'
        [windows.minute]
        select = '#'
        every = '1m'
        [windows.quarter]
        select = '#'
        every = '15m'
        compute = ['count', 'min', 'max', 'mean']
        [ladders.all]
        levels = ['raw', 'minute', 'quarter']
        [store]
        max_bytes = '32 MiB'
        max_age = '184d'
    ";
    let registers: Vec<String> = (0..10).map(|n| format!("{{ series = 's{n}', address = {n} }}")).collect();
    let config = checked(&text.replace("REGISTERS", &registers.join(", "))).unwrap();
    let forecast = rtlive_config::forecast::Forecast::of(&config);
    let days = |name: &str| {
        let stream = forecast.streams.iter().find(|stream| stream.name == name).unwrap();
        assert!((1..=100).contains(&stream.series), "{}", stream.series);
        stream.reach_seconds.unwrap() / 86_400
    };
    assert!(days("quarter") >= 183, "{}", days("quarter"));
    assert!(days("minute") < days("quarter") && days("raw") <= days("minute"));
    assert!(forecast.to_string().contains("when the link is gone, the store reaches back: "));
}

#[test]
fn what_a_power_cut_can_lose_is_told_by_input() {
    let text = "
        [inputs.a]
        driver = 'bus'
        port = '/dev/ttyS0'
        [inputs.b]
        driver = 'bus'
        port = '/dev/ttyS1'
        durability = 'relaxed'
        [store]
        commit_every = '2s'
    ";
    let forecast = rtlive_config::forecast::Forecast::of(&checked(text).unwrap());
    assert_eq!(forecast.power_cut, "at most 2s of readings of a; at most 20s of readings of b");
    let losses: Vec<_> = forecast.inputs.iter().map(|input| input.power_cut_loss_ms).collect();
    assert_eq!(losses, [2_000, 20_000]);
}
