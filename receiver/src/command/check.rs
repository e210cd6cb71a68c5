//! `rtlive-receiver check`: all mistakes of a configuration, or what it means.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Failure, print};
use rtlive_config::quantity::write_span;

use crate::config::{self, Config, ParquetConfig, SourceConfig};

/// Checks a configuration.
///
/// # Errors
/// [`Failure::Mistakes`] with all of them.
pub fn check(paths: &[PathBuf]) -> Result<(), Failure> {
    let config = config::load(paths).map_err(Failure::Mistakes)?;
    print(meaning(&config))
}

fn meaning(config: &Config) -> String {
    let Config { id, state_dir, metrics, sources, outputs, warnings } = config;
    let mut text = format!("receiver {id}, state in {}\n", state_dir.display());
    if let Some(address) = metrics {
        // A string always has room.
        let _ = writeln!(text, "metrics at http://{address}/metrics");
    }
    for (name, source) in sources {
        let _ = match source {
            SourceConfig::Mqtt(mqtt) => {
                let (topics, client) = (mqtt.topics.join(", "), &mqtt.client_id);
                writeln!(text, "source {name}: {topics} of {} as {client}", mqtt.broker)
            }
            SourceConfig::Nats(nats) => {
                let topics: Vec<&str> = nats.filters.iter().map(|filter| &*filter.topics).collect();
                writeln!(text, "source {name}: {} of {} as {}", topics.join(", "), nats.server, nats.consumer)
            }
            SourceConfig::Directory { path, follow } => {
                let then = if *follow { ", and what comes" } else { "" };
                writeln!(text, "source {name}: the files of {}{then}", path.display())
            }
            SourceConfig::Stdin => writeln!(text, "source {name}: standard input"),
        };
    }
    if outputs.json {
        text.push_str("output: JSON lines on standard output\n");
    }
    if let Some(ParquetConfig { folder, every, rows_max }) = &outputs.parquet {
        let every = write_span(*every);
        let _ = writeln!(text, "output: Parquet files in {}, every {every} or {rows_max} rows", folder.display());
    }
    for warning in warnings {
        let _ = writeln!(text, "{warning}");
    }
    text
}
