//! `modbus`: devices on an RS-485 or RS-232 line (RTU), or over TCP.
//!
//! How a line is wired stands in the doc of [`ModbusOptions`], where its users find it.
//!
//! Requests go out one after the other. Registers of one device that are due at the same time share one where they are neighbours.
//! Nothing is ever written to a device.
//!
//! An answer that comes after its time-out cannot be told from the answer to the next request for as many registers: `timeout` must
//! be longer than the slowest device takes. Over TCP the number of the transaction tells them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use rtlive_config::quantity::{Period, Span};
use rtlive_config::reference::Reference;
use rtlive_config::table::Table as Written;
use rtlive_config::value::{Bounded, NonEmpty, OneOrMany};
use rtlive_config::{choices, options};
use rtlive_core::reading::{SERIES_NAME_BYTES_MAX, is_series_name, series_level};
use rtlive_core::sorted;
use rtlive_core::template::{Piece, Template};

use crate::input::{CheckedInput, Driver};
use crate::port::{Port, PortOptions};

mod bus;
mod decimal;
mod frame;
mod link;
mod plan;
mod register;
mod schedule;

use bus::Bus;
use decimal::Scale;
pub use frame::crc16;
use link::Timing;
use plan::{Device, Limits, Register};
pub use register::{Kind, Order, Table};

/// The most series of an input: more than a bus carries in any sensible time.
const SERIES_MAX: usize = 10_000;
/// The unit ids of devices on a serial line; 0 is everybody, and those above are reserved (Modbus over Serial Line V1.02, section 2.2).
const UNITS_RTU: std::ops::RangeInclusive<u8> = 1..=247;
/// How busy a line may be: devices need time to answer too.
const LOAD_MAX: f64 = 0.8;
/// Numbers by which documents call registers: 30001 is input register 0, 40001 holding register 0.
const DOCUMENT_NUMBERS: [std::ops::RangeInclusive<u16>; 2] = [30_001..=39_999, 40_001..=49_999];

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "modbus",
    summary: "registers of Modbus devices, RTU on a serial port or TCP",
    example: r#"[maps.sdm630]
registers = [
  { series = "voltage", table = "input", address = 0, type = "f32", unit = "V" },
  { series = "energy", table = "input", address = 342, type = "f32", unit = "kWh", every = "15m" },
]

[inputs.meters]
driver = "modbus"
port = "/dev/ttyUSB0"
baud = 9600
every = "1s"
[[inputs.meters.devices]]
name = "m{unit_id}"
unit_id = [1, 2, 3]
map = "sdm630"
[[inputs.meters.devices]]
name = "boiler"
unit_id = 7
registers = [
  { series = "temperature", table = "holding", address = 100, type = "i16", scale = 0.1, unit = "Cel" },
  { series = "pump", table = "coil", address = 3, type = "bool" },
]
"#,
    options: reference,
    check,
};

options! {
    /// Registers of Modbus devices on one serial line, or behind one TCP port.
    ///
    /// Wiring of RS-485: two wires join all devices in a row, without branches, A to A and B to B (makers disagree on which is which:
    /// if nobody answers, swap them), with a common ground, and 120 Ω between the wires at both ends of the row and nowhere else. The
    /// settings of the line and a unit id of its own are set at each device; 9600 bit/s, 8 data bits, no parity and 1 stop bit are the
    /// commonest. An adapter that echoes what it sends is understood. Where a UART of the board drives the line, the kernel must switch
    /// its direction (`linux,rs485-enabled-at-boot-time` in the device tree).
    pub struct ModbusOptions {
        /// How frames are written. Absent: `rtu` with `port`, `tcp` with `tcp`.
        pub framing: Option<Framing>,
        /// How often registers are read, at multiples of the wall clock.
        pub every: Period = "1s",
        /// How long a device may take until it begins to answer.
        pub timeout: Period = "300ms",
        /// How often a request is repeated that got no sound answer.
        pub retries: Bounded<u32, 0, 10> = 1,
        /// After how many time-outs in a row a device is set aside, so that it does not hold up the others.
        pub set_aside_after: Bounded<u32, 1, 1_000> = 3,
        /// For how long.
        pub set_aside: Span = "30s",
        /// The least silence before a request, for devices that are slow to listen; a serial line has 3.5 characters anyway.
        pub pause: Span = "0s",
        /// How many registers (or bits) that nobody wants may be read along, so that those around them share a request. Each costs
        /// 2 ms at 9600 bit/s, a request of its own about 50 ms; but not every device has something to say in its gaps.
        pub gap: Bounded<u16, 0, 124> = 0,
        /// How many registers a request may read; of bits it may read 16 times as many. Some devices allow fewer than the specification.
        pub registers_max: Bounded<u16, 1, 125> = 125,
        /// The devices.
        pub devices: NonEmpty<DeviceOptions>,
    }
}

choices! {
    /// How frames are written.
    pub enum Framing {
        /// As on a serial line, with a checksum; over TCP for converters that pass bytes on as they are.
        Rtu = "rtu",
        /// With the header of Modbus TCP.
        Tcp = "tcp",
    }
}

options! {
    /// A device, or several of a kind.
    pub struct DeviceOptions {
        /// The first level of its series below the input's name; `{unit_id}` stands for that, where there are several.
        pub name: Template,
        /// Its unit id, or those of several devices of this kind.
        pub unit_id: OneOrMany<Bounded<u8, 0, 255>>,
        /// Its type: the name of a table in `[maps]`, whose `registers` are as those here.
        pub map: Option<String>,
        /// How often its registers are read. Absent: as the input says.
        pub every: Option<Period>,
        /// Its registers, beside those of its map.
        pub registers: Vec<RegisterOptions>,
    }
}

options! {
    /// A device type.
    pub struct MapOptions {
        /// Its registers.
        pub registers: NonEmpty<RegisterOptions>,
    }
}

options! {
    /// A register.
    pub struct RegisterOptions {
        /// The series, below the device's name.
        pub series: String,
        /// Where it stands.
        pub table: Table,
        /// Its address, from 0: that of the protocol. What a document calls 30001 or 40001 has the address 0.
        pub address: u16,
        /// What it holds. Absent: `u16`, or `bool` in tables of bits and with `bit`.
        pub kind: Option<Kind> as "type",
        /// In which order the bytes of a value come, `a` being the most significant one.
        pub order: Order = "abcd",
        /// Which bit of the register is the value, 0 being the least significant; for `bool`.
        pub bit: Option<Bounded<u8, 0, 15>>,
        /// How many registers the text takes; for `text`.
        pub length: Option<Bounded<u16, 1, 125>>,
        /// What a number is multiplied by, in decimal: 234 × 0.1 is 23.4.
        pub scale: f64 = 1,
        /// What is added then.
        pub offset: f64 = 0,
        /// Its unit, as UCUM (`Cel`, `kWh`) or in your own words.
        pub unit: Option<String>,
        /// How often it is read. Absent: as the device or the input says.
        pub every: Option<Period>,
    }
}

fn reference() -> Reference {
    PortOptions::reference_with(ModbusOptions::reference())
}

fn check(table: &Written<'_>) -> Option<CheckedInput> {
    let port = PortOptions::read_part(table).and_then(|options| options.check(table));
    let options = ModbusOptions::read_part(table)?;
    let port = port?;
    let framing = options.framing.unwrap_or(match port {
        Port::Serial(_) => Framing::Rtu,
        Port::Tcp(_) => Framing::Tcp,
    });
    if let (Port::Serial(_), Framing::Tcp) = (&port, framing) {
        table.mistake("framing", "\"rtu\" on a serial port", "\"tcp\"");
        return None;
    }
    let limits = Limits { gap: options.gap.get(), registers_max: options.registers_max.get() };
    let devices = check_devices(table, &options, framing, limits)?;
    if let Port::Serial(line) = &port {
        let load = load(&devices, limits, line.character());
        if load > LOAD_MAX {
            let key = if table.has("every") { "every" } else { "devices" };
            let message = "at this baud rate the line is busy for";
            table.warn(key, format_args!("{message} {load:.1} s of each second, so that polls will be missed"));
        }
    }
    let registers = || devices.iter().flat_map(|device| &device.registers);
    let intervals = || registers().map(|register| register.every);
    let every = intervals().min();
    let readings_per_second = Some(intervals().map(|every| every.as_secs_f64().recip()).sum());
    let series = registers().map(|register| register.series.clone()).collect();
    let timing = Timing { timeout: options.timeout.0, pause: options.pause.0 };
    let input = Box::new(Bus {
        port,
        framing,
        timing,
        limits,
        retries: options.retries.get(),
        set_aside_after: options.set_aside_after.get(),
        set_aside: options.set_aside.0,
        devices,
        memory: Mutex::default(),
    });
    Some(CheckedInput {
        input,
        polled: true,
        every,
        can_be_asked_again: false,
        series,
        has_others: false,
        readings_per_second,
    })
}

/// For how much of the time the line carries bytes, or the silence between frames.
fn load(devices: &[Device], limits: Limits, character: Duration) -> f64 {
    let device = |device: &Device| {
        let intervals = sorted::set(device.registers.iter().map(|register| register.every));
        let interval = |every: Duration| {
            let blocks = device.blocks(&[every], &BTreeSet::new(), limits);
            let bytes: usize = blocks.iter().map(|block| block.request.rtu_bytes()).sum();
            let silences = 2.0 * blocks.len() as f64 * link::silence(character).as_secs_f64();
            (bytes as f64 * character.as_secs_f64() + silences) / every.as_secs_f64()
        };
        intervals.into_iter().map(interval).sum::<f64>()
    };
    devices.iter().map(device).sum()
}

/// The devices with all their registers; `None` if something is wrong with one.
fn check_devices(
    table: &Written<'_>,
    options: &ModbusOptions,
    framing: Framing,
    limits: Limits,
) -> Option<Vec<Device>> {
    let maps = table.root_table("maps");
    let mut devices = Vec::new();
    let mut right = true;
    let mut mistake = |table: &Written<'_>, key: &str, expected: &str, found: &str| {
        table.mistake(key, expected, found);
        right = false;
    };
    // Which unit has a series.
    let mut known: BTreeMap<String, u8> = BTreeMap::new();
    for (place, written) in options.devices.iter().enumerate() {
        let at = format!("devices[{place}]");
        let every = written.every.unwrap_or(options.every).0;
        let map = written.map.as_ref().and_then(|name| {
            let found = maps.as_ref().filter(|maps| maps.has(name)).and_then(|maps| maps.table(name));
            if found.is_none() {
                mistake(table, &format!("{at}.map"), "the name of a table in [maps]", &format!("{name:?}"));
            }
            found
        });
        let key = format!("{at}.registers");
        let mut registers = Vec::new();
        if let Some(map) = &map {
            let options = MapOptions::read(map)?;
            registers.extend(check_registers(map, "registers", &options.registers, every, limits)?);
        }
        registers.extend(check_registers(table, &key, &written.registers, every, limits)?);
        if written.map.is_none() && registers.is_empty() {
            mistake(table, &at, "`map` or `registers`", "neither");
        }
        sorted::by_key(&mut registers, |(_, _, register)| (register.table, register.address));
        for unit in written.unit_id.iter().map(|unit| unit.get()) {
            if framing == Framing::Rtu && !UNITS_RTU.contains(&unit) {
                mistake(table, &format!("{at}.unit_id"), "a unit id from 1 to 247 on a serial line", &unit.to_string());
            }
            let name = device_name(table, &at, &written.name, unit)?;
            let mut device = Device { name, unit, registers: Vec::new() };
            let mut own = BTreeSet::new();
            for (table_of, at_register, register) in &registers {
                let series = format!("{}/{}", device.name, register.series);
                if series.len() > SERIES_NAME_BYTES_MAX {
                    mistake(table, &format!("{at}.name"), "series of at most 255 bytes", &series);
                } else if !own.insert(series.clone()) {
                    let key = format!("{at_register}.series");
                    mistake(table_of, &key, "a series of its own for each register", &format!("{series:?} twice"));
                } else if let Some(unit) = known.insert(series.clone(), unit) {
                    let found = format!("{series:?}, which unit {unit} has already");
                    let expected = "a name of its own for each device, such as \"m{unit_id}\"";
                    mistake(table, &format!("{at}.name"), expected, &found);
                }
                device.registers.push(Register { series, ..register.clone() });
            }
            devices.push(device);
        }
    }
    if known.len() > SERIES_MAX {
        mistake(table, "devices", "at most 10000 series", &known.len().to_string());
    }
    right.then_some(devices)
}

/// The name of a device with this unit id.
fn device_name(table: &Written<'_>, at: &str, name: &Template, unit: u8) -> Option<String> {
    let rendered = name.render(|piece| match piece {
        Piece::Name { name, argument: None } if name == "unit_id" => Some(unit.to_string().into()),
        _ => None,
    });
    match rendered {
        Ok(name) if name.split('/').all(|level| series_level(level) == level) => Some(name),
        Ok(name) => {
            let expected = "levels without + # { } and none of them empty";
            table.mistake(&format!("{at}.name"), expected, format!("{name:?}"));
            None
        }
        Err(error) => {
            table.mistake(&format!("{at}.name"), "a name with no place but {unit_id}", error);
            None
        }
    }
}

/// The registers at a key of a table, each with its place there. Their series lack the device's name.
fn check_registers<'t, 'd>(
    table: &'t Written<'d>,
    key: &str,
    registers: &[RegisterOptions],
    every: Duration,
    limits: Limits,
) -> Option<Vec<(&'t Written<'d>, String, Register)>> {
    let check = |(place, written): (usize, &RegisterOptions)| {
        let at = format!("{key}[{place}]");
        let register = check_register(table, &at, written, every, limits)?;
        Some((table, at, register))
    };
    // All are checked before the first that is wrong counts, so that the mistakes of all are noted.
    let checked: Vec<_> = registers.iter().enumerate().map(check).collect();
    checked.into_iter().collect()
}

fn check_register(
    table: &Written<'_>,
    at: &str,
    written: &RegisterOptions,
    every: Duration,
    limits: Limits,
) -> Option<Register> {
    let mut right = true;
    let mut mistake = |key: &str, expected: &str, found: &str| {
        table.mistake(&format!("{at}.{key}"), expected, found);
        right = false;
    };
    let has_bits = written.table.has_bits();
    let kind = written.kind.unwrap_or(if has_bits || written.bit.is_some() { Kind::Bool } else { Kind::U16 });
    if has_bits && kind != Kind::Bool {
        mistake("type", "\"bool\" in a table of bits", &format!("{:?}", kind.word()));
    }
    if written.bit.is_some() && (has_bits || kind != Kind::Bool) {
        mistake("bit", "no `bit`, which is for \"bool\" in a register", "one");
    }
    if !kind.is_number() && (written.scale, written.offset) != (1.0, 0.0) {
        let key = if written.scale == 1.0 { "offset" } else { "scale" };
        mistake(key, &format!("none for {:?}", kind.word()), "one");
    }
    if written.scale == 0.0 {
        mistake("scale", "a number other than 0", "0");
    }
    if kind == Kind::Text && matches!(written.order, Order::Cdab | Order::Dcba) {
        mistake("order", "\"abcd\" or \"badc\" for text", &format!("{:?}", written.order.word()));
    }
    let count = match (kind.registers(), written.length) {
        (Some(count), None) => count,
        (None, Some(length)) => length.get(),
        (Some(count), Some(_)) => {
            mistake("length", "no `length`, which is for \"text\"", "one");
            count
        }
        (None, None) => {
            mistake("type", "`length` beside \"text\"", "none");
            1
        }
    };
    if count > limits.registers_max {
        mistake("type", &format!("at most `registers_max` ({}) registers", limits.registers_max), &count.to_string());
    }
    let series = &written.series;
    if !is_series_name(series) {
        let expected = "levels without + # { } and none of them empty, 255 bytes at most";
        mistake("series", expected, &format!("{series:?}"));
    }
    let address = written.address;
    if u32::from(address) + u32::from(count) > u32::from(u16::MAX) + 1 {
        mistake("address", "an address with room for the value up to 65535", &address.to_string());
    }
    if let Some(numbers) = DOCUMENT_NUMBERS.iter().find(|numbers| numbers.contains(&address)) {
        let meant = address - numbers.start();
        table.warn(
            &format!("{at}.address"),
            format_args!(
                "addresses are those of the protocol, from 0: what a document calls {address} is the address {meant}"
            ),
        );
    }
    let scale = ((written.scale, written.offset) != (1.0, 0.0)).then(|| Scale::new(written.scale, written.offset));
    let layout = register::Layout { kind, order: written.order, bit: written.bit.map(Bounded::get), scale };
    right.then(|| Register {
        series: series.clone(),
        unit: written.unit.clone(),
        table: written.table,
        address,
        count,
        layout,
        every: written.every.map_or(every, |every| every.0),
    })
}

#[cfg(test)]
mod tests;
