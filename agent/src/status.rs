//! How the running agent stands: what `rtlive status` shows.

mod text;

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rtlive_config::Flash;
use rtlive_core::engine::{ClockView, Engine, InputAccount, InputTime, Ledger, RaisedAlert, WindowAccount};
use rtlive_core::journal::StreamKey;
use rtlive_core::reading::{Check, SeriesId};
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::InputHealth;
use serde::{Deserialize, Serialize};

use crate::message::{StoreStatus, StreamAccount, Wear};
use crate::rates::Rates;
use crate::uplink::UplinkHealth;

/// How many pairs of series and check the status shows: those with the most objections. More would hide them.
const QUALITY_LINES_MAX: usize = 20;

/// How long the agent runs before a day is estimated from what it wrote: a start writes more.
const WEAR_AFTER: Duration = Duration::from_secs(60);

/// What the engine task tells.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// The accounts of inputs and windows.
    pub ledger: Ledger,
    /// Where the inputs are in time, in the order of the plan.
    pub times: Vec<InputTime>,
    /// The alerts that are raised now.
    pub alerts: Vec<RaisedAlert>,
    /// How much the inputs take a second, in the order of the plan.
    pub per_s: Vec<Option<f64>>,
    /// How many windows are open.
    pub windows_open: usize,
    /// How many series are known.
    pub series: usize,
    /// How the clock stands, and why.
    pub clock: (ClockView, &'static str),
    /// How often quality checks objected.
    pub quality: QualityStatus,
}

impl EngineStatus {
    /// Looks at an engine; `clock` says why the clock is trusted or is not.
    pub fn of(engine: &Engine, rates: &Rates, clock: &'static str) -> Self {
        Self {
            clock: (engine.clock(), clock),
            per_s: rates.per_second(Instant::now(), engine.ledger()),
            ledger: engine.ledger().clone(),
            times: engine.input_times(),
            alerts: engine.alerts_raised(),
            windows_open: engine.windows_open(),
            series: engine.series().len(),
            quality: QualityStatus::of(engine),
        }
    }
}

/// The status, as `rtlive status --json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The agent's id.
    pub agent: String,
    /// The program's version.
    pub version: String,
    /// Since when it runs, RFC 3339.
    pub since: String,
    /// When this was asked, RFC 3339.
    pub time: String,
    /// How well the time is known.
    pub clock: ClockLine,
    /// The inputs, in the order of their names.
    pub inputs: Vec<InputStatus>,
    /// The window streams.
    pub windows: Vec<WindowStatus>,
    /// How many windows are open.
    pub windows_open: usize,
    /// How many series are known.
    pub series: usize,
    /// The alerts that are raised now, as `rule` or `rule instance`.
    pub alerts: Vec<String>,
    /// Every stream that has records.
    pub streams: Vec<StreamStatus>,
    /// The store.
    pub store: StoreLine,
    /// The link; `null` without `[uplink]`.
    pub uplink: Option<UplinkHealth>,
    /// How often quality checks objected to readings.
    pub quality: QualityStatus,
    /// Whether everything that was taken is accounted for.
    pub ledger: LedgerLine,
}

/// The clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClockLine {
    /// Whether readings without a time of their own go their way; `false` while they wait.
    pub trusted: bool,
    /// Since when that is so, RFC 3339.
    pub since: Option<String>,
    /// Why.
    pub source: String,
    /// How many readings wait.
    pub provisional: u64,
}

/// How often quality checks objected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QualityStatus {
    /// By check, over all series.
    pub checks: BTreeMap<String, u64>,
    /// The series to which checks objected most.
    pub series: Vec<ObjectionStatus>,
    /// How many more pairs of series and check are counted.
    pub more: usize,
}

/// How often a check objected to readings of a series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ObjectionStatus {
    /// The series.
    pub series: String,
    /// The check.
    pub check: String,
    /// How often.
    pub count: u64,
}

/// An input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputStatus {
    /// Its name.
    pub name: String,
    /// `starting`, `running`, `waiting`, `stopped`.
    pub state: String,
    /// The last error.
    pub error: Option<String>,
    /// How often its driver was started again.
    pub restarts: u64,
    /// What is counted and is no reading: `timeouts`, `polls_missed`.
    pub counters: BTreeMap<String, u64>,
    /// The newest event time, RFC 3339.
    pub newest: Option<String>,
    /// The event time up to which it is believed complete, RFC 3339.
    pub watermark: Option<String>,
    /// How far the newest event time is behind now, in seconds.
    pub lag_s: Option<f64>,
    /// Everything that it took.
    pub taken: u64,
    /// How much it took a second in the last ten; `null` just after the start.
    pub per_s: Option<f64>,
    /// Readings that went on.
    pub accepted: u64,
    /// What went no further, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Accepted, but bad.
    pub bad: u64,
    /// Accepted, but too far ahead of their arrival.
    pub quarantined: u64,
    /// Accepted, but too late for a window.
    pub late: u64,
    /// Accepted, but at a time that nobody will know: in the stream `unsynced`.
    pub unsynced: u64,
    /// What waits for the clock, and is not accepted yet.
    pub provisional: u64,
}

/// A window stream: `selected = open + finished + late`, counted by (reading, window).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowStatus {
    /// Its name.
    pub name: String,
    /// Readings that it selects.
    pub selected: u64,
    /// In open windows.
    pub open: u64,
    /// In windows whose end the watermark has passed.
    pub finished: u64,
    /// Too late.
    pub late: u64,
    /// How many windows were ended early because too many were open.
    pub crowded: u64,
    /// How many sessions were cut because they were longer than `longest`.
    pub cut: u64,
}

/// A stream: `numbered = acknowledged + stored + in_gaps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// The class of these records.
    pub class: String,
    /// Records that were given a number.
    pub numbered: u64,
    /// Records that arrived.
    pub acknowledged: u64,
    /// Records that wait.
    pub stored: u64,
    /// Records that a gap speaks of.
    pub in_gaps: u64,
    /// The bytes that wait.
    pub stored_bytes: u64,
    /// How long the oldest that waits has waited, in seconds.
    pub lag_s: Option<f64>,
    /// When it was committed, RFC 3339.
    #[serde(default)]
    pub oldest: Option<String>,
    /// How long the link would take for `stored_bytes`, in seconds, if it had nothing else to send; `null` without an estimate of the link.
    #[serde(default)]
    pub drain_s: Option<f64>,
    /// Readings that the stream selects and that told nothing new; `null` for a stream that leaves nothing out.
    pub suppressed: Option<u64>,
}

/// The store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreLine {
    /// The current epoch, 16 hexadecimal digits.
    pub epoch: Option<String>,
    /// The size of its files in bytes.
    pub bytes: u64,
    /// The most that they may take, in bytes.
    pub bytes_max: u64,
    /// Commits since the start.
    pub commits: u64,
    /// What the disk is asked for.
    #[serde(default)]
    pub flash: FlashLine,
    /// Present while the store is in memory, because the disk cannot be written: since when, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLine>,
}

/// What the store asks of its disk, and how long flash lasts under that.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FlashLine {
    /// Bytes written since the start: to the log, and to the file by checkpoints. Not among them is what the file system writes for itself.
    pub bytes: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Bytes written for each byte of the journal, of frames and of snapshots.
    pub amplification: Option<f64>,
    /// Bytes of a day as those since the start; `null` in the first minute.
    pub bytes_per_day: Option<u64>,
    /// Syncs of such a day.
    pub syncs_per_day: Option<u64>,
    /// For how many years the flash of `[store]` lasts through such days.
    pub years: Option<f64>,
}

/// The store is in memory: what is not sent is lost when the agent ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryLine {
    /// Since when, RFC 3339.
    pub since: String,
    /// What the disk answered last.
    pub why: String,
    /// From when on it is tried again, RFC 3339.
    #[serde(default)]
    pub retry_at: String,
}

/// Whether the ledger closes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Whether every account closes.
    pub closes: bool,
    /// The accounts that do not; always a defect of the program.
    pub imbalances: Vec<String>,
}

impl Status {
    /// Puts together what the stages tell.
    pub fn of(
        agent: &str,
        since: Timestamp,
        now: Timestamp,
        engine: &EngineStatus,
        health: &BTreeMap<std::sync::Arc<str>, rtlive_drivers::outlet::SharedHealth>,
        (store, flash): (&StoreStatus, Option<Flash>),
        mut uplink: Option<UplinkHealth>,
    ) -> Self {
        let capacity = uplink.as_ref().and_then(UplinkHealth::capacity);
        if let Some(uplink) = &mut uplink {
            uplink.waiting_records = store.streams.values().map(|account| account.stored).sum();
            uplink.waiting_bytes = store.streams.values().map(|account| account.stored_bytes).sum();
            uplink.drain_s = capacity.map(|capacity| uplink.waiting_bytes as f64 / capacity);
        }
        let accounts = engine.ledger.inputs.iter().zip(&engine.times).zip(&engine.per_s);
        let inputs = accounts.map(|((account, time), per_s)| {
            let health = health.get(&account.input).map(|health| health.lock().unwrap_or_else(PoisonError::into_inner));
            InputStatus::of(account, time, *per_s, health.as_deref(), now)
        });
        let inputs = inputs.collect();
        let mut imbalances: Vec<String> = engine.ledger.check().iter().map(ToString::to_string).collect();
        imbalances.extend(store.check());
        Self {
            agent: agent.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            since: since.to_string(),
            time: now.to_string(),
            clock: ClockLine::of(&engine.clock.0, engine.clock.1),
            inputs,
            windows: engine.ledger.windows.iter().map(WindowStatus::of).collect(),
            windows_open: engine.windows_open,
            series: engine.series,
            alerts: engine
                .alerts
                .iter()
                .map(|alert| format!("{} {}", alert.rule, alert.instance).trim_end().into())
                .collect(),
            streams: store
                .streams
                .iter()
                .map(|(key, account)| StreamStatus::of(key, account, &engine.ledger, now, capacity))
                .collect(),
            store: StoreLine {
                epoch: store.epoch.map(|epoch| epoch.to_string()),
                bytes: store.bytes,
                bytes_max: store.bytes_max,
                commits: store.commits,
                flash: FlashLine::of(&store.wear, now.since(since), flash),
                memory: store.memory.as_ref().map(|memory| MemoryLine {
                    since: memory.since.to_string(),
                    why: memory.why.clone(),
                    retry_at: memory.retry_at.to_string(),
                }),
            },
            uplink,
            quality: engine.quality.clone(),
            ledger: LedgerLine { closes: imbalances.is_empty(), imbalances },
        }
    }
}

impl FlashLine {
    fn of(wear: &Wear, ran_for: Duration, flash: Option<Flash>) -> Self {
        let days = ran_for.as_secs_f64() / 86_400.0;
        let per_day = |count: u64| (ran_for >= WEAR_AFTER && count > 0).then_some(count as f64 / days);
        let Wear { syncs, bytes, content_bytes } = *wear;
        Self {
            bytes,
            syncs,
            amplification: (bytes > 0 && content_bytes > 0).then_some(bytes as f64 / content_bytes as f64),
            bytes_per_day: per_day(bytes).map(|bytes| bytes as u64),
            syncs_per_day: per_day(syncs).map(|syncs| syncs as u64),
            years: flash.zip(per_day(bytes)).map(|(flash, bytes)| flash.years(bytes)),
        }
    }
}

impl ClockLine {
    fn of(clock: &ClockView, source: &str) -> Self {
        let ClockView { is_trusted, since, provisional, .. } = *clock;
        let since = since.map(|since| since.to_string());
        Self { trusted: is_trusted, since, source: source.into(), provisional: provisional as u64 }
    }
}

impl InputStatus {
    fn of(
        account: &InputAccount,
        time: &InputTime,
        per_s: Option<f64>,
        health: Option<&InputHealth>,
        now: Timestamp,
    ) -> Self {
        let counters =
            health.map(|health| sorted::map(health.counters.iter().map(|(&name, &count)| (name.into(), count))));
        Self {
            name: account.input.to_string(),
            state: health.map_or("stopped", |health| health.state).into(),
            error: health.and_then(|health| health.error.clone()),
            restarts: health.map_or(0, |health| health.restarts),
            counters: counters.unwrap_or_default(),
            newest: time.newest.map(|time| time.to_string()),
            watermark: time.watermark.map(|time| time.to_string()),
            lag_s: time.newest.map(|time| now.since(time).as_secs_f64()),
            taken: account.taken,
            per_s,
            accepted: account.accepted,
            dropped: sorted::map(account.dropped.iter().map(|(reason, &count)| (reason.to_string(), count))),
            bad: account.bad,
            quarantined: account.quarantined,
            late: account.late,
            unsynced: account.unsynced,
            provisional: account.provisional,
        }
    }
}

impl WindowStatus {
    fn of(account: &WindowAccount) -> Self {
        let WindowAccount { ref window, selected, open, finished, late, crowded, cut, .. } = *account;
        Self { name: window.to_string(), selected, open, finished, late, crowded, cut }
    }
}

impl QualityStatus {
    fn of(engine: &Engine) -> Self {
        let counts = engine.quality_counts();
        let mut pairs: Vec<_> = counts.series.iter().collect();
        sorted::by_key(&mut pairs, |(_, count)| std::cmp::Reverse(**count));
        let objection = |(&(series, check), &count): (&(SeriesId, Check), &u64)| {
            let series = engine.series().get(SeriesId::index(series))?.name.to_string();
            Some(ObjectionStatus { series, check: check.name().into(), count })
        };
        Self {
            checks: sorted::map(counts.checks.iter().map(|(check, &count)| (check.name().into(), count))),
            more: pairs.len().saturating_sub(QUALITY_LINES_MAX),
            series: pairs.into_iter().take(QUALITY_LINES_MAX).filter_map(objection).collect(),
        }
    }
}

impl StreamStatus {
    fn of(key: &StreamKey, account: &StreamAccount, ledger: &Ledger, now: Timestamp, capacity: Option<f64>) -> Self {
        let suppressed = ledger.reports.iter().find(|report| report.stream == key.stream);
        let suppressed = suppressed.map(|report| report.suppressed);
        let (name, class) = (key.stream.to_string(), key.class.to_string());
        let StreamAccount { numbered, acknowledged, stored, in_gaps, stored_bytes, oldest } = *account;
        let lag_s = oldest.map(|oldest| now.since(oldest).as_secs_f64());
        let (oldest, drain_s) =
            (oldest.map(|oldest| oldest.to_string()), capacity.map(|capacity| stored_bytes as f64 / capacity));
        Self { name, class, numbered, acknowledged, stored, in_gaps, stored_bytes, lag_s, oldest, drain_s, suppressed }
    }
}
