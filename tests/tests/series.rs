//! Real series through the whole way: mosquitto_pub → a local broker → windows → a central broker → decoded.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rtlive_core::time::Timestamp;
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::data::shared;
use rtlive_tests::peer::{installed, until};
use rtlive_tests::program::{Agent, decode};
use serde_json::Value;

/// A series of the shared data, and its windows as pandas and polars computed them.
struct Case {
    data: &'static str,
    expected: &'static str,
    every: &'static str,
    time_columns: &'static [usize],
    columns: &'static [(&'static str, usize)],
}

const CASES: [Case; 3] = [
    Case {
        data: "timeseries/nab_ambient_temperature_system_failure.csv",
        expected: "timeseries/expected/nab_ambient_temperature_system_failure.tumbling_6h.csv",
        every: "6h",
        time_columns: &[0],
        columns: &[("value", 1)],
    },
    Case {
        data: "timeseries/nab_speed_7578.csv",
        expected: "timeseries/expected/nab_speed_7578.tumbling_1h.csv",
        every: "1h",
        time_columns: &[0],
        columns: &[("value", 1)],
    },
    Case {
        data: "timeseries/household_power_2007-02-01.csv",
        expected: "timeseries/expected/household_power_2007-02-01.tumbling_15min.csv",
        every: "15m",
        time_columns: &[0, 1],
        columns: &[("Global_active_power", 2), ("Voltage", 4)],
    },
];

#[test]
fn aggregates_at_the_centre_equal_those_of_pandas_and_polars() {
    for case in &CASES {
        run(case);
    }
}

fn run(case: &Case) {
    let (Some(data), Some(expected)) = (shared(case.data), shared(case.expected)) else { return };
    let Some(publisher) = installed("mosquitto_pub") else { return };
    let folder = tempfile::tempdir().unwrap();
    let local_lines = "max_inflight_messages 0\nmax_queued_messages 0\n";
    let Some(local) = Mosquitto::start(&folder.path().join("local"), local_lines).unwrap() else { return };
    let Some(centre) = Mosquitto::start(&folder.path().join("centre"), "").unwrap() else { return };
    let messages = folder.path().join("messages");
    let Some(_subscriber) = centre.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };

    let readings = readings(&data, case);
    let names: Vec<&str> = readings[0].1.iter().map(|(name, _)| name.as_str()).collect();
    let values: Vec<String> = names.iter().map(|name| format!("{name} = \"/{name}\"")).collect();
    let mut agent = Agent::new(&folder.path().join("agent"), &configuration(case, &local, &centre, &values)).unwrap();
    agent.start().unwrap();
    until("the agent listens to the local broker", || input_state(&agent).as_deref() == Some("running"));

    // One reading behind the end closes the last window; it is in a window of its own, which stays open.
    let mut publish = Command::new(publisher)
        .args(["-h", "127.0.0.1", "-p", &local.port.to_string(), "-q", "1", "-t", "house/x", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = publish.stdin.take().unwrap();
    for (time, values) in &readings {
        let mut object = serde_json::Map::new();
        object.insert("ts".into(), time.to_string().into());
        object.extend(values.iter().map(|(name, value)| (name.clone(), serde_json::from_str(value).unwrap())));
        writeln!(input, "{}", Value::Object(object)).unwrap();
    }
    let after = readings.last().unwrap().0.saturating_add(std::time::Duration::from_secs(86_400));
    let last: Vec<String> = names.iter().map(|name| format!("\"{name}\":0")).collect();
    writeln!(input, "{{\"ts\":\"{after}\",{}}}", last.join(",")).unwrap();
    drop(input);
    assert!(publish.wait().unwrap().success());

    let expected = expected_windows(&expected);
    until("all windows are at the centre", || {
        let records = fs::metadata(&messages).map_or(0, |file| file.len());
        records > 0 && aggregates(&messages).len() >= expected.len()
    });
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let found = aggregates(&messages);
    assert_eq!(found.len(), expected.len(), "{}", case.data);
    for (key, expected) in &expected {
        let found = found.get(key).unwrap_or_else(|| panic!("{} lacks {key:?}", case.data));
        for field in ["count", "min", "max"] {
            assert_eq!(found[field].as_f64(), Some(expected[field]), "{} {key:?} {field}", case.data);
        }
        let mean = found["mean"].as_f64().unwrap();
        assert!((mean - expected["mean"]).abs() <= 1e-9 * expected["mean"].abs(), "{} {key:?} mean {mean}", case.data);
    }
}

fn configuration(case: &Case, local: &Mosquitto, centre: &Mosquitto, values: &[String]) -> String {
    format!(
        r#"
        [inputs.house]
        driver = "mqtt"
        broker = "{}"
        inflight = 1000
        [[inputs.house.topics]]
        filter = "house/+"
        series = "{{1}}"
        format = "json"
        values = {{ {} }}
        time = "/ts"

        [windows.w]
        select = ["house/#"]
        every = "{}"
        compute = ["count", "min", "max", "mean"]

        [uplink]
        broker = "{}"
        "#,
        local.url(),
        values.join(", "),
        case.every,
        centre.url(),
    )
}

fn input_state(agent: &Agent) -> Option<String> {
    let status = agent.status()?;
    status["inputs"].as_array()?.iter().find(|input| input["name"] == "house")?["state"].as_str().map(str::to_owned)
}

/// Time and (name, number as written) of each row.
type Rows = Vec<(Timestamp, Vec<(String, String)>)>;

fn readings(data: &Path, case: &Case) -> Rows {
    let text = fs::read_to_string(data).unwrap();
    let mut rows = Vec::new();
    for line in text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>()) {
        let time = case.time_columns.iter().map(|&column| line[column]).collect::<Vec<_>>().join("T");
        let time: Timestamp = format!("{}Z", time.replace(' ', "T")).parse().unwrap();
        let values = case.columns.iter().map(|&(name, column)| (name.to_owned(), line[column].to_owned())).collect();
        rows.push((time, values));
    }
    rows
}

/// (name of the value, start of the window) → field → number.
type Windows = BTreeMap<(String, Timestamp), BTreeMap<String, f64>>;

fn expected_windows(path: &Path) -> Windows {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let mut windows = Windows::new();
    for line in lines {
        let fields = header.iter().zip(&line).skip(3).map(|(name, value)| ((*name).to_owned(), value.parse().unwrap()));
        windows.insert((line[0].to_owned(), line[1].parse().unwrap()), fields.collect());
    }
    windows
}

/// The newest final revisions in a file of messages.
fn aggregates(messages: &Path) -> BTreeMap<(String, Timestamp), Value> {
    let mut newest: BTreeMap<(String, Timestamp), Value> = BTreeMap::new();
    for record in decode(messages).unwrap_or_default() {
        if record["stream"] != "w" || record["final"] == false {
            continue;
        }
        let name = record["series"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let start = record["start"].as_str().unwrap().parse().unwrap();
        let revision = record["revision"].as_u64();
        let entry = newest.entry((name, start)).or_insert_with(|| record.clone());
        if entry["revision"].as_u64() < revision {
            *entry = record;
        }
    }
    newest
}
