//! `rtlive`, the program.

use std::process::ExitCode;

use rtlive::cli::{Command, Stop, parse};
use rtlive::command::{self, Failure};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let cli = match parse(std::env::args_os().skip(1)) {
        Ok(cli) => cli,
        // Asked-for help goes to standard output and is no mistake.
        Err(Stop::Help(text)) => {
            return command::print(text).map_or_else(|failure| command::report(&failure), |()| ExitCode::SUCCESS);
        }
        Err(Stop::Usage(text)) => return command::report(&Failure::Usage(text)),
    };
    let what = cli.command;
    rtlive::log::start(match what {
        Command::Run => LevelFilter::INFO,
        // The demo shows by itself what happens.
        #[cfg(feature = "demo")]
        Command::Demo(_) => LevelFilter::OFF,
        _ => LevelFilter::WARN,
    });
    let result = match what {
        Command::Run => command::run::run(&cli.config),
        Command::Version => command::version::version(),
        Command::Check { json } => command::check::check(&cli.config, json),
        #[cfg(feature = "demo")]
        Command::Demo(demo) => command::demo::demo(&demo),
        Command::Try(options) => command::try_input::try_input(&cli.config, &options),
        Command::Tail { select } => command::tail::tail(&cli.config, &select),
        Command::Status { json } => command::status::status(&cli.config, json),
        Command::Reload => command::reload::reload(&cli.config),
        Command::Replay(options) => command::replay::replay(&cli.config, &options),
        Command::Decode { files } => command::decode::decode(&files),
        Command::Store(what) => command::store::store(&cli.config, &what),
        Command::Drivers { name, example } => command::drivers::drivers(name.as_deref(), example),
    };
    match result {
        Ok(code) => code,
        Err(failure) => command::report(&failure),
    }
}
