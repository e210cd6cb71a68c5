//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rtlive_config::quantity::Span;
use rtlive_core::time::Timestamp;

/// rtlive: the ingestion agent for embedded Linux gateways.
#[derive(Debug, Parser)]
#[command(name = "rtlive", disable_version_flag = true, arg_required_else_help = true)]
pub struct Cli {
    /// A configuration file, or a folder of them; may be given several times. Without it: /etc/rtlive/rtlive.toml and conf.d.
    #[arg(short = 'c', long = "config", global = true, value_name = "PATH")]
    pub config: Vec<PathBuf>,

    /// Print the version and the features of this build.
    #[arg(short = 'V', long)]
    pub version: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent in the foreground. SIGHUP reloads the configuration, SIGTERM drains and stops.
    Run,
    /// Check a configuration: all its mistakes, or its plan.
    Check {
        /// One JSON object instead of text.
        #[arg(long)]
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
        #[arg(default_value = "#")]
        select: String,
    },
    /// How the running agent stands.
    Status {
        /// One JSON object instead of text.
        #[arg(long)]
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
    #[command(subcommand)]
    Store(StoreCommand),
    /// The drivers; the options of one; an example of one.
    Drivers {
        /// The driver.
        name: Option<String>,
        /// An example to be redirected to /etc/rtlive/conf.d/.
        #[arg(long, requires = "name")]
        example: bool,
    },
}

/// `rtlive demo`.
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub struct Demo {
    /// End by itself after this long; without it, on `q` or Ctrl-C.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    pub span: Option<Duration>,
    /// Take the broker away for this long in the middle.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub outage: Option<Duration>,
}

/// `rtlive try`.
#[derive(Debug, Args)]
pub struct Try {
    /// The input's name in the configuration.
    pub input: String,
    /// Decode the bytes of this file instead of opening the port.
    #[arg(long, value_name = "CAPTURE")]
    pub from: Option<PathBuf>,
    /// Stop after this many readings.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop after this long.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    pub span: Option<Duration>,
    /// Show the bytes in hex.
    #[arg(long)]
    pub trace: bool,
}

/// `rtlive replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Readings as JSON lines; `-`, or none, is standard input.
    #[arg(value_name = "READINGS")]
    pub readings: Option<PathBuf>,
    /// The same, by name.
    #[arg(long, value_name = "FILE", conflicts_with = "readings")]
    pub input: Option<PathBuf>,
    /// Where the records go; standard output without it.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// End with exit code 1 if a line is no reading. All others are read and computed all the same.
    #[arg(long)]
    pub strict: bool,
}

/// `rtlive store`. A store is a file, or the folder that it lies in; without it, that of the configuration.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Streams, epochs, numbers, times, sizes, gaps.
    Inspect {
        /// The store.
        store: Option<PathBuf>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Check every checksum, and whether the ledger closes. The exit code is 1 where something does not hold.
    Verify {
        /// The store.
        store: Option<PathBuf>,
    },
    /// Write the records that wait, by stream and time.
    Export(Export),
}

/// `rtlive store export`.
#[derive(Debug, Default, Args)]
pub struct Export {
    /// The store.
    pub store: Option<PathBuf>,
    /// Only this stream; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub stream: Vec<String>,
    /// Only records that speak of this time or later (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// Only records that speak of times before this (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// JSON lines, or the messages that would carry the records, for `rtlive decode`.
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Where the records go; standard output without it.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How `rtlive store export` writes.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ExportFormat {
    /// A line for each record.
    #[default]
    Json,
    /// Messages in a row. A frame that touches the times that were asked for goes whole.
    Frames,
}

/// A span of time as it stands in the configuration: `20s`, `300ms`.
fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0).map_err(|error| error.to_string())
}
