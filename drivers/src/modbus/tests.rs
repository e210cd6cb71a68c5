//! Options, and the driver beside devices that misbehave: on pseudo-terminals and over TCP.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use rtlive_config::document::Document;
use rtlive_core::reading::Value;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::rig::{Rig, checked};

#[test]
fn the_example_is_right() {
    let document = Document::of_text("example.toml", DRIVER.example);
    let inputs = document.root().table("inputs").unwrap();
    let table = inputs.table("meters").unwrap();
    table.dealt_with("driver");
    let checked = (DRIVER.check)(&table).unwrap();
    table.close();
    assert_eq!(document.mistakes().to_string(), "");
    assert_eq!((checked.polled, checked.series.len(), checked.has_others), (true, 8, false));
    assert_eq!(checked.every, Some(Duration::from_secs(1)));
    assert!((checked.readings_per_second.unwrap() - (5.0 + 3.0 / 900.0)).abs() < 1e-9);
}

fn mistakes(options: &str) -> String {
    let document = Document::of_text("t.toml", options);
    let table = document.root();
    let checked = check(&table);
    table.dealt_with("maps");
    table.close();
    let mistakes = document.mistakes().to_string();
    assert!(checked.is_none() || !mistakes.is_empty(), "no mistake in {options}");
    mistakes
}

#[test]
fn mistakes_in_a_register_are_named() {
    for (register, mistake) in [
        ("table = 'input', address = 0, series = 'a', type = 'u8'", "registers[0].type: expected \"bool\", \"u16\""),
        ("table = 'inputs', address = 0, series = 'a'", "did you mean \"input\"?"),
        ("table = 'coil', address = 0, series = 'a', type = 'u16'", "expected \"bool\" in a table of bits"),
        ("table = 'coil', address = 0, series = 'a', bit = 1", "registers[0].bit: expected no `bit`"),
        ("table = 'input', address = 0, series = 'a', type = 'u16', bit = 1", "registers[0].bit: expected no `bit`"),
        ("table = 'input', address = 0, series = 'a', bit = 16", "from 0 to 15"),
        ("table = 'input', address = 0, series = 'a', type = 'bool', scale = 2", "registers[0].scale: expected none"),
        ("table = 'input', address = 0, series = 'a', scale = 0", "a number other than 0"),
        ("table = 'input', address = 0, series = 'a', type = 'text'", "`length` beside \"text\""),
        ("table = 'input', address = 0, series = 'a', type = 'u16', length = 2", "no `length`"),
        ("table = 'input', address = 0, series = 'a', type = 'text', length = 2, order = 'cdab'", "for text"),
        ("table = 'input', address = 65535, series = 'a', type = 'f32'", "room for the value up to 65535"),
        ("table = 'input', address = 65536, series = 'a'", "from 0 to 65535"),
        ("table = 'input', address = 0, series = 'a/+'", "levels without"),
        ("table = 'input', address = 0, series = 'a', order = 'abdc'", "\"abcd\", \"cdab\", \"badc\" or \"dcba\""),
        (
            "table = 'input', address = 0, series = 'a' }, { table = 'input', address = 1, series = 'a'",
            "devices[0].registers[1].series: expected a series of its own",
        ),
    ] {
        let options = format!("port = 'p'\ndevices = [{{ name = 'm', unit_id = 1, registers = [{{ {register} }}] }}]");
        let found = mistakes(&options);
        assert!(found.contains(mistake), "{register}: {found}");
    }
}

#[test]
fn mistakes_in_a_device_are_named() {
    const REGISTERS: &str = "registers = [{ table = 'input', address = 0, series = 'a' }]";
    for (options, mistake) in [
        ("port = 'p'\ndevices = []", "a list of at least one"),
        ("port = 'p'\nframing = 'tcp'\ndevices = [{ name = 'm', unit_id = 1, R }]", "\"rtu\" on a serial port"),
        ("port = 'p'\ndevices = [{ name = 'm', unit_id = 0, R }]", "from 1 to 247 on a serial line, found 0"),
        ("tcp = 'a:1'\ndevices = [{ name = 'm', unit_id = 256, R }]", "from 0 to 255"),
        ("port = 'p'\ndevices = [{ name = 'm', unit_id = 1 }]", "`map` or `registers`"),
        (
            "port = 'p'\ndevices = [{ name = 'm', unit_id = 1, map = 'x' }]",
            "devices[0].map: expected the name of a table",
        ),
        ("port = 'p'\ndevices = [{ name = 'm{unit}', unit_id = 1, R }]", "no place but {unit_id}"),
        ("port = 'p'\ndevices = [{ name = 'a//b', unit_id = 1, R }]", "none of them empty"),
        ("port = 'p'\ndevices = [{ name = 'm', unit_id = [1, 2], R }]", "\"m/a\", which unit 1 has already"),
        ("devices = [{ name = 'm', unit_id = 1, R }]", "`port` or `tcp`"),
        ("port = 'p'\ntimeout = '0s'\ndevices = [{ name = 'm', unit_id = 1, R }]", "longer than zero"),
        (
            "port = 'p'\ndevices = [{ name = 'm', unit_id = 1, map = 'x', R }]\n[maps.x]\nR",
            "devices[0].registers[0].series: expected a series of its own for each register, found \"m/a\" twice",
        ),
        (
            "port = 'p'\nregisters_max = 1\ndevices = [{ name = 'm', unit_id = 1, map = 'x' }]\n[maps.x]\n\
             registers = [{ table = 'input', address = 0, series = 'a', type = 'u32' }]",
            "maps.x.registers[0].type: expected at most `registers_max` (1) registers, found 2",
        ),
    ] {
        let found = mistakes(&options.replace('R', REGISTERS));
        assert!(found.contains(mistake), "{options}: {found}");
    }
}

#[test]
fn numbers_of_documents_are_warned_of() {
    let registers = [30_000, 30_001, 40_001, 50_000]
        .map(|address| format!("{{ table = 'input', address = {address}, series = 'a{address}' }}"));
    let options =
        format!("port = 'p'\ndevices = [{{ name = 'm', unit_id = 1, registers = [{}] }}]", registers.join(", "));
    let document = Document::of_text("t.toml", &options);
    assert!(check(&document.root()).is_some());
    let warnings = document.warnings();
    let places: Vec<_> = warnings.0.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(places, ["devices[0].registers[1].address", "devices[0].registers[2].address"]);
    assert!(warnings.to_string().contains("calls 40001 is the address 0"), "{warnings}");
}

#[test]
fn a_line_that_is_too_slow_is_warned_of() {
    // 25 bytes and two silences at 960 bytes a second.
    let options = |every: &str| {
        format!(
            "port = 'p'\nevery = '{every}'\ndevices = [{{ name = 'm', unit_id = 1, \
             registers = [{{ table = 'input', address = 0, series = 'a', type = 'text', length = 6 }}] }}]"
        )
    };
    for (every, warning) in
        [("30ms", "every: at this baud rate the line is busy for 1.1 s of each second"), ("50ms", "")]
    {
        let document = Document::of_text("t.toml", &options(every));
        assert!(check(&document.root()).is_some());
        let warnings = document.warnings().to_string();
        assert!(warnings.contains(warning) && warnings.is_empty() == warning.is_empty(), "{every}: {warnings}");
    }
}

/// A device on a pseudo-terminal. It is given each request, and says what goes back.
fn device(mut answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) -> PathBuf {
    let other = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&other).unwrap();
    unlockpt(&other).unwrap();
    let path = PathBuf::from(ptsname(&other, Vec::new()).unwrap().into_string().unwrap());
    // The settings are the driver's; it finds the terminal open, as a line is.
    let held = File::options().read(true).write(true).open(&path).unwrap();
    let mut port = File::from(other);
    std::thread::spawn(move || {
        let _held = held;
        let mut request = [0; 8];
        while port.read_exact(&mut request).is_ok() && port.write_all(&answer(&request)).is_ok() {}
    });
    path
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut frame = body.to_vec();
    frame.extend(crc16(body).to_le_bytes());
    frame
}

/// An answer in which each register holds its address.
fn addresses(request: &[u8]) -> Vec<u8> {
    let first = u16::from_be_bytes([request[2], request[3]]);
    let count = u16::from_be_bytes([request[4], request[5]]);
    let mut body = vec![request[0], request[1], count as u8 * 2];
    body.extend((first..first + count).flat_map(u16::to_be_bytes));
    sealed(&body)
}

fn register(address: u16) -> String {
    format!("{{ table = 'input', address = {address}, series = 'r{address}' }}")
}

fn rig(port: &str, more: &str, units: &str, addresses: &[u16]) -> Rig {
    let registers: Vec<_> = addresses.iter().map(|address| register(*address)).collect();
    let options = format!(
        "{port}\nevery = '100ms'\n{more}\n[[devices]]\nname = 'm{{unit_id}}'\nunit_id = {units}\nregisters = [{}]",
        registers.join(", ")
    );
    let rig = Rig::new(&DRIVER, &options);
    assert!(checked(&DRIVER, &options).is_ok());
    rig
}

/// The series that have readings; each reading is its register's address.
fn series(rig: &Rig) -> BTreeSet<&str> {
    for reading in &rig.readings {
        let (_, address) = reading.series.rsplit_once('r').unwrap();
        assert_eq!(reading.value, Value::Int(address.parse().unwrap()), "{}", reading.series);
    }
    rig.readings.iter().map(|reading| reading.series.as_str()).collect()
}

#[tokio::test]
async fn readings_of_one_request_share_a_time_of_whole_milliseconds() {
    let path = device(addresses);
    let mut rig = rig(&format!("port = {path:?}"), "", "1", &[3, 4, 9]);
    rig.start();
    rig.commit_until(|rig| rig.readings.len() >= 9).await;
    assert_eq!(series(&rig), BTreeSet::from(["in/m1/r3", "in/m1/r4", "in/m1/r9"]));
    for poll in rig.readings.chunks_exact(3) {
        assert_eq!(poll[0].time, poll[1].time);
        assert!(poll.iter().all(|reading| reading.time.as_nanos() % 1_000_000 == 0));
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_silent_device_is_set_aside_and_the_others_are_read() {
    let path = device(|request| if request[0] == 2 { Vec::new() } else { addresses(request) });
    let mut rig = rig(&format!("port = {path:?}"), "timeout = '100ms'", "[2, 1]", &[0]);
    rig.start();
    rig.commit_until(|rig| rig.readings.len() >= 10).await;
    let health = rig.health_until(|health| health.counters.get("polls_set_aside") >= Some(&3)).await;
    assert_eq!(series(&rig), BTreeSet::from(["in/m1/r0"]));
    assert!(health.counters["timeouts"] >= 3 && health.counters["retries"] >= 1, "{health:?}");
    let error = health.error.unwrap();
    assert!(error.contains("m2 (unit 2)") && error.contains("set aside for 30s"), "{error}");
    assert_eq!((health.state, health.restarts), ("running", 0));
    rig.stop().await;
}

#[tokio::test]
async fn damaged_answers_are_counted_and_asked_for_again() {
    let mut asked = 0;
    let path = device(move |request| {
        asked += 1;
        let mut answer = addresses(request);
        match asked % 6 {
            1 => answer[4] ^= 1,
            3 => answer = vec![0x55; 30],
            5 => answer = sealed(&[9, 4, 2, 0, 0]),
            // Noise and an echo before a sound answer do no harm.
            _ => answer = [&[0xff], request, &answer].concat(),
        }
        answer
    });
    let mut rig = rig(&format!("port = {path:?}"), "", "1", &[7]);
    rig.start();
    rig.commit_until(|rig| rig.readings.len() >= 6).await;
    assert_eq!(series(&rig), BTreeSet::from(["in/m1/r7"]));
    let counters = rig.health_until(|_| true).await.counters;
    assert!(counters["crc_errors"] >= 2 && counters["garbage"] >= 4 && counters["retries"] >= 6, "{counters:?}");
    rig.stop().await;
}

#[tokio::test]
async fn registers_that_a_device_refuses_together_are_read_one_by_one() {
    let path = device(|request| match (request[3], request[5]) {
        (5, _) | (_, 2..) => sealed(&[request[0], request[1] | 0x80, 2]),
        _ => addresses(request),
    });
    let mut rig = rig(&format!("port = {path:?}"), "", "1", &[4, 5, 6]);
    rig.start();
    rig.commit_until(|rig| rig.readings.len() >= 4).await;
    assert_eq!(series(&rig), BTreeSet::from(["in/m1/r4", "in/m1/r6"]));
    let health = rig.health_until(|health| health.counters.get("exceptions") >= Some(&3)).await;
    let error = health.error.unwrap();
    assert!(error.contains("input 5 to 5: exception 2, illegal data address"), "{error}");
    rig.stop().await;
}

#[tokio::test]
async fn polls_that_a_missing_port_costs_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("ttyUSB0");
    let mut rig = rig(&format!("port = {link:?}"), "", "1", &[1]);
    rig.start();
    let health = rig.health_until(|health| health.restarts == 1).await;
    assert!(health.error.unwrap().contains("ttyUSB0: No such file"));
    std::os::unix::fs::symlink(device(addresses), &link).unwrap();
    rig.commit_until(|rig| !rig.readings.is_empty()).await;
    assert!(rig.counter("polls_missed") >= 1);
    rig.stop().await;
}

/// The next request over TCP: its header and its body.
async fn request(peer: &mut TcpStream) -> ([u8; 2], Vec<u8>) {
    let mut frame = [0; 12];
    peer.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[2..6], [0, 0, 0, 6]);
    ([frame[0], frame[1]], frame[6..].to_vec())
}

/// The answer in which each register holds its address.
fn answer(transaction: [u8; 2], request: &[u8]) -> Vec<u8> {
    let body = addresses(request);
    let body = &body[..body.len() - 2];
    [&transaction[..], &[0, 0, 0, body.len() as u8], body].concat()
}

#[tokio::test]
async fn a_late_answer_over_tcp_is_not_taken_for_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = format!("tcp = '{}'", listener.local_addr().unwrap());
    let mut rig = rig(&port, "timeout = '1s'\nretries = 0", "1", &[1, 5]);
    rig.start();
    let (mut peer, _) = listener.accept().await.unwrap();
    let (transaction, first) = request(&mut peer).await;
    // Only the time-out makes the driver ask for the second register.
    let (next, second) = request(&mut peer).await;
    assert_ne!(transaction, next);
    peer.write_all(&answer(transaction, &first)).await.unwrap();
    // In two pieces, of which the second ends the frame.
    let whole = answer(next, &second);
    let (start, end) = whole.split_at(4);
    peer.write_all(start).await.unwrap();
    peer.write_all(end).await.unwrap();
    rig.commit_until(|rig| !rig.readings.is_empty()).await;
    assert_eq!(series(&rig), BTreeSet::from(["in/m1/r5"]));
    assert_eq!((rig.counter("timeouts"), rig.counter("unexpected")), (1, 1));
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_of_no_use_any_more_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = format!("tcp = '{}'", listener.local_addr().unwrap());
    let mut rig = rig(&port, "timeout = '500ms'\nset_aside = '0s'", "1", &[1]);
    rig.start();
    // Garbage: where the next frame begins is not known.
    let (mut babbler, _) = listener.accept().await.unwrap();
    request(&mut babbler).await;
    babbler.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    // Silence: the peer may be gone without a word.
    let (mut silent, _) = listener.accept().await.unwrap();
    for _ in 0..3 {
        request(&mut silent).await;
    }
    let (mut peer, _) = listener.accept().await.unwrap();
    let (transaction, asked) = request(&mut peer).await;
    peer.write_all(&answer(transaction, &asked)).await.unwrap();
    rig.commit_until(|rig| !rig.readings.is_empty()).await;
    assert_eq!((rig.counter("garbage"), rig.counter("timeouts")), (1, 3));
    assert_eq!(rig.health_until(|_| true).await.restarts, 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_between_polls_costs_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = format!("tcp = '{}'", listener.local_addr().unwrap());
    let mut rig = rig(&port, "", "1", &[1]);
    rig.start();
    for polls in 1..=3 {
        let (mut peer, _) = listener.accept().await.unwrap();
        let (transaction, asked) = request(&mut peer).await;
        peer.write_all(&answer(transaction, &asked)).await.unwrap();
        rig.commit_until(|rig| rig.readings.len() == polls).await;
    }
    assert_eq!((rig.counter("reconnects"), rig.health_until(|_| true).await.restarts), (2, 0));
    rig.stop().await;
}
