//! The registry: every driver, by name.

use crate::input::Driver;

/// Every driver of this build, by name.
pub const DRIVERS: &[&Driver] = &[
    &crate::file::DRIVER,
    &crate::gpio::DRIVER,
    &crate::modbus::DRIVER,
    &crate::mqtt::DRIVER,
    &crate::nmea::DRIVER,
    &crate::serial::DRIVER,
    &crate::simulated::DRIVER,
];

/// The driver with this name.
pub fn driver_named(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}
