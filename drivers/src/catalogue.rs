//! The drivers of this build, as the configuration sees them.

use rtlive_config::catalogue::Catalogue;
use rtlive_config::reference::Reference;
use rtlive_config::table::Table;

use crate::input::{CheckedInput, Input};
use crate::registry::{DRIVERS, driver_named};

/// The catalogue of [`DRIVERS`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Drivers;

/// Drivers whose source speaks for several devices or topics.
const MULTIPLEXING: [&str; 2] = ["modbus", "mqtt"];

impl Catalogue<Box<dyn Input>> for Drivers {
    fn names(&self) -> Vec<&'static str> {
        DRIVERS.iter().map(|driver| driver.name).collect()
    }

    fn summary(&self, driver: &str) -> Option<&'static str> {
        driver_named(driver).map(|driver| driver.summary)
    }

    fn reference(&self, driver: &str) -> Option<Reference> {
        driver_named(driver).map(|driver| (driver.options)())
    }

    fn multiplexes(&self, driver: &str) -> bool {
        MULTIPLEXING.contains(&driver)
    }

    fn check(&self, driver: &str, table: &Table<'_>) -> Option<CheckedInput> {
        driver_named(driver).and_then(|driver| (driver.check)(table))
    }
}
