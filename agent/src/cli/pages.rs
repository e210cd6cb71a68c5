//! The commands as they are written, what the help says of them, and what they ask for.

use std::fmt::{self, Display, Formatter};

#[cfg(feature = "demo")]
use super::Demo;
use super::parse::{Given, Stop};
use super::{Command, Export, Replay, StoreCommand, Try};

/// What the words after a command ask for.
type Build = fn(&Given) -> Result<Command, Stop>;

/// One command, or a command of a command.
pub(super) struct Page {
    /// Its name; for a command of a command, both.
    pub name: &'static str,
    about: &'static str,
    /// What follows without dashes, in order: how it is shown, and what it is.
    pub arguments: &'static [(&'static str, &'static str)],
    pub options: &'static [Flag],
    /// The commands of this command.
    pub under: &'static [Page],
    pub build: Build,
}

/// An option, with two dashes.
pub(super) struct Flag {
    pub name: &'static str,
    /// How its value is shown; none takes no value.
    pub value: Option<&'static str>,
    about: &'static str,
    pub repeats: bool,
}

const fn flag(name: &'static str, about: &'static str) -> Flag {
    Flag { name, value: None, about, repeats: false }
}

const fn valued(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, value: Some(value), about, repeats: false }
}

const fn page(name: &'static str, about: &'static str, build: Build) -> Page {
    Page { name, about, arguments: &[], options: &[], under: &[], build }
}

/// A command that is nothing without one of its commands.
fn incomplete(_: &Given) -> Result<Command, Stop> {
    Err(Stop::Usage("expected a command".into()))
}

const JSON: Flag = flag("json", "One JSON object instead of text");
const STORE: (&str, &str) =
    ("[STORE]", "A store, or the folder that it lies in; without it, that of the configuration");

/// The whole command line.
pub(super) const ROOT: Page = Page {
    under: &[
        page(
            "run",
            "Run the agent in the foreground. SIGHUP reloads the configuration, SIGTERM drains and stops",
            |_| Ok(Command::Run),
        ),
        Page {
            options: &[JSON],
            ..page("check", "Check a configuration: all its mistakes, or its plan", |given| {
                Ok(Command::Check { json: given.has("json") })
            })
        },
        #[cfg(feature = "demo")]
        Page {
            options: &[
                valued("for", "SPAN", "End by itself after this long; without it, on `q` or Ctrl-C"),
                valued("outage", "SPAN", "Take the broker away for this long in the middle"),
            ],
            ..page(
                "demo",
                "Everything on one machine, no hardware, no root: a simulated device, a broker, the agent, a subscriber",
                |given| Ok(Command::Demo(Demo { span: given.span("for")?, outage: given.span("outage")? })),
            )
        },
        Page {
            arguments: &[("<INPUT>", "The input's name in the configuration")],
            options: &[
                valued("from", "CAPTURE", "Decode the bytes of this file instead of opening the port"),
                valued("count", "N", "Stop after this many readings"),
                valued("for", "SPAN", "Stop after this long"),
                flag("trace", "Show the bytes in hex"),
            ],
            ..page("try", "Run one input alone and print its readings as JSON lines", |given| {
                let input = given.text(0)?.ok_or_else(|| Stop::Usage("expected the name of an input".into()))?;
                let (count, span) = (given.parsed("count")?, given.span("for")?);
                Ok(Command::Try(Try { input, from: given.path("from"), count, span, trace: given.has("trace") }))
            })
        },
        Page {
            arguments: &[("[SELECT]", "Only series that this filter selects, such as `boiler/#`")],
            ..page("tail", "Readings, aggregates and alerts of the running agent, live", |given| {
                Ok(Command::Tail { select: given.text(0)?.unwrap_or_else(|| "#".to_owned()) })
            })
        },
        Page {
            options: &[JSON],
            ..page("status", "How the running agent stands", |given| Ok(Command::Status { json: given.has("json") }))
        },
        page("reload", "Reload the configuration of the running agent, and say whether it was taken", |_| {
            Ok(Command::Reload)
        }),
        Page {
            arguments: &[("[READINGS]", "Readings as JSON lines; `-`, or none, is standard input")],
            options: &[
                valued("input", "FILE", "The same, by name"),
                valued("output", "FILE", "Where the records go; standard output without it"),
                flag("strict", "End with exit code 1 if a line is no reading. All others are computed all the same"),
            ],
            ..page("replay", "Run readings of a file through the engine, in event time, as fast as it goes", |given| {
                let (readings, input) = (given.first(), given.path("input"));
                if readings.is_some() && input.is_some() {
                    return Err(Stop::Usage("--input: expected either this or READINGS, found both".into()));
                }
                Ok(Command::Replay(Replay {
                    readings,
                    input,
                    output: given.path("output"),
                    strict: given.has("strict"),
                }))
            })
        },
        Page {
            arguments: &[("[FILES]...", "Files of messages; `-`, or none, is standard input")],
            ..page("decode", "Decode messages from the broker to JSON lines", |given| {
                Ok(Command::Decode { files: given.arguments.iter().map(Into::into).collect() })
            })
        },
        Page {
            under: &[
                Page {
                    arguments: &[STORE],
                    options: &[JSON],
                    ..page("store inspect", "Streams, epochs, numbers, times, sizes, gaps", |given| {
                        Ok(Command::Store(StoreCommand::Inspect { store: given.first(), json: given.has("json") }))
                    })
                },
                Page {
                    arguments: &[STORE],
                    ..page(
                        "store verify",
                        "Check every checksum, and whether the ledger closes. The exit code is 1 where something does not hold",
                        |given| Ok(Command::Store(StoreCommand::Verify { store: given.first() })),
                    )
                },
                Page {
                    arguments: &[STORE],
                    options: &[
                        JSON,
                        valued(
                            "output",
                            "FILE",
                            "The new file; without it, beside the damaged one with `.repaired` behind its name",
                        ),
                    ],
                    ..page(
                        "store repair",
                        "Take what is whole from a damaged file to a new one, and tell what was saved and what is lost. Refused while an agent holds it",
                        |given| {
                            let (store, output) = (given.first(), given.path("output"));
                            Ok(Command::Store(StoreCommand::Repair { store, output, json: given.has("json") }))
                        },
                    )
                },
                Page {
                    arguments: &[STORE],
                    options: &[
                        Flag {
                            repeats: true,
                            ..valued("stream", "NAME", "Only this stream; may be given several times")
                        },
                        valued("from", "TIME", "Only records that speak of this time or later (RFC 3339)"),
                        valued("to", "TIME", "Only records that speak of times before this (RFC 3339)"),
                        valued(
                            "format",
                            "json|frames",
                            "JSON lines (the default), or the messages that would carry the records, for `rtlive decode`. \
                             A frame that touches the times that were asked for goes whole",
                        ),
                        valued("output", "FILE", "Where the records go; standard output without it"),
                    ],
                    ..page("store export", "Write the records that wait, by stream and time", |given| {
                        Ok(Command::Store(StoreCommand::Export(Export {
                            store: given.first(),
                            stream: given.all("stream"),
                            from: given.parsed("from")?,
                            to: given.parsed("to")?,
                            format: given.parsed("format")?.unwrap_or_default(),
                            output: given.path("output"),
                        })))
                    })
                },
            ],
            ..page(
                "store",
                "The buffer on disk: that of a running agent, a copy, the card of a dead device. Nothing is changed",
                incomplete,
            )
        },
        Page {
            arguments: &[("[NAME]", "The driver")],
            options: &[flag("example", "An example to be redirected to /etc/rtlive/conf.d/")],
            ..page("drivers", "The drivers; the options of one; an example of one", |given| {
                let (name, example) = (given.text(0)?, given.has("example"));
                if example && name.is_none() {
                    return Err(Stop::Usage("--example: expected the name of a driver, too".into()));
                }
                Ok(Command::Drivers { name, example })
            })
        },
    ],
    ..page("", "rtlive: the ingestion agent for embedded Linux gateways", incomplete)
};

impl Page {
    /// The last word of its name.
    pub(super) fn word(&self) -> &'static str {
        self.name.rsplit(' ').next().unwrap_or_default()
    }

    /// How it is written.
    pub(super) fn usage(&self) -> String {
        let mut usage = String::from("Usage: rtlive");
        let mut add = |word: &str| {
            usage.push(' ');
            usage.push_str(word);
        };
        if !self.name.is_empty() {
            add(self.name);
        }
        add("[OPTIONS]");
        if !self.under.is_empty() {
            add("<COMMAND>");
        }
        self.arguments.iter().for_each(|(name, _)| add(name));
        usage
    }
}

/// The help.
impl Display for Page {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.about, self.usage())?;
        let mut list = |title: &str, lines: &[(String, &str)]| {
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            if !lines.is_empty() {
                writeln!(f, "\n{title}:")?;
            }
            lines.iter().try_for_each(|(name, about)| writeln!(f, "  {name:width$}  {about}"))
        };
        let commands: Vec<_> = self.under.iter().map(|page| (page.word().to_owned(), page.about)).collect();
        list("Commands", &commands)?;
        let arguments: Vec<_> = self.arguments.iter().map(|&(name, about)| (name.to_owned(), about)).collect();
        list("Arguments", &arguments)?;
        let mut options = vec![(
            "-c, --config <PATH>".to_owned(),
            "A configuration file, or a folder of them; may be given several times. Without it: /etc/rtlive/rtlive.toml and conf.d",
        )];
        for flag in self.options {
            let value = flag.value.map(|value| format!(" <{value}>")).unwrap_or_default();
            options.push((format!("    --{}{value}", flag.name), flag.about));
        }
        if self.name.is_empty() {
            options.push(("-V, --version".to_owned(), "Print the version and the features of this build"));
        }
        options.push(("-h, --help".to_owned(), "Print help; `rtlive COMMAND --help` is that of a command"));
        list("Options", &options)
    }
}
