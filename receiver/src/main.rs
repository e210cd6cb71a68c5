//! `rtlive-receiver`, the program.

use std::process::ExitCode;

use rtlive_receiver::cli::{Command, Stop, parse};
use rtlive_receiver::command::{self, Failure};

fn main() -> ExitCode {
    let cli = match parse(std::env::args_os().skip(1)) {
        Ok(cli) => cli,
        // Asked-for help goes to standard output and is no mistake.
        Err(Stop::Help(text)) => return command::end(command::print(text)),
        Err(Stop::Usage(text)) => return command::end(Err(Failure::Usage(text))),
    };
    command::end(match cli.command {
        Command::Version => command::version(),
        Command::Run => command::run::run(&cli.config),
        Command::Read { files } => command::run::read(&cli.config, files),
        Command::Compact { before } => command::compact::compact(&cli.config, before.as_deref()),
        Command::Completeness { agents, json } => command::completeness::completeness(&cli.config, &agents, json),
        Command::Check => command::check::check(&cli.config),
    })
}
