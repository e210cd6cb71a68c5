//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser};
use rtlive_config::mistake::nearest;

/// What the help says.
const HELP: &str = "\
The other end of rtlive: takes the frames of agents, verifies them, and hands every record on once.

Usage: rtlive-receiver [-c FILE]... COMMAND

Commands:
  run                   Receive from the configured sources in the foreground. SIGTERM hands on what is here, and stops
  read [FILES]...       Receive files of messages in a row instead of the configured sources, to their ends; `-`, or none, is
                        standard input
  completeness [AGENT]...
                        For each stream of all agents, or of these: up to when it is complete, and what is not here and why;
                        also while a receiver runs
  compact               Make one of the Parquet files of each day and stream; also while receivers run
  check                 Check the configuration: all its mistakes, or what it means

Options:
  -c, --config FILE     A configuration file, or a folder of them; may be given several times. Without it:
                        /etc/rtlive-receiver/receiver.toml and conf.d
      --before DATE     Of `compact`: only days before this one, such as 2026-01-31
      --json            Of `completeness`: a JSON object a line
  -h, --help            This text
  -V, --version         The version
";

const COMMANDS: [&str; 5] = ["run", "read", "completeness", "compact", "check"];
const OPTIONS: [&str; 5] = ["before", "config", "help", "json", "version"];

/// A command, and the configuration that it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Cli {
    /// Configuration files and folders; without any, that of the system.
    pub config: Vec<PathBuf>,
    /// What to do.
    pub command: Command,
}

/// The commands.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the version.
    Version,
    /// Receive from the configured sources.
    Run,
    /// Receive files, or standard input, to their ends.
    Read {
        /// The files; `-`, or none, is standard input.
        files: Vec<PathBuf>,
    },
    /// Say what is here, and what is not.
    Completeness {
        /// Of which agents; none is all of them.
        agents: Vec<String>,
        /// Whether a program reads it.
        json: bool,
    },
    /// Merge Parquet files.
    Compact {
        /// Only of the days before this one.
        before: Option<String>,
    },
    /// Check the configuration.
    Check,
}

/// Why there is nothing to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help was asked for: this text.
    Help(&'static str),
    /// The command line is wrong: what, and what was expected.
    Usage(String),
}

/// Reads the words that follow the program's name.
///
/// # Errors
/// [`Stop`]: help, or a mistake.
pub fn parse<T: Into<OsString>>(words: impl IntoIterator<Item = T>) -> Result<Cli, Stop> {
    read(words.into_iter().map(Into::into).collect()).map_err(|stop| match stop {
        Stop::Usage(text) => Stop::Usage(format!("{text}\n`rtlive-receiver --help` says more")),
        help @ Stop::Help(_) => help,
    })
}

fn read(words: Vec<OsString>) -> Result<Cli, Stop> {
    let mut parser = Parser::from_args(words);
    let (mut config, mut command, mut arguments, mut json, mut before) = (Vec::new(), None, Vec::new(), false, None);
    while let Some(arg) = parser.next().map_err(|error| Stop::Usage(error.to_string()))? {
        match arg {
            Arg::Short('c') | Arg::Long("config") => {
                config.push(PathBuf::from(parser.value().map_err(|error| Stop::Usage(error.to_string()))?));
            }
            Arg::Long("json") => json = true,
            Arg::Long("before") => {
                let date = parser.value().map_err(|error| Stop::Usage(error.to_string()))?;
                before = Some(date_of(&date.to_string_lossy())?);
            }
            Arg::Short('h') | Arg::Long("help") => return Err(Stop::Help(HELP)),
            Arg::Short('V') | Arg::Long("version") => return Ok(Cli { config, command: Command::Version }),
            Arg::Value(word) if command.is_none() => {
                let name = word.to_string_lossy();
                if name == "help" {
                    return Err(Stop::Help(HELP));
                }
                let known = COMMANDS.into_iter().find(|known| *known == name);
                command = Some(known.ok_or_else(|| unknown("command", &name, &COMMANDS))?);
            }
            Arg::Value(word) if matches!(command, Some("read" | "completeness")) => arguments.push(word),
            Arg::Value(word) => return Err(Stop::Usage(format!("{word:?}: expected nothing more"))),
            Arg::Long(name) => return Err(unknown("option", &format!("--{name}"), &OPTIONS)),
            Arg::Short(letter) => return Err(Stop::Usage(format!("-{letter}: there is no such option"))),
        }
    }
    if json && command != Some("completeness") {
        return Err(Stop::Usage("--json: expected the command completeness beside it".into()));
    }
    if before.is_some() && command != Some("compact") {
        return Err(Stop::Usage("--before: expected the command compact beside it".into()));
    }
    let command = match command {
        Some("run") => Command::Run,
        Some("read") => Command::Read { files: arguments.into_iter().map(PathBuf::from).collect() },
        Some("completeness") => {
            let agents = arguments.iter().map(|agent| agent.to_string_lossy().into_owned()).collect();
            Command::Completeness { agents, json }
        }
        Some("compact") => Command::Compact { before },
        Some("check") => Command::Check,
        _ => return Err(Stop::Usage(format!("expected a command: {}", COMMANDS.join(", ")))),
    };
    Ok(Cli { config, command })
}

/// A date, as folders are named by it.
fn date_of(word: &str) -> Result<String, Stop> {
    let is_date = word.len() == 10
        && word
            .bytes()
            .enumerate()
            .all(|(place, byte)| if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() });
    if is_date {
        return Ok(word.to_owned());
    }
    Err(Stop::Usage(format!("--before: expected a date such as 2026-01-31, found {word:?}")))
}

/// What was not found, and the nearest of what there is.
fn unknown(what: &str, word: &str, known: &[&'static str]) -> Stop {
    let nearest = nearest(word.trim_start_matches('-'), known.iter().copied());
    let tip = nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default();
    Stop::Usage(format!("{word}: there is no such {what}{tip}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Cli, String> {
        parse(words.split_whitespace()).map_err(|stop| match stop {
            Stop::Help(_) => "help".to_owned(),
            Stop::Usage(text) => text.lines().next().unwrap_or_default().to_owned(),
        })
    }

    #[test]
    fn commands_and_their_words() {
        let cli = |config: &[&str], command| Cli { config: config.iter().map(Into::into).collect(), command };
        assert_eq!(parsed("-c a run --config=b"), Ok(cli(&["a", "b"], Command::Run)));
        let files = vec!["x".into(), "-".into()];
        assert_eq!(parsed("read x -"), Ok(cli(&[], Command::Read { files })));
        let before = Some("2026-02-01".into());
        assert_eq!(parsed("compact --before 2026-02-01"), Ok(cli(&[], Command::Compact { before })));
        let agents = vec!["gw-1".into()];
        assert_eq!(parsed("completeness gw-1 --json"), Ok(cli(&[], Command::Completeness { agents, json: true })));
        assert_eq!(parsed("-V"), Ok(cli(&[], Command::Version)));
        assert_eq!(parsed("read --help"), Err("help".into()));
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        let cases = [
            ("", "expected a command: run, read, completeness, compact, check"),
            ("chek", "chek: there is no such command; did you mean \"check\"?"),
            ("run --confg x", "--confg: there is no such option; did you mean \"config\"?"),
            ("run -x", "-x: there is no such option"),
            ("run --json", "--json: expected the command completeness beside it"),
            ("compact --before 1.2.2026", "--before: expected a date such as 2026-01-31, found \"1.2.2026\""),
            ("check now", "\"now\": expected nothing more"),
            ("run -c", "missing argument for option '-c'"),
        ];
        for (words, expected) in cases {
            assert_eq!(parsed(words), Err(expected.into()), "{words}");
        }
    }
}
