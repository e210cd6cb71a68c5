//! Drivers for tests: two with options of their own, and those of the documentation, which take any key.

#![allow(dead_code)]

use std::time::Duration;

use rtlive_config::catalogue::{Catalogue, CheckedInput};
use rtlive_config::endpoint::{Broker, HostPort};
use rtlive_config::quantity::{Period, Span};
use rtlive_config::reference::Reference;
use rtlive_config::secret::Secret;
use rtlive_config::table::Table;
use rtlive_config::value::{Bounded, OneOrMany};
use rtlive_config::{choices, options};

choices! {
    /// A table of the device.
    pub enum RegisterTable {
        /// Words that can be written.
        Holding = "holding",
        /// Words that cannot.
        Input = "input",
        ; later: ["file"]
    }
}

options! {
    /// A register.
    pub struct RegisterOptions {
        /// The series.
        pub series: String,
        /// The table.
        pub table: RegisterTable = "holding",
        /// The address.
        pub address: u16,
    }
}

options! {
    /// A device type.
    pub struct MapOptions {
        /// The registers.
        pub registers: Vec<RegisterOptions>,
    }
}

options! {
    /// A device.
    pub struct DeviceOptions {
        /// Its address.
        pub unit_id: OneOrMany<Bounded<u8, 1, 247>>,
        /// Its type.
        pub map: Option<String>,
        /// Its registers.
        pub registers: Vec<RegisterOptions>,
    }
}

options! {
    /// A bus that is polled.
    pub struct BusOptions {
        /// The port.
        pub port: Option<String>,
        /// The other end.
        pub tcp: Option<HostPort>,
        /// Bits per second.
        pub baud: u32 = 9600,
        /// How often.
        pub every: Period = "1s",
        /// How long an answer may take.
        pub timeout: Span = "300ms",
        /// The devices.
        pub devices: Vec<DeviceOptions>,
        later: ["schedule"],
    }
}

options! {
    /// A source that speaks by itself.
    pub struct FeedOptions {
        /// Where.
        pub broker: Broker,
        /// The login.
        pub password: Option<Secret>,
    }
}

/// `bus`, `feed`, and, if asked for, the drivers of the documentation, which take any key.
pub(crate) struct TestDrivers {
    pub(crate) documented: bool,
}

const OWN: [&str; 2] = ["bus", "feed"];
const DOCUMENTED: [&str; 7] = ["file", "gpio", "modbus", "mqtt", "nmea", "serial", "simulated"];

impl Catalogue<()> for TestDrivers {
    fn names(&self) -> Vec<&'static str> {
        let documented: &[_] = if self.documented { &DOCUMENTED } else { &[] };
        OWN.iter().chain(documented).copied().collect()
    }

    fn summary(&self, driver: &str) -> Option<&'static str> {
        self.names().contains(&driver).then_some("For tests.")
    }

    fn reference(&self, driver: &str) -> Option<Reference> {
        match driver {
            "bus" => Some(BusOptions::reference()),
            "feed" => Some(FeedOptions::reference()),
            _ => None,
        }
    }

    fn check(&self, driver: &str, table: &Table<'_>) -> Option<CheckedInput<()>> {
        match driver {
            "bus" => check_bus(table),
            "feed" => FeedOptions::read(table).map(|_| checked(false, None, None)),
            _ => {
                for key in table.keys() {
                    table.dealt_with(key);
                }
                // As if its devices used all maps.
                table.root_table("maps").iter().for_each(|maps| drop(maps.tables()));
                let polled = matches!(driver, "modbus" | "gpio" | "simulated");
                Some(checked(polled, polled.then(|| Duration::from_secs(1)), None))
            }
        }
    }
}

fn check_bus(table: &Table<'_>) -> Option<CheckedInput<()>> {
    let options = BusOptions::read(table)?;
    match (&options.port, &options.tcp) {
        (None, None) => table.mistake("", "port or tcp", "neither"),
        (Some(_), Some(_)) => table.mistake("tcp", "port or tcp", "both"),
        _ => {}
    }
    let mut series = Vec::new();
    for (d, device) in options.devices.iter().enumerate() {
        let mut registers = device.registers.clone();
        if let Some(name) = &device.map {
            let maps = table.root_table("maps");
            match maps.as_ref().and_then(|maps| maps.table(name)) {
                Some(map) => registers.extend(MapOptions::read(&map)?.registers),
                None => table.mistake(&format!("devices[{d}].map"), "the name of a map", format!("{name:?}")),
            }
        }
        for (r, register) in registers.iter().enumerate() {
            if let Some(twin) = registers.iter().take(r).find(|twin| twin.series == register.series) {
                let key = format!("devices[{d}].registers[{r}].series");
                table.mistake(&key, "a series of its own for each register", format!("{:?} twice", twin.series));
            }
            if register.address >= 30_001 {
                let key = format!("devices[{d}].registers[{r}].address");
                table.warn(&key, "is an address of the protocol, from 0; 30001… and 40001… are names of documents");
            }
        }
        for unit in device.unit_id.iter() {
            series.extend(registers.iter().map(|register| format!("m{}/{}", unit.get(), register.series)));
        }
    }
    Some(checked(true, Some(options.every.0), Some(series)))
}

fn checked(polled: bool, every: Option<Duration>, series: Option<Vec<String>>) -> CheckedInput<()> {
    let (can_be_asked_again, has_others) = (!polled, series.is_none());
    let (series, readings_per_second) = (series.unwrap_or_default(), None);
    CheckedInput { input: (), polled, every, can_be_asked_again, series, has_others, readings_per_second }
}
