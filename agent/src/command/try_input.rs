//! `rtlive try`: one input alone.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::InputConfig;
use rtlive_core::event::Declared;
use rtlive_core::json::{self, Origin};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesInfo};
use rtlive_core::record::Record;
use rtlive_drivers::input::{Input, InputError};
use rtlive_drivers::outlet::{Clock, Delivery, Session, SessionParts, SharedHealth, TracedBytes};
use tokio::sync::{mpsc, watch};

use super::{Failure, load, tell};
use crate::cli::Try;
use crate::clock::SystemClock;
use crate::socket;

/// What stands in place of an epoch and a stream.
const EPOCH: &str = "try";
const STREAM: &str = "raw";

/// How many deliveries may wait to be printed.
const DELIVERIES_MAX: usize = 64;

/// How many traced pieces may wait to be printed; a port's pieces are small and few.
const TRACED_MAX: usize = 4096;

/// How many bytes of a capture are decoded at once.
const CAPTURE_CHUNK_BYTES: usize = 4096;

/// Runs the input until it ends, or the count or the time is reached. Nothing is stored, nothing is sent, and what an MQTT broker
/// delivers is not acknowledged. Exit 0 after at least one good reading.
///
/// # Errors
/// [`Failure::Usage`] for an input that is not configured; [`Failure::Failed`] when the source fails.
pub fn try_input(paths: &[PathBuf], options: &Try) -> Result<ExitCode, Failure> {
    let mut config = load(paths)?;
    let place = config.inputs.iter().position(|input| *input.name == *options.input);
    let Some(place) = place else {
        let names: Vec<_> = config.inputs.iter().map(|input| &*input.name).collect();
        let expected = if names.is_empty() {
            "and none is configured".into()
        } else {
            format!("expected one of {}", names.join(", "))
        };
        return Err(Failure::Usage(format!("no input is called {:?}; {expected}", options.input)));
    };
    let input = config.inputs.swap_remove(place);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::at("start the runtime"))?;
    let mut printer = Printer::new(config.plan.agent.clone(), options.count);
    let (session, channels) = session(&input, &config.plan.agent, options.trace);
    let result = match &options.from {
        Some(capture) => decode(&input, capture, session, channels, &mut printer, options.trace),
        None => runtime.block_on(run(&input, session, channels, &mut printer, options.span)),
    };
    match result {
        Ok(()) => {}
        Err(Failure::Failed { doing, source }) => {
            let socket = socket::path(&config.agent.state_dir);
            let is_running = socket::request(&socket, &socket::Request::Status).is_ok();
            let hint = if is_running {
                " (the agent runs on this configuration; `rtlive tail` shows what it reads)"
            } else {
                ""
            };
            return Err(Failure::Failed { doing: format!("{doing}{hint}"), source });
        }
        Err(failure) => return Err(failure),
    }
    printer.summary();
    Ok(if printer.good > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What comes out of a session.
struct Channels {
    deliveries: mpsc::Receiver<Delivery>,
    traced: mpsc::Receiver<TracedBytes>,
    /// Held, so that the driver does not think that the program stops.
    _committed: watch::Sender<u64>,
    _stop: watch::Sender<bool>,
}

fn session(input: &InputConfig<Box<dyn Input>>, agent: &Arc<str>, trace: bool) -> (Session, Channels) {
    let (sender, deliveries) = mpsc::channel(DELIVERIES_MAX);
    let (trace_sender, traced) = mpsc::channel(TRACED_MAX);
    let (committed_sender, committed) = watch::channel(0);
    let (stop_sender, stop) = watch::channel(false);
    let session = Session::new(SessionParts {
        input: InputId(0),
        name: input.name.clone(),
        agent: agent.clone(),
        prefix: input.prefix.clone(),
        round: input.round,
        clock: Arc::new(SystemClock),
        deliveries: sender,
        committed,
        stop,
        held: None,
        health: SharedHealth::default(),
        state: Default::default(),
        trace: trace.then_some(trace_sender),
    });
    (session, Channels { deliveries, traced, _committed: committed_sender, _stop: stop_sender })
}

async fn run(
    input: &InputConfig<Box<dyn Input>>,
    mut session: Session,
    mut channels: Channels,
    printer: &mut Printer,
    span: Option<Duration>,
) -> Result<(), Failure> {
    let mut running = Box::pin(async move {
        let result = input.input.run(&mut session).await;
        // The driver is at its end: what it still had to say is said.
        if let Some(delivery) = session.take(session.now(), false) {
            return (result, Some(delivery));
        }
        (result, None)
    });
    let deadline = async {
        match span {
            Some(span) => tokio::time::sleep(span).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            biased;
            Some(traced) = channels.traced.recv() => printer.trace(&traced)?,
            Some(delivery) = channels.deliveries.recv() => {
                printer.print(delivery)?;
                if printer.is_done() {
                    return Ok(());
                }
            }
            (result, rest) = &mut running => {
                while let Ok(delivery) = channels.deliveries.try_recv() {
                    printer.print(delivery)?;
                }
                rest.map_or(Ok(()), |delivery| printer.print(delivery))?;
                return result.map_err(|error: InputError| Failure::Failed { doing: format!("try {}", input.name), source: error.into() });
            }
            () = &mut deadline => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn decode(
    input: &InputConfig<Box<dyn Input>>,
    capture: &Path,
    mut session: Session,
    mut channels: Channels,
    printer: &mut Printer,
    trace: bool,
) -> Result<(), Failure> {
    let Some(mut decoder) = input.input.decoder() else {
        let text =
            format!("the driver of {} cannot decode a capture; expected an input of file, nmea or serial", input.name);
        return Err(Failure::Usage(text));
    };
    let bytes = fs::read(capture).map_err(Failure::at(format!("read {}", capture.display())))?;
    for chunk in bytes.chunks(CAPTURE_CHUNK_BYTES) {
        if trace {
            printer.trace(&TracedBytes { sent: false, bytes: chunk.to_vec() })?;
        }
        decoder.take(chunk, &mut session);
        if let Some(delivery) = session.take(SystemClock.now(), false) {
            printer.print(delivery)?;
        }
        if printer.is_done() {
            break;
        }
    }
    while channels.traced.try_recv().is_ok() {}
    Ok(())
}

/// Prints readings, and counts what was none.
struct Printer {
    agent: Arc<str>,
    count_max: Option<u64>,
    series: Vec<SeriesInfo>,
    good: u64,
    printed: u64,
    rejected: std::collections::BTreeMap<Arc<str>, u64>,
}

impl Printer {
    fn new(agent: Arc<str>, count_max: Option<u64>) -> Self {
        Self { agent, count_max, series: Vec::new(), good: 0, printed: 0, rejected: Default::default() }
    }

    fn is_done(&self) -> bool {
        self.count_max.is_some_and(|count| self.printed >= count)
    }

    fn print(&mut self, delivery: Delivery) -> Result<(), Failure> {
        self.series.extend(delivery.declared.into_iter().map(|Declared { info, .. }| info));
        for rejected in delivery.batch.rejected {
            *self.rejected.entry(rejected.reason).or_default() += rejected.count;
        }
        for reading in delivery.batch.readings {
            if self.is_done() {
                break;
            }
            self.line(reading).map_err(Failure::at("write to standard output"))?;
        }
        Ok(())
    }

    fn line(&mut self, mut reading: Reading) -> io::Result<()> {
        // Whether its time is right is another question than whether it can be read.
        reading.clock = ClockState::Synced;
        self.printed += 1;
        self.good += u64::from(reading.quality == Quality::Good);
        let origin = Origin { agent: &self.agent, epoch: EPOCH, stream: STREAM, class: "process", historical: false };
        let mut line = Vec::new();
        json::write_record(&mut line, &origin, self.printed, &Record::Reading(reading), &self.series, &[]);
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    }

    fn trace(&self, traced: &TracedBytes) -> Result<(), Failure> {
        let hex: Vec<String> = traced.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let arrow = if traced.sent { ">" } else { "<" };
        writeln!(io::stderr(), "{arrow} {}", hex.join(" ")).map_err(Failure::at("write to standard error"))
    }

    fn summary(&self) {
        for (reason, count) in &self.rejected {
            tell(format_args!("not taken: {count} × {reason}"));
        }
        if self.printed == 0 {
            tell("no reading came");
        }
    }
}
