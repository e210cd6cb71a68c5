//! The bus: who is asked when, and what is made of the answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rtlive_config::quantity::write_span;
use rtlive_core::sorted;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Framing;
use super::frame::{Fault, Request, exception_name};
use super::link::{Link, Outcome, Timing};
use super::plan::{Block, Device, Limits};
use super::register::Table;
use super::schedule::Schedule;
use crate::input::{Input, InputError, Running};
use crate::outlet::Session;
use crate::port::Port;

/// How long the wall clock may go unwatched: within this a clock that was set is noticed, at the price of few wake-ups.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Exceptions of a gateway that asked the device in vain (Modbus Application Protocol V1.1b3, section 7): nobody answered.
const GATEWAY_IN_VAIN: [u8; 2] = [10, 11];
/// Exceptions that a device may have for a part of what was asked: illegal data address, illegal data value.
const PARTLY: [u8; 2] = [2, 3];

/// An input, checked.
pub(super) struct Bus {
    pub(super) port: Port,
    pub(super) framing: Framing,
    pub(super) timing: Timing,
    pub(super) limits: Limits,
    pub(super) retries: u32,
    pub(super) set_aside_after: u32,
    pub(super) set_aside: Duration,
    pub(super) devices: Vec<Device>,
    /// What is known of the devices, kept while the port is away, so that polls missed then are counted.
    pub(super) memory: Mutex<Option<Memory>>,
}

/// What is known from one run of the driver to the next.
pub(super) struct Memory {
    schedule: Schedule,
    states: Vec<State>,
}

/// What is known of a device.
#[derive(Default)]
struct State {
    /// How many requests in a row it did not answer.
    timeouts: u32,
    /// Whether it ever answered.
    is_known: bool,
    /// Until when it is not asked.
    aside_until: Option<Instant>,
    /// The registers that must be read alone, because the device refused them together with others.
    alone: BTreeSet<usize>,
    /// What was said last about requests that fail, so that it is said once.
    troubles: BTreeMap<(Table, u16), String>,
}

impl Input for Bus {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(async move {
            let mut memory = self.remember(session);
            let mut stop = session.stop_signal();
            let ended = tokio::select! {
                biased;
                // An error means that the sender is gone, which is a stop as well.
                _ = stop.wait_for(|stop| *stop) => Ok(()),
                ended = self.serve(&mut memory, session) => ended,
            };
            *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
            ended
        })
    }
}

impl Bus {
    /// What is known from the last run, or the beginning.
    fn remember(&self, session: &Session) -> Memory {
        let kept = self.memory.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| {
            let polls = self.devices.iter().enumerate().flat_map(|(place, device)| {
                let intervals = sorted::set(device.registers.iter().map(|register| register.every));
                intervals.into_iter().map(move |every| (place, every))
            });
            Memory {
                schedule: Schedule::new(polls, session.now(), steady()),
                states: self.devices.iter().map(|_| State::default()).collect(),
            }
        })
    }

    /// Polls until the port fails or the engine is gone.
    async fn serve(&self, memory: &mut Memory, session: &mut Session) -> Result<(), InputError> {
        let mut link = Some(Link::open(&self.port, self.framing, self.timing).await?);
        session.health().state = "running";
        show_trouble(&memory.states, session);
        // What fell due while the port was away is not made up for.
        memory.schedule.look(session.now(), steady());
        let missed = memory.schedule.skip(session.now());
        if missed > 0 {
            session.count("polls_missed", missed);
        }
        loop {
            let Memory { schedule, states } = &mut *memory;
            let now = session.now();
            schedule.look(now, steady());
            let timeouts = |device: usize| states.get(device).map_or(0, |state| state.timeouts);
            let Some(place) = schedule.first(now, timeouts) else {
                let wait = schedule.next().map_or(LOOK_EVERY, |next| next.since(now));
                sleep(wait.min(LOOK_EVERY)).await;
                continue;
            };
            let due = schedule.take(place, now);
            if due.missed > 0 {
                session.count("polls_missed", due.missed);
            }
            let (Some(device), Some(state)) = (self.devices.get(place), states.get_mut(place)) else { continue };
            if state.aside_until.is_some_and(|until| until > Instant::now()) {
                session.count("polls_set_aside", u64::try_from(due.every.len()).unwrap_or(u64::MAX));
                continue;
            }
            state.aside_until = None;
            if self.poll(&mut link, device, &due.every, state, session).await?.is_break() {
                return Ok(());
            }
            show_trouble(states, session);
        }
    }

    /// Reads what is due of a device, and hands over each answer.
    async fn poll(
        &self,
        link: &mut Option<Link>,
        device: &Device,
        due: &[Duration],
        state: &mut State,
        session: &mut Session,
    ) -> Result<ControlFlow<()>, InputError> {
        let mut blocks: VecDeque<Block> = device.blocks(due, &state.alone, self.limits).into();
        while let Some(Block { request, members }) = blocks.pop_front() {
            let trouble = match self.ask(link, request, state, session).await? {
                Outcome::Data(data, arrival) => {
                    for register in members.iter().filter_map(|member| device.registers.get(*member)) {
                        let series = session.series(&register.series, register.unit.as_deref(), &device.name);
                        match register.value(request, &data) {
                            Ok(value) => session.read_on_arrival(series, arrival, value),
                            Err(reason) => session.reject(reason, 1),
                        }
                    }
                    if session.deliver(arrival, false).await.is_err() {
                        return Ok(ControlFlow::Break(()));
                    }
                    None
                }
                Outcome::Exception(code) if PARTLY.contains(&code) && members.len() > 1 => {
                    // One register may be refused, or one between them that nobody wants; each is asked for by itself from now on.
                    state.alone.extend(&members);
                    let apart = device.blocks(due, &state.alone, self.limits);
                    blocks.extend(apart.into_iter().filter(|block| block.members.iter().all(|m| members.contains(m))));
                    info!(
                        input = session.name(),
                        "{}: exception {code}, {}; these registers are read one by one now",
                        named(device, request),
                        exception_name(code)
                    );
                    continue;
                }
                Outcome::Exception(code) => Some(format!("exception {code}, {}", exception_name(code))),
                Outcome::Fault(fault) => Some(self.explain(fault, state.is_known)),
            };
            let trouble = trouble.map(|trouble| match state.aside_until {
                Some(_) => format!("{trouble}; it is set aside for {}", write_span(self.set_aside)),
                None => trouble,
            });
            state.note(device, request, trouble, session);
            if state.aside_until.is_some() {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Asks, again if need be, and keeps count.
    async fn ask(
        &self,
        link: &mut Option<Link>,
        request: Request,
        state: &mut State,
        session: &Session,
    ) -> Result<Outcome, InputError> {
        let is_tcp = matches!(self.port, Port::Tcp(_));
        let mut retries = 0;
        loop {
            let usable = link.take().filter(|link| !link.is_lost);
            let is_new = usable.is_none();
            let open = match usable {
                Some(open) => open,
                None => Link::open(&self.port, self.framing, self.timing).await?,
            };
            let open = link.insert(open);
            let outcome = match open.ask(request, session).await {
                Ok(outcome) => outcome,
                // Many gateways hang up when nothing was asked for a while.
                Err(_) if is_tcp && !is_new => {
                    *link = None;
                    session.count("reconnects", 1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let counter = match outcome {
                Outcome::Data(..) => {
                    state.answered();
                    return Ok(outcome);
                }
                Outcome::Exception(code) => {
                    match GATEWAY_IN_VAIN.contains(&code) {
                        true => state.timeouts += 1,
                        false => state.answered(),
                    }
                    "exceptions"
                }
                Outcome::Fault(Fault::Silent) => {
                    state.timeouts += 1;
                    "timeouts"
                }
                Outcome::Fault(Fault::Checksum) => {
                    state.timeouts = 0;
                    "crc_errors"
                }
                // It may be anybody's.
                Outcome::Fault(Fault::Garbage) => "garbage",
            };
            session.count(counter, 1);
            if state.timeouts >= self.set_aside_after {
                state.aside_until = Some(Instant::now() + self.set_aside);
                // A connection on which nobody answers any more may be dead: the next request opens another.
                if is_tcp && open.unanswered >= self.set_aside_after {
                    *link = None;
                }
                return Ok(outcome);
            }
            if retries == self.retries || matches!(outcome, Outcome::Exception(_)) {
                return Ok(outcome);
            }
            retries += 1;
            session.count("retries", 1);
        }
    }

    /// What is wrong, in words; with what to look at where a device never answered.
    fn explain(&self, fault: Fault, is_known: bool) -> String {
        let fault = match fault {
            Fault::Silent => format!("no answer within {} ms", self.timing.timeout.as_millis()),
            Fault::Checksum => "the checksum is wrong".into(),
            Fault::Garbage => "bytes came that are no answer".into(),
        };
        let look = match (is_known, &self.port) {
            (true, _) => "",
            (false, Port::Serial(_)) => {
                " (nor ever before: are unit_id, baud and parity those of the device, are A and B swapped?)"
            }
            (false, Port::Tcp(_)) => " (nor ever before: is unit_id that of the device?)",
        };
        fault + look
    }
}

impl State {
    /// The device is there.
    fn answered(&mut self) {
        self.timeouts = 0;
        self.is_known = true;
    }

    /// Says what changed with a request.
    fn note(&mut self, device: &Device, request: Request, trouble: Option<String>, session: &Session) {
        let key = (request.table, request.address);
        let trouble = trouble.map(|trouble| format!("{}: {trouble}", named(device, request)));
        let was = match &trouble {
            Some(trouble) => self.troubles.insert(key, trouble.clone()),
            None => self.troubles.remove(&key),
        };
        match trouble {
            Some(trouble) if was.as_ref() != Some(&trouble) => warn!(input = session.name(), "{trouble}"),
            None if was.is_some() => info!(input = session.name(), "{}: answers again", named(device, request)),
            _ => {}
        }
    }
}

/// What is asked of whom, for messages.
fn named(device: &Device, request: Request) -> String {
    let last = request.address.saturating_add(request.count.saturating_sub(1));
    format!("{} (unit {}), {} {} to {last}", device.name, device.unit, request.table.word(), request.address)
}

/// Shows the first trouble of a device in the status, while there is one.
fn show_trouble(states: &[State], session: &Session) {
    session.health().error = states.iter().find_map(|state| state.troubles.values().next().cloned());
}

/// A clock that nobody sets, from the first call on.
fn steady() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
