//! The command line: what can be asked for. [`pages`] says how it is written and explained, [`parse()`] reads it.

mod pages;
mod parse;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rtlive_core::time::Timestamp;

pub use parse::{Stop, parse};

/// A command, and the configuration that it is for.
#[derive(Debug)]
pub struct Cli {
    /// A configuration file, or a folder of them; may be given several times. Without it: /etc/rtlive/rtlive.toml and conf.d.
    pub config: Vec<PathBuf>,

    /// What to do.
    pub command: Command,
}

/// The commands.
#[derive(Debug)]
pub enum Command {
    /// Run the agent in the foreground. SIGHUP reloads the configuration, SIGTERM drains and stops.
    Run,
    /// Print the version and the features of this build.
    Version,
    /// Check a configuration: all its mistakes, or its plan.
    Check {
        /// One JSON object instead of text.
        json: bool,
    },
    /// Everything on one machine, no hardware, no root: a simulated device, a broker, the agent, a subscriber.
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Run one input alone and print its readings as JSON lines.
    Try(Try),
    /// Readings, aggregates and alerts of the running agent, live.
    Tail {
        /// Only series that this filter selects, such as `boiler/#`.
        select: String,
    },
    /// How the running agent stands.
    Status {
        /// One JSON object instead of text.
        json: bool,
    },
    /// Reload the configuration of the running agent, and say whether it was taken.
    Reload,
    /// Run readings of a file through the engine, in event time, as fast as it goes.
    Replay(Replay),
    /// Decode messages from the broker to JSON lines.
    Decode {
        /// Files of messages; `-`, or none, is standard input.
        files: Vec<PathBuf>,
    },
    /// The buffer on disk: that of a running agent, a copy, the card of a dead device. Nothing is changed.
    Store(StoreCommand),
    /// The drivers; the options of one; an example of one.
    Drivers {
        /// The driver.
        name: Option<String>,
        /// An example to be redirected to /etc/rtlive/conf.d/.
        example: bool,
    },
}

/// `rtlive demo`.
#[cfg(feature = "demo")]
#[derive(Debug)]
pub struct Demo {
    /// End by itself after this long; without it, on `q` or Ctrl-C.
    pub span: Option<Duration>,
    /// Take the broker away for this long in the middle.
    pub outage: Option<Duration>,
}

/// `rtlive try`.
#[derive(Debug)]
pub struct Try {
    /// The input's name in the configuration.
    pub input: String,
    /// Decode the bytes of this file instead of opening the port.
    pub from: Option<PathBuf>,
    /// Stop after this many readings.
    pub count: Option<u64>,
    /// Stop after this long.
    pub span: Option<Duration>,
    /// Show the bytes in hex.
    pub trace: bool,
}

/// `rtlive replay`.
#[derive(Debug)]
pub struct Replay {
    /// Readings as JSON lines; `-`, or none, is standard input.
    pub readings: Option<PathBuf>,
    /// The same, by name.
    pub input: Option<PathBuf>,
    /// Where the records go; standard output without it.
    pub output: Option<PathBuf>,
    /// End with exit code 1 if a line is no reading. All others are read and computed all the same.
    pub strict: bool,
}

/// `rtlive store`. A store is a file, or the folder that it lies in; without it, that of the configuration.
#[derive(Debug)]
pub enum StoreCommand {
    /// Streams, epochs, numbers, times, sizes, gaps.
    Inspect {
        /// The store.
        store: Option<PathBuf>,
        /// One JSON object instead of text.
        json: bool,
    },
    /// Check every checksum, and whether the ledger closes. The exit code is 1 where something does not hold.
    Verify {
        /// The store.
        store: Option<PathBuf>,
    },
    /// Take what is whole from a damaged file to a new one, and tell what was saved and what is lost. A file that a running agent holds is refused.
    Repair {
        /// The damaged store.
        store: Option<PathBuf>,
        /// The new file; beside the damaged one, with `.repaired` behind its name, without it.
        output: Option<PathBuf>,
        /// One JSON object instead of text.
        json: bool,
    },
    /// Write the records that wait, by stream and time.
    Export(Export),
}

/// `rtlive store export`.
#[derive(Debug, Default)]
pub struct Export {
    /// The store.
    pub store: Option<PathBuf>,
    /// Only this stream; may be given several times.
    pub stream: Vec<String>,
    /// Only records that speak of this time or later (RFC 3339).
    pub from: Option<Timestamp>,
    /// Only records that speak of times before this (RFC 3339).
    pub to: Option<Timestamp>,
    /// JSON lines, or the messages that would carry the records, for `rtlive decode`.
    pub format: ExportFormat,
    /// Where the records go; standard output without it.
    pub output: Option<PathBuf>,
}

/// How `rtlive store export` writes.
#[derive(Clone, Copy, Debug, Default)]
pub enum ExportFormat {
    /// A line for each record.
    #[default]
    Json,
    /// Messages in a row. A frame that touches the times that were asked for goes whole.
    Frames,
}

impl FromStr for ExportFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "frames" => Ok(Self::Frames),
            _ => Err("expected json or frames"),
        }
    }
}
