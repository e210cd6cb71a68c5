//! The world of a run: time, chance, and everything that outlives the agent's process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use rtlive_core::time::Timestamp;
use rtlive_core::uplink::{Event as Heard, Loss, Refusal, Token, Verdict};

use crate::centre::Centre;
use crate::inputs::Source;
use crate::link::{Link, Weather};
use crate::plans::{self, INPUTS};
use crate::process::{Committed, Process};
use crate::random::Random;
use crate::reference::Reference;

/// 2026-01-01T00:00:00Z: when every run begins.
const START: i64 = 1_767_225_600_000_000_000;

pub(crate) const MS: i64 = 1_000_000;
pub(crate) const SECOND: i64 = 1_000 * MS;

/// How long a run may take to bring everything home once nothing fails any more: the longest backoffs, one after another.
const HOME_WITHIN: i64 = 1_800 * SECOND;

/// Why a step was not finished.
#[derive(Debug)]
pub(crate) enum End {
    /// The process died in the middle of it.
    Crash,
    /// Something is not as it must be.
    Broken(String),
}

impl From<String> for End {
    fn from(what: String) -> Self {
        Self::Broken(what)
    }
}

/// A step of the agent.
pub(crate) type Step<T = ()> = Result<T, End>;

/// What happens at an instant. Events of a process are void in the next one, those of a connection in the next one.
#[derive(Debug)]
pub(crate) enum Event {
    Source(usize),
    Weather,
    Crash,
    Reload,
    Start,
    /// The engine takes what waits, and commits when it is time.
    Turn(u64),
    /// The store makes the commit.
    StoreCommits(u64),
    /// The engine hears of it.
    EngineHears(u64),
    /// The store's thread looks for what waits.
    Look(u64),
    /// The sender wakes.
    Wake(u64),
    Opened {
        process: u64,
        succeeds: bool,
    },
    Arrives {
        connection: u64,
        process: u64,
        token: Token,
        payload: Vec<u8>,
    },
    Acknowledged {
        connection: Option<u64>,
        process: u64,
        token: Token,
        verdict: Verdict,
    },
}

/// The world of a run.
pub(crate) struct World {
    pub(crate) is_verbose: bool,
    pub(crate) random: Random,
    pub(crate) now: i64,
    queue: BTreeMap<(i64, u64), Event>,
    order: u64,
    pub(crate) folder: PathBuf,
    pub(crate) boot: u64,
    /// The boots in which something was committed.
    pub(crate) boots_committed: BTreeSet<u64>,
    /// The plan that is configured.
    pub(crate) configured: u64,
    pub(crate) process: Option<Process>,
    /// Counts processes.
    pub(crate) processes: u64,
    pub(crate) sources: Vec<Source>,
    pub(crate) reading_id: i64,
    pub(crate) link: Link,
    pub(crate) centre: Centre,
    pub(crate) reference: Reference,
    /// What the last commit left; what a restart must find.
    pub(crate) committed: Option<Committed>,
    /// Readings that no commit covered when the process died, of inputs that cannot be asked again.
    pub(crate) lost: Vec<(&'static str, Timestamp)>,
    pub(crate) crashes: u64,
    /// How many bytes of frames the store may keep, where it has to evict some.
    pub(crate) bytes_max: Option<u64>,
    /// Whether things go wrong.
    pub(crate) is_rough: bool,
    /// Whether the sources have said their last.
    pub(crate) has_said_last: bool,
    /// In how many of 10,000 places where it could the process dies.
    fragility: u64,
    /// All that was sent and when, as one number.
    pub(crate) digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64, folder: PathBuf, is_verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let link = Link::new(&mut random);
        let fragility = *random.pick(&[0, 2, 10, 50]);
        let configured = random.next() % plans::PLANS;
        let bytes_max = random.percent(20).then(|| random.between(1_000, 8_000).unsigned_abs());
        Self {
            is_verbose,
            random,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            folder,
            boot: 0,
            boots_committed: BTreeSet::new(),
            configured,
            process: None,
            processes: 0,
            sources: INPUTS.iter().map(|(name, ..)| Source::new(name)).collect(),
            reading_id: 0,
            link,
            centre: Centre::default(),
            reference: Reference::default(),
            committed: None,
            lost: Vec::new(),
            crashes: 0,
            bytes_max,
            is_rough: true,
            has_said_last: false,
            fragility,
            digest: seed,
        }
    }

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::from_nanos(START + self.now)
    }

    /// Tells what happens, where somebody looks.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_verbose {
            eprintln!("{:>9.3} s  {}", self.now as f64 / SECOND as f64, what());
        }
    }

    pub(crate) fn mix(&mut self, bytes: &[u8]) {
        for &byte in self.now.to_le_bytes().iter().chain(bytes) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn at(&mut self, at: i64, event: Event) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), event);
    }

    pub(crate) fn after(&mut self, ms: i64, event: Event) {
        self.at(self.now + ms * MS, event);
    }

    /// A place where the process may die.
    pub(crate) fn may_die(&mut self) -> Step {
        let dies = self.is_rough && self.random.next() % 10_000 < self.fragility;
        if dies { Err(End::Crash) } else { Ok(()) }
    }

    /// Runs until everything has come home, and says what is not as it must be.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let length = self.random.between(25, 50) * SECOND;
        self.at(0, Event::Start);
        for source in 0..self.sources.len() {
            let first = self.random.between(0, 2_000);
            self.after(first, Event::Source(source));
        }
        for (event, most) in [(Event::Weather, 15_000), (Event::Crash, 25_000), (Event::Reload, 30_000)] {
            let first = self.random.between(500, most);
            self.after(first, event);
        }
        while self.now < length {
            self.step()?;
        }
        self.calm_down();
        while self.unsettled().is_some() {
            if self.now > length + HOME_WITHIN {
                return Err(format!("not everything comes home: {:?}", self.unsettled()));
            }
            self.step()?;
        }
        crate::checks::check(self)
    }

    /// From here on nothing goes wrong, and the sources say their last.
    fn calm_down(&mut self) {
        self.tell(|| "from here on nothing goes wrong".to_owned());
        self.is_rough = false;
        self.link.mend();
        let kept: VecDeque<_> = std::mem::take(&mut self.queue).into_iter().collect();
        for ((at, _), event) in kept {
            if !matches!(event, Event::Source(_) | Event::Weather | Event::Crash | Event::Reload) {
                self.at(at, event);
            }
        }
        // The next connection takes messages of any length.
        if std::mem::take(&mut self.link.is_up) && self.hear(Heard::Disconnected(Loss::Broken)).is_err() {
            self.crash();
        }
        // A process that starts takes the last readings with its first commit behind it.
        self.after(5_000, Event::Source(usize::MAX));
    }

    /// Carries out the next event.
    fn step(&mut self) -> Result<(), String> {
        let Some(((at, _), event)) = self.queue.pop_first() else { return Err("nothing is left to happen".to_owned()) };
        self.now = at;
        let ended = match event {
            Event::Source(source) => {
                self.produce(source);
                Ok(())
            }
            Event::Weather => self.change_weather(),
            Event::Crash => {
                let next = self.random.between(2_000, 30_000);
                self.after(next, Event::Crash);
                match self.process {
                    Some(_) if self.random.percent(30) => self.stop(),
                    Some(_) => Err(End::Crash),
                    None => Ok(()),
                }
            }
            Event::Reload => {
                let next = self.random.between(5_000, 40_000);
                self.after(next, Event::Reload);
                self.reload()
            }
            Event::Start => self.start(),
            event => self.of_process(event),
        };
        match ended {
            Ok(()) => Ok(()),
            Err(End::Broken(what)) => Err(what),
            Err(End::Crash) => {
                self.crash();
                Ok(())
            }
        }
    }

    fn of_process(&mut self, event: Event) -> Step {
        let process = match &event {
            Event::Turn(process)
            | Event::StoreCommits(process)
            | Event::EngineHears(process)
            | Event::Look(process)
            | Event::Wake(process) => *process,
            Event::Opened { process, .. } | Event::Arrives { process, .. } | Event::Acknowledged { process, .. } => {
                *process
            }
            _ => return Ok(()),
        };
        let lives = self.process.is_some() && process == self.processes;
        match event {
            Event::Arrives { connection, token, payload, .. } => {
                return self.arrives(connection, process, token, &payload);
            }
            _ if !lives => {}
            Event::Turn(_) => return self.turn_comes(),
            Event::StoreCommits(_) => return self.store_commits(),
            Event::EngineHears(_) => return self.engine_hears(),
            Event::Look(_) => return self.look(),
            Event::Wake(_) => return self.wake_comes(),
            Event::Opened { succeeds, .. } => return self.opened(succeeds),
            Event::Acknowledged { connection, token, verdict, .. } => {
                let is_heard = connection.is_none_or(|it| self.link.is_up && self.link.connection == it);
                if is_heard && self.link.weather != Weather::Silent {
                    self.hear(Heard::Acknowledged { token, verdict })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn produce(&mut self, source: usize) {
        let wall = self.wall();
        if source == usize::MAX {
            // Far enough ahead that every window before now is over, near enough that nothing is quarantined.
            self.has_said_last = true;
            let ahead = wall.saturating_add(Duration::from_secs(60));
            for place in 0..self.sources.len() {
                let readings = self.sources[place].last(ahead, &mut self.reading_id, &mut self.random);
                self.hand_to_driver(place, readings, 0);
            }
            return;
        }
        let readings = self.sources[source].produce(wall, &mut self.reading_id, &mut self.random);
        let rejected = u64::from(self.random.percent(5));
        self.hand_to_driver(source, readings, rejected);
        let next = self.random.between(100, 1_500);
        self.after(next, Event::Source(source));
    }

    /// Drivers fetch what their sources keep.
    pub(crate) fn fetch_all(&mut self) {
        (0..self.sources.len()).for_each(|place| self.hand_to_driver(place, Vec::new(), 0));
    }

    fn hand_to_driver(&mut self, place: usize, readings: Vec<crate::reference::TakenReading>, rejected: u64) {
        let wall = self.wall();
        let Some(process) = self.process.as_mut().filter(|process| !process.drivers_ended) else { return };
        let (driver, source) = (&mut process.drivers[place], &mut self.sources[place]);
        if !readings.is_empty() {
            driver.hear(source, wall, readings, rejected);
        } else if source.has_more(driver) {
            driver.fetch(source, wall, &mut self.random);
        }
        self.turn_at(self.now);
    }

    fn change_weather(&mut self) -> Step {
        let next = self.random.between(500, 20_000);
        self.after(next, Event::Weather);
        let weather = *self.random.pick(&[Weather::Good, Weather::Good, Weather::Cut, Weather::Silent]);
        let before = std::mem::replace(&mut self.link.weather, weather);
        self.tell(|| format!("the link is {weather:?}"));
        // A silent link that is repaired has forgotten its connections.
        if self.link.is_up && (weather == Weather::Cut || before == Weather::Silent && weather == Weather::Good) {
            self.link.is_up = false;
            let loss = *self.random.pick(&[Loss::Broken, Loss::Broken, Loss::Busy]);
            return self.hear(Heard::Disconnected(loss));
        }
        Ok(())
    }

    /// A message comes to the broker: the centre has it, and the acknowledgement goes back.
    fn arrives(&mut self, connection: u64, process: u64, token: Token, payload: &[u8]) -> Step {
        let stands = self.link.is_up && self.link.connection == connection;
        // What was on its way when the connection broke may arrive or not; nobody acknowledges it.
        if self.link.weather == Weather::Silent || !stands && self.random.percent(50) {
            return Ok(());
        }
        if stands && self.is_rough && self.random.percent(3) {
            let refusal = *self.random.pick(&[Refusal::NobodySubscribed, Refusal::QuotaExceeded]);
            let verdict = Verdict::Refused(refusal);
            self.acknowledge_later(connection, process, token, verdict);
            return Ok(());
        }
        self.mix(payload);
        self.centre.take(payload)?;
        if stands {
            self.acknowledge_later(connection, process, token, Verdict::Taken);
        }
        Ok(())
    }

    fn acknowledge_later(&mut self, connection: u64, process: u64, token: Token, verdict: Verdict) {
        let at = self.now + self.link.latency();
        let event = |connection, verdict| Event::Acknowledged { connection, process, token, verdict };
        self.at(at, event(Some(connection), verdict.clone()));
        if self.is_rough && self.random.percent(5) {
            // Twice, and the second time perhaps long after the connection is gone.
            let late = self.random.between(0, 20_000) * MS;
            self.at(at + late, event(None, verdict));
        }
    }
}
