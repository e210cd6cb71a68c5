//! Reads the command line.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser};
use rtlive_config::mistake::nearest;
use rtlive_config::quantity::Span;

use super::pages::{Flag, Page, ROOT};
use super::{Cli, Command};

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Stop {
    /// Help was asked for: this text.
    Help(String),
    /// The command line is wrong: what, and what was expected.
    Usage(String),
}

/// What was given for one command.
#[derive(Default)]
pub(super) struct Given {
    pub(super) arguments: Vec<OsString>,
    options: Vec<(&'static str, OsString)>,
}

/// Reads the words that follow the program's name.
///
/// # Errors
/// [`Stop`]: help, or a mistake.
pub fn parse<T: Into<OsString>>(words: impl IntoIterator<Item = T>) -> Result<Cli, Stop> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let mut page = &ROOT;
    let read = read(&mut page, words);
    read.map_err(|stop| match stop {
        Stop::Usage(text) => {
            Stop::Usage(format!("{text}\n{}\n`rtlive --help` and `rtlive COMMAND --help` say more", page.usage()))
        }
        help @ Stop::Help(_) => help,
    })
}

/// Reads; `page` is that of the command as far as it was read.
fn read(page: &mut &'static Page, words: Vec<OsString>) -> Result<Cli, Stop> {
    let mut parser = Parser::from_args(words);
    let mut config = Vec::new();
    let mut given = Given::default();
    let mut helps = false;
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Short('c') | Arg::Long("config") => config.push(PathBuf::from(parser.value().map_err(wrong)?)),
            Arg::Short('h') | Arg::Long("help") => helps = true,
            Arg::Short('V') | Arg::Long("version") if page.name.is_empty() => {
                return Ok(Cli { config, command: Command::Version });
            }
            Arg::Value(word) if page.name.is_empty() && word == "help" => helps = true,
            Arg::Value(word) if !page.under.is_empty() => *page = find(page, &word)?,
            Arg::Value(word) => {
                let many = page.arguments.last().is_some_and(|(name, _)| name.ends_with("..."));
                if given.arguments.len() >= page.arguments.len() && !many {
                    return Err(Stop::Usage(format!("{word:?}: expected nothing more")));
                }
                given.arguments.push(word);
            }
            Arg::Long(name) => {
                let flag = option(page, name)?;
                if !flag.repeats && given.has(flag.name) {
                    return Err(Stop::Usage(format!("--{name}: expected once, found twice")));
                }
                let value = if flag.value.is_some() { parser.value().map_err(wrong)? } else { OsString::new() };
                given.options.push((flag.name, value));
            }
            Arg::Short(letter) => return Err(Stop::Usage(format!("-{letter}: there is no such option"))),
        }
    }
    if helps {
        return Err(Stop::Help(page.to_string()));
    }
    if !page.under.is_empty() {
        let known: Vec<_> = page.under.iter().map(Page::word).collect();
        return Err(Stop::Usage(format!("expected a command: {}", known.join(", "))));
    }
    Ok(Cli { config, command: (page.build)(&given)? })
}

/// What the reader of single words says.
fn wrong(error: lexopt::Error) -> Stop {
    Stop::Usage(error.to_string())
}

/// What was not found, and the nearest of what there is.
fn unknown(what: &str, word: &str, known: impl Iterator<Item = &'static str>) -> Stop {
    let nearest = nearest(word.trim_start_matches('-'), known);
    let tip = nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default();
    Stop::Usage(format!("{word}: there is no such {what}{tip}"))
}

fn find(page: &'static Page, word: &OsStr) -> Result<&'static Page, Stop> {
    let known = || page.under.iter().map(Page::word);
    let found = page.under.iter().find(|page| word == page.word());
    found.ok_or_else(|| unknown("command", &word.to_string_lossy(), known()))
}

fn option(page: &'static Page, name: &str) -> Result<&'static Flag, Stop> {
    let known = || page.options.iter().map(|flag| flag.name).chain(["config", "help"]);
    let found = page.options.iter().find(|flag| flag.name == name);
    found.ok_or_else(|| unknown("option", &format!("--{name}"), known()))
}

impl Given {
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| *option == name)
    }

    fn value(&self, name: &str) -> Option<&OsString> {
        self.options.iter().find(|(option, _)| *option == name).map(|(_, value)| value)
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Stop> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.to_string_lossy();
        text.parse().map(Some).map_err(|error| Stop::Usage(format!("--{name} {text}: {error}")))
    }

    pub(super) fn span(&self, name: &str) -> Result<Option<Duration>, Stop> {
        Ok(self.parsed::<Span>(name)?.map(|span| span.0))
    }

    /// The first argument, as a path.
    pub(super) fn first(&self) -> Option<PathBuf> {
        self.arguments.first().map(PathBuf::from)
    }

    /// An argument that has to be text.
    pub(super) fn text(&self, place: usize) -> Result<Option<String>, Stop> {
        let Some(word) = self.arguments.get(place) else { return Ok(None) };
        let text = word.to_str().ok_or_else(|| Stop::Usage(format!("{word:?}: expected UTF-8")))?;
        Ok(Some(text.to_owned()))
    }

    /// All values of an option that may be repeated.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let values = self.options.iter().filter(|(option, _)| *option == name);
        values.map(|(_, value)| value.to_string_lossy().into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> String {
        match parse(words.split_whitespace()) {
            Ok(cli) => format!("{:?} {:?}", cli.config, cli.command),
            Err(Stop::Help(text)) => text,
            Err(Stop::Usage(text)) => text.lines().next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn options_stand_before_and_after_what_they_belong_to() {
        assert_eq!(parsed("-c a check --config=b --json"), r#"["a", "b"] Check { json: true }"#);
        assert_eq!(parsed("store -cx inspect d --json"), r#"["x"] Store(Inspect { store: Some("d"), json: true })"#);
        assert_eq!(parsed("decode a - b"), r#"[] Decode { files: ["a", "-", "b"] }"#);
        assert_eq!(parsed("tail -- -x"), r#"[] Tail { select: "-x" }"#);
        assert_eq!(
            parsed("try door --for 90s --count=3"),
            r#"[] Try(Try { input: "door", from: None, count: Some(3), span: Some(90s), trace: false })"#
        );
        assert_eq!(parsed("-V"), "[] Version");
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        let cases = [
            ("", "expected a command: "),
            ("stats", "stats: there is no such command; did you mean \"status\"?"),
            ("store", "expected a command: inspect, verify, repair, export"),
            ("status --jsn", "--jsn: there is no such option; did you mean \"json\"?"),
            ("status -x", "-x: there is no such option"),
            ("status --json=1", "unexpected argument for option '--json': \"1\""),
            ("status now", "\"now\": expected nothing more"),
            ("try", "expected the name of an input"),
            ("try door --count x", "--count x: invalid digit found in string"),
            ("try door --for 5", "--for 5: "),
            ("try door --for", "missing argument for option '--for'"),
            ("try door --trace --trace", "--trace: expected once, found twice"),
            ("replay a --input b", "--input: expected either this or READINGS, found both"),
            ("drivers --example", "--example: expected the name of a driver, too"),
            ("store export --format xml", "--format xml: expected json or frames"),
            ("store export --from noon", "--from noon: "),
        ];
        for (words, expected) in cases {
            let found = parsed(words);
            assert!(found.starts_with(expected), "{words}: {found}");
        }
    }

    #[test]
    fn every_command_has_a_help() {
        for page in ROOT.under.iter().chain(ROOT.under.iter().flat_map(|page| page.under)) {
            assert!(parsed(&format!("{} --help", page.name)).contains(&page.usage()), "{}", page.name);
            assert!(parsed(&format!("help {}", page.name)).contains(&page.usage()), "{}", page.name);
        }
        assert!(parsed("--help").contains("  status "));
    }
}
