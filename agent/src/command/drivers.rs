//! `rtlive drivers`: what this build can read.

use std::process::ExitCode;

use rtlive_config::reference::Reference;
use rtlive_drivers::registry::{self, DRIVERS};

use super::{Failure, print};

/// Lists the drivers, or prints the options or the example of one.
///
/// # Errors
/// [`Failure::Usage`] for a driver that this build does not have; [`Failure::Failed`] when it cannot be written.
pub fn drivers(name: Option<&str>, example: bool) -> Result<ExitCode, Failure> {
    let Some(name) = name else {
        let width = DRIVERS.iter().map(|driver| driver.name.len()).max().unwrap_or_default();
        for driver in DRIVERS {
            print(format_args!("{:width$}  {}\n", driver.name, driver.summary))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(driver) = registry::driver_named(name) else {
        let known: Vec<_> = DRIVERS.iter().map(|driver| driver.name).collect();
        return Err(Failure::Usage(format!("no driver is called {name:?}; expected one of {}", known.join(", "))));
    };
    if example {
        print(driver.example)?;
    } else {
        let options = (driver.options)();
        print(format_args!("{}: {}\n\n{}\n\n", driver.name, driver.summary, options.doc.trim()))?;
        print_options(&options, "")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each option: its key, what it takes and the default, and below it what it means; tables within are indented.
fn print_options(reference: &Reference, indent: &str) -> Result<(), Failure> {
    for key in &reference.keys {
        let default = match (&key.default, key.required) {
            (Some(default), _) => format!(", default {default}"),
            (None, true) => ", must be there".into(),
            (None, false) => String::new(),
        };
        print(format_args!("{indent}{} = {}{default}\n", key.name, key.expected))?;
        let words = key.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        print(format_args!("{indent}    {words}\n"))?;
        for (word, doc) in &key.choices {
            let words = doc.split_whitespace().collect::<Vec<_>>().join(" ");
            print(format_args!("{indent}    {word}: {words}\n"))?;
        }
        if let Some(table) = &key.table {
            print_options(table, &format!("{indent}    "))?;
        }
    }
    Ok(())
}
