//! A Modbus energy meter: pymodbus' simulator with the map and the values of an Eastron SDM630 of the shared data.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::data::shared;
use crate::peer::{Cable, Peer, free_port, python, until};

/// What the meter is called in its files.
const DEVICE: &str = "eastron_sdm630";

/// A running meter.
pub struct Meter {
    /// The serial port at which it is found, with RTU.
    pub port: PathBuf,
    /// The TCP port at which it is found, with Modbus TCP.
    pub tcp: u16,
    /// What it says, by the name of the measurement.
    pub values: BTreeMap<String, f64>,
    /// A TOML list of registers that reads all of it.
    pub registers: String,
    _cable: Option<Cable>,
    _simulator: Peer,
}

impl Meter {
    /// Starts one on a serial line of 9600 bit/s; `None` where something for it is missing.
    ///
    /// # Errors
    /// What the system said, or what is wrong with the shared data.
    pub fn on_a_line(folder: &Path) -> io::Result<Option<Self>> {
        let (own, port) = (folder.join("meter"), folder.join("line"));
        let Some(cable) = Cable::lay(&own, &port)? else { return Ok(None) };
        Self::start(folder, "rtu", Some(cable), &own, port)
    }

    /// Starts one behind a TCP port; `None` where something for it is missing.
    ///
    /// # Errors
    /// What the system said, or what is wrong with the shared data.
    pub fn over_tcp(folder: &Path) -> io::Result<Option<Self>> {
        Self::start(folder, "tcp", None, Path::new(""), PathBuf::new())
    }

    fn start(folder: &Path, server: &str, cable: Option<Cable>, own: &Path, port: PathBuf) -> io::Result<Option<Self>> {
        let files =
            ["sim/eastron_sdm630.pymodbus-simulator.json", "sim/eastron_sdm630.expect.json", "eastron_sdm630.map.csv"];
        let [Some(setup), Some(expected), Some(map)] = files.map(|file| shared(&format!("modbus/{file}"))) else {
            return Ok(None);
        };
        let Some(python) = python(&["pymodbus", "serial", "aiohttp"]) else { return Ok(None) };
        let (tcp, http) = (free_port()?, free_port()?);
        let mut setup: Value = serde_json::from_slice(&fs::read(setup)?)?;
        setup["server_list"]["rtu"]["port"] = json!(own);
        setup["server_list"]["tcp"]["port"] = json!(tcp);
        let file = folder.join("simulator.json");
        fs::write(&file, setup.to_string())?;
        let values: BTreeMap<String, f64> = serde_json::from_slice(&fs::read(expected)?)?;
        let registers = registers(&fs::read_to_string(map)?, &values);

        let mut command = Command::new(python);
        command.args(["-m", "pymodbus.server.simulator.main", "--modbus_server", server, "--modbus_device", DEVICE]);
        command.args(["--http_host", "127.0.0.1", "--http_port", &http.to_string(), "--log", "error", "--json_file"]);
        command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let simulator = Peer::start(&mut command)?;
        let listening = if server == "tcp" { tcp } else { http };
        until("the meter is there", || TcpStream::connect(("127.0.0.1", listening)).is_ok());
        Ok(Some(Self { port, tcp, values, registers, _cable: cable, _simulator: simulator }))
    }
}

/// The registers of the measurements that have a value, as TOML.
fn registers(map: &str, values: &BTreeMap<String, f64>) -> String {
    let register = |line: &str| {
        let mut columns = line.split(',');
        let (name, function, address) = (columns.next()?, columns.next()?, columns.next()?);
        let table = if function == "4" { "input" } else { "holding" };
        values.contains_key(name).then(|| {
            format!("  {{ series = \"{name}\", table = \"{table}\", address = {address}, type = \"f32\" }},\n")
        })
    };
    format!("[\n{}]", map.lines().filter_map(register).collect::<String>())
}
