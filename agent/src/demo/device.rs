//! A simulated energy meter that speaks Modbus RTU on a pseudo-terminal.
//!
//! It answers function 4 (read input registers; Modbus Application Protocol V1.1b3, section 6.4) with four f32 values that
//! follow the time of day: voltage, current, power, energy. Everything else gets the exception that the specification names.

use std::f64::consts::TAU;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use rtlive_drivers::modbus::crc16;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The address of the device on its bus.
pub const UNIT_ID: u8 = 1;

/// The registers that the device has: four values of two registers each.
const REGISTERS: u16 = 8;

/// A request is 8 bytes: unit, function, address, count, CRC (Modbus over Serial Line V1.02, section 2.5.1).
const REQUEST_BYTES: usize = 8;

const READ_INPUT_REGISTERS: u8 = 4;
const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_DATA_ADDRESS: u8 = 2;
const EXCEPTION: u8 = 0x80;

/// Starts the device on a pseudo-terminal of its own, and returns the path at which the agent finds it. It runs until the agent's
/// end is closed for good, which is the end of the process.
///
/// # Errors
/// What the system said; a container without `/dev/pts` has no pseudo-terminals.
pub fn start() -> io::Result<PathBuf> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let path = PathBuf::from(String::from_utf8_lossy(name.as_bytes()).into_owned());
    // Held open, so that the terminal does not hang up when the agent closes its end; raw, so that no byte is echoed or translated.
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let mut settings = tcgetattr(&slave)?;
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings)?;

    let mut port = std::fs::File::from(master);
    thread::Builder::new().name("demo-device".into()).spawn(move || {
        let _slave = slave;
        let start = Instant::now();
        let mut request = Vec::new();
        let mut bytes = [0; 256];
        // An error means that the terminal is gone, and with it the device's work.
        while let Ok(count @ 1..) = port.read(&mut bytes) {
            request.extend_from_slice(bytes.get(..count).unwrap_or_default());
            while let Some(frame) = request.first_chunk::<REQUEST_BYTES>().copied() {
                request.drain(..REQUEST_BYTES);
                if let Some(response) = answer(&frame, start.elapsed().as_secs_f64())
                    && port.write_all(&response).is_err()
                {
                    return;
                }
            }
        }
    })?;
    Ok(path)
}

/// The response to a request at `seconds` since the start; `None` for what is not for this device or is damaged.
fn answer(request: &[u8; REQUEST_BYTES], seconds: f64) -> Option<Vec<u8>> {
    let [unit, function, address_high, address_low, count_high, count_low, crc_low, crc_high] = *request;
    let sound = crc16(request.get(..REQUEST_BYTES - 2)?) == u16::from_le_bytes([crc_low, crc_high]);
    if unit != UNIT_ID || !sound {
        return None;
    }
    let address = u16::from_be_bytes([address_high, address_low]);
    let count = u16::from_be_bytes([count_high, count_low]);
    let mut response = vec![unit, function];
    if function != READ_INPUT_REGISTERS {
        response = vec![unit, function | EXCEPTION, ILLEGAL_FUNCTION];
    } else if count == 0 || address.checked_add(count).is_none_or(|end| end > REGISTERS) {
        response = vec![unit, function | EXCEPTION, ILLEGAL_DATA_ADDRESS];
    } else {
        let bytes: Vec<u8> = values(seconds).iter().flat_map(|value| value.to_be_bytes()).collect();
        let (start, length) = (usize::from(address) * 2, usize::from(count) * 2);
        response.push(u8::try_from(length).ok()?);
        response.extend_from_slice(bytes.get(start..start + length)?);
    }
    let crc = crc16(&response);
    response.extend_from_slice(&crc.to_le_bytes());
    Some(response)
}

/// Voltage (V), current (A), power (W), energy (kWh) of a plausible load.
fn values(seconds: f64) -> [f32; 4] {
    let voltage = 230.0 + 2.0 * (seconds / 7.0 * TAU).sin();
    let current = 5.0 + 3.0 * (seconds / 11.0 * TAU).sin();
    let energy = 18_345.6 + voltage * 5.0 * seconds / 3.6e6;
    // The meter shows one, two, no and one decimals.
    let round = |value: f64, digits: i32| {
        let unit = 10f64.powi(digits);
        ((value * unit).round() / unit) as f32
    };
    [round(voltage, 1), round(current, 2), round(voltage * current, 0), round(energy, 3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(unit: u8, function: u8, address: u16, count: u16) -> [u8; REQUEST_BYTES] {
        let mut bytes = vec![unit, function];
        bytes.extend(address.to_be_bytes());
        bytes.extend(count.to_be_bytes());
        bytes.extend(crc16(&bytes).to_le_bytes());
        bytes.try_into().unwrap()
    }

    #[test]
    fn answers_its_registers_and_names_what_it_has_not() {
        let response = answer(&request(1, 4, 0, 2), 0.0).unwrap();
        assert_eq!(response[..3], [1, 4, 4]);
        assert_eq!(response[3..7], 230f32.to_be_bytes());
        assert_eq!(answer(&request(1, 4, 7, 2), 0.0).unwrap()[..3], [1, 0x84, 2]);
        assert_eq!(answer(&request(1, 3, 0, 2), 0.0).unwrap()[..3], [1, 0x83, 1]);
    }

    #[test]
    fn is_silent_for_other_units_and_damaged_requests() {
        assert_eq!(answer(&request(2, 4, 0, 2), 0.0), None);
        let mut damaged = request(1, 4, 0, 2);
        damaged[3] ^= 1;
        assert_eq!(answer(&damaged, 0.0), None);
    }
}
