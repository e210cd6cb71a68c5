//! The macros as a driver uses them.

#![allow(clippy::unwrap_used)]

use rtlive_config::document::Document;
use rtlive_config::endpoint::HostPort;
use rtlive_config::quantity::Span;
use rtlive_config::secret::Secret;
use rtlive_config::value::{Bounded, NonEmpty, OneOrMany};
use rtlive_config::{choices, options};

choices! {
    /// Which table of the device.
    pub enum RegisterTable {
        /// Bits that can be written.
        Coil = "coil",
        /// Words that can be written.
        Holding = "holding",
        ; later: ["file"]
    }
}

options! {
    /// A register.
    pub struct RegisterOptions {
        /// The series.
        pub series: String,
        /// Which table.
        pub table: RegisterTable = "holding",
        /// The address.
        pub address: u16,
        /// What it holds.
        pub kind: String as "type" = "u16",
        /// What the value is multiplied by.
        pub scale: f64 = 1,
    }
}

options! {
    /// A bus.
    pub struct BusOptions {
        /// The port.
        pub port: Option<String>,
        /// Host and port.
        pub tcp: Option<HostPort>,
        /// Bits per second.
        pub baud: u32 = 9600,
        /// How long an answer may take.
        pub timeout: Span = "300ms",
        /// The addresses.
        pub unit_id: OneOrMany<Bounded<u8, 1, 247>>,
        /// The registers.
        pub registers: NonEmpty<RegisterOptions>,
        /// The login.
        pub password: Option<Secret>,
        later: ["rate"],
    }
}

#[test]
fn a_good_table_is_read() {
    let text = r#"
unit_id = [1, 2]
registers = [{ series = "t", address = 100, type = "i32", scale = 0.1 }]
tcp = "10.0.0.5:502"
password = { env = "P" }
"#;
    let document = Document::of_text("a.toml", text);
    let bus = BusOptions::read(&document.root()).unwrap();
    assert_eq!(document.mistakes().0, []);
    assert_eq!(bus.baud, 9600);
    assert_eq!(bus.timeout.0.as_millis(), 300);
    assert_eq!(bus.unit_id.iter().map(|id| id.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bus.registers[0].kind, "i32");
    assert_eq!(bus.registers[0].table, RegisterTable::Holding);
    assert_eq!(bus.password, Some(Secret::Env("P".into())));
}

#[test]
fn every_mistake_is_noted_with_its_place() {
    let text = r#"
unit_id = [0, 248, "x"]
baud = "fast"
timeout = 300
rate = "64 kbit/s"
password = "hunter2"
[[registers]]
address = 70000
table = "cool"
serie = "t"
[[registers]]
series = "u"
address = 1
table = "file"
"#;
    let document = Document::of_text("a.toml", text);
    assert!(BusOptions::read(&document.root()).is_none());
    document.root().mistake("registers[1].address", "an address of its own", "address 1 also elsewhere");
    document.root().mistake("", "port or tcp", "neither");
    let expected = r#"a.toml:1:1: expected port or tcp, found neither
a.toml:2:12: unit_id[0]: expected an integer from 1 to 247, found the integer 0
a.toml:2:15: unit_id[1]: expected an integer from 1 to 247, found the integer 248
a.toml:2:20: unit_id[2]: expected an integer from 1 to 247, found "x"
a.toml:3:8: baud: expected an integer from 0 to 4294967295, found "fast"
a.toml:4:11: timeout: expected a span such as "10s", "300ms" or "15m", found 300 without a unit
a.toml:5:1: rate: not yet in this version
a.toml:6:12: password: expected a reference: { file = "PATH" }, { credential = "NAME" } or { env = "NAME" }, found plain text, which everyone who reads the configuration or a backup of it would see
a.toml:7:1: registers[0].series: missing; expected a text
a.toml:8:11: registers[0].address: expected an integer from 0 to 65535, found the integer 70000
a.toml:9:9: registers[0].table: expected "coil" or "holding", found "cool" (did you mean "coil"?)
a.toml:10:1: registers[0].serie: unknown key; the nearest known one is `series`
a.toml:13:1: registers[1].address: expected an address of its own, found address 1 also elsewhere
a.toml:14:9: registers[1].table: "file" is not yet in this version"#;
    let found = document.mistakes().to_string();
    assert_eq!(found, expected, "found:\n{found}");
}

#[test]
fn the_reference_has_every_key() {
    let reference = BusOptions::reference();
    assert_eq!(reference.doc.trim(), "A bus.");
    assert_eq!(reference.later, ["rate"]);
    let unit_id = reference.keys.iter().find(|key| key.name == "unit_id").unwrap();
    assert!(unit_id.required);
    let registers = reference.keys.iter().find(|key| key.name == "registers").unwrap().table.clone().unwrap();
    let kind = &registers.keys[3];
    assert_eq!((kind.name, kind.default.as_deref(), kind.doc.trim()), ("type", Some("\"u16\""), "What it holds."));
    assert_eq!(registers.keys[1].choices[0], ("coil", "Bits that can be written."));
}
