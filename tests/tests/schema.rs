//! Frames that name their schema, a retained message beside them: on a broker that forgets, for whoever listens from the start and for whoever comes late.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rtlive_core::frame::{is_schema, read_header};
use rtlive_core::message::{Item, Message, MessageReader};
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{python, until};
use rtlive_tests::program::{Agent, Receiver, decode, json_lines};
use serde_json::Value;

fn configuration(broker: &Mosquitto) -> String {
    format!(
        r##"
        [inputs.s]
        driver = "simulated"
        series = 7
        every = "100ms"
        [streams.raw]
        select = "#"
        [windows.second]
        select = "#"
        every = "1s"
        [uplink]
        broker = {:?}
        schema = "retained"
        "##,
        broker.url()
    )
}

/// How many schemas are in a file of messages, how many frames that name one, and how many others.
fn counted(messages: &Path) -> (usize, usize, usize) {
    let mut reader = MessageReader::default();
    reader.feed(&fs::read(messages).unwrap());
    let (mut schemas, mut referring, mut whole) = (0, 0, 0);
    while let Some(Ok(item)) = reader.next_item() {
        let Item::Message(bytes) = item else { continue };
        let item = Message::parse(&bytes).unwrap().part;
        if is_schema(item) {
            schemas += 1;
        } else if read_header(item).unwrap().0.schema.is_some() {
            referring += 1;
        } else {
            whole += 1;
        }
    }
    (schemas, referring, whole)
}

/// The records of the streams that have a schema, by stream and number.
fn numbers(records: &[Value]) -> Vec<(String, u64)> {
    let number = |record: &Value| {
        let stream = record["stream"].as_str().filter(|stream| ["raw", "second"].contains(stream))?;
        Some((stream.to_owned(), record["seq"].as_u64()?))
    };
    records.iter().filter_map(number).collect()
}

#[test]
fn frames_are_read_with_schemas_that_the_broker_retains() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let Some(mut broker) = Mosquitto::start(&folder.join("broker"), "max_queued_messages 0\n").unwrap() else { return };
    let output = folder.join("messages");
    let Some(_subscriber) = broker.subscribe("rtlive/#", "judge", &output).unwrap() else { return };
    let source = format!("[sources.centre]\nkind = \"mqtt\"\nbroker = {:?}\ntopics = \"rtlive/#\"\n", broker.url());
    let mut receiver =
        Receiver::new(&folder.join("receiver"), &format!("{source}[outputs.lines]\nkind = \"json\"\n")).unwrap();
    receiver.start().unwrap();
    let mut agent = Agent::new(&folder.join("agent"), &configuration(&broker)).unwrap();
    agent.start().unwrap();
    until("frames name their schemas", || counted(&output).1 > 4);

    // The broker forgets what it retained, and the next connection brings it again.
    let before = counted(&output).0;
    broker.restart().unwrap();
    until("the schemas come again", || counted(&output).0 > before);
    let connections = || receiver.log().unwrap_or_default().matches("connected to").count();
    until("the receiver is back", || connections() == 2);
    let printed = receiver.lines().unwrap_or_default().len();
    until("it hears again", || receiver.lines().is_ok_and(|lines| lines.len() > printed));
    let late = folder.join("late");
    let Some(_late) = broker.subscribe("rtlive/#", "late", &late).unwrap() else { return };
    until("who comes late has the schemas, and frames", || counted(&late).1 > 2);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    let (schemas, referring, whole) = counted(&output);
    assert!(schemas < referring && whole > 0, "{schemas} schemas, {referring} frames that name one, {whole} others");
    let expected = decode(&output).unwrap();
    if let Some(python) = python(&["cbor2", "zstandard"]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/decode.py");
        let run = Command::new(python).arg(script).arg(&output).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert!(json_lines(&run.stdout).unwrap() == expected, "other records than `rtlive decode` finds");
    }
    // Since it heard again the receiver has all that others have, and each once.
    let late = numbers(&decode(&late).unwrap());
    assert!(!late.is_empty());
    let printed = || numbers(&receiver.lines().unwrap_or_default());
    until("all of it is printed", || late.iter().all(|number| printed().contains(number)));
    let printed = printed();
    let distinct: BTreeSet<_> = printed.iter().collect();
    assert_eq!(distinct.len(), printed.len(), "records are there twice");
    assert_eq!(receiver.stop().unwrap(), Some(0), "{}", receiver.log().unwrap());
}
