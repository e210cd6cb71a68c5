//! One agent, from an empty disk through many cuts until everything has come home.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rtlive::store::FILE_NAME;
use rtlive::store::look::{Look, Looked};
use rtlive_config::Flash;
use rtlive_core::frame;
use rtlive_core::reading::{Reading, Value};
use rtlive_core::record::{Epoch, EpochStart, Gap, Record};
use rtlive_tests::peer::{PATIENCE, until, until_within};
use rtlive_tests::program::Agent;

use crate::disk::{Disk, Failure, File, Node, ROOT};
use crate::mount::Mount;
use crate::mqtt::{Brokers, Mood};
use crate::random::Random;

/// How large the disk is.
const DISK_BYTES: u64 = 32 << 20;

/// Within how many milliseconds of its start, and of its first sign of life, the power goes.
const AFTER_START_MS: i64 = 150;
const AFTER_LIFE_MS: i64 = 250;

/// What an agent says that finds nothing but what a cut may leave never has these words.
const WORDS_OF_DAMAGE: [&str; 5] = ["MEMORY", "damaged", "set aside", "cannot be", "opened again"];

/// As the configuration has it.
const FLASH: Flash = Flash { bytes: 8_000_000_000, cycles: 3_000 };

/// Readings come fast.
pub(crate) const MUCH: [(&str, &str); 2] = [("series = 3", "series = 200"), ("\"20ms\"", "\"10ms\"")];

const CONFIGURATION: &str = r##"
    [store]
    commit_every = "100ms"
    max_bytes = "4 MiB"
    flash = { size = "8 GB", cycles = 3000 }
    [inputs.line]
    driver = "mqtt"
    broker = "mqtt://127.0.0.1:{sensors}"
    [[inputs.line.topics]]
    filter = "n"
    series = "n"
    format = "json"
    value = "/n"
    [inputs.sim]
    driver = "simulated"
    series = 3
    every = "20ms"
    [streams.raw]
    select = "#"
    [windows.second]
    select = "#"
    every = "1s"
    [uplink]
    broker = "mqtt://127.0.0.1:{centre}"
    protocol = "3.1.1"
"##;

/// An agent with its disk and its brokers.
pub(crate) struct Course {
    random: Random,
    folder: tempfile::TempDir,
    agent: Agent,
    mount: Mount,
    brokers: Brokers,
    starts: u64,
    boot_id: String,
    /// Whether the card says that it synced, and did not.
    lies: bool,
}

impl Course {
    /// `None` where this user may not mount. Each of the changes writes its second text for its first in the configuration.
    pub(crate) fn new(seed: u64, lies: bool, changes: &[(&str, &str)]) -> io::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let brokers = Brokers::open(lies)?;
        let ports = [("{sensors}", brokers.sensors), ("{centre}", brokers.centre)];
        let configuration =
            ports.iter().fold(CONFIGURATION.to_owned(), |text, (name, port)| text.replace(name, &port.to_string()));
        let configuration = changes.iter().fold(configuration, |text, (from, to)| text.replace(from, to));
        let agent = Agent::new(folder.path(), &configuration)?;
        let Some(mount) = Mount::show(&folder.path().join("state"), Disk::new(DISK_BYTES))? else { return Ok(None) };
        mount.disk().lies = lies.then(|| Random::new(seed));
        let (random, boot_id) = (Random::new(seed), String::new());
        let mut course = Self { random, folder, agent, mount, brokers, starts: 0, boot_id, lies };
        course.reboot();
        Ok(Some(course))
    }

    /// Cuts the power so many times, and looks at everything; says what there was to see, or what does not hold. Now and then only the process dies.
    pub(crate) fn run(&mut self, cuts: u64) -> Result<String, String> {
        let mut cut = 0;
        while cut < cuts {
            let of_cut = |what: String| format!("cut {}: {what}", cut + 1);
            self.live_a_while().map_err(of_cut)?;
            self.agent.kill();
            let is_power = self.random.percent(90);
            if is_power {
                self.mount.disk().cut(&mut self.random);
                self.reboot();
            }
            self.look().map_err(of_cut)?;
            cut += u64::from(is_power);
        }
        self.come_home()?;
        if self.lies {
            return Ok(self.told());
        }
        let epochs = epochs(&self.brokers.known().centre)?;
        Ok(format!("{epochs} epochs, {}", self.told()))
    }

    /// The disk fails for a while, and is whole again.
    pub(crate) fn fail(&mut self, failure: Failure) -> Result<String, String> {
        self.start()?;
        let acknowledged = |course: &Self| course.brokers.known().acknowledged.len();
        let messages = |course: &Self| course.brokers.known().centre.messages;
        let memory = |course: &Self| course.agent.status().unwrap_or_default()["store"]["memory"].clone();
        until("the agent works", || acknowledged(self) > 100);
        self.mount.disk().failure = failure;
        if let Failure::Some(_) = failure {
            let before = messages(self);
            until("what is read is sent, from a disk that is ill", || messages(self) > before + 20);
        } else {
            until("the store is in memory", || memory(self).is_object());
            let before = (messages(self), acknowledged(self));
            until("what cannot wait is sent", || messages(self) > before.0 + 20);
            if acknowledged(self) > before.1 {
                return Err("what can wait was acknowledged, and is in memory alone".to_owned());
            }
        }
        self.mount.disk().failure = Failure::None;
        until("the store is on the disk again", || memory(self).is_null());
        let before = acknowledged(self);
        until("what could wait is taken", || acknowledged(self) > before + 100);
        self.agent.kill();
        self.come_home()?;
        Ok(self.told())
    }

    /// A store without a link whose inputs fill it several times over: it keeps its bound at every instant.
    pub(crate) fn overflow(&mut self) -> Result<String, String> {
        const BYTES: u64 = 1 << 20;
        self.brokers.known().mood = Mood::Away;
        self.start()?;
        let status = || self.agent.status().unwrap_or_default();
        let raw = || status()["streams"].as_array().and_then(|of| of.iter().find(|it| it["name"] == "raw").cloned());
        until("twice as much is evicted as is stored", || {
            raw().is_some_and(|raw| raw["in_gaps"].as_u64() > raw["stored"].as_u64().map(|stored| 2 * stored))
        });
        let status = status();
        self.agent.kill();
        let used = self.mount.disk().used_max;
        if used > BYTES || status["ledger"]["closes"] != true || !status["store"]["memory"].is_null() {
            return Err(format!("{used} bytes were used: {status}\n{}", self.log()));
        }
        Ok(format!("at most {used} bytes of {BYTES}"))
    }

    /// A block of the disk cannot be read any more on which frames lie: they are lost, named, and nothing else is.
    pub(crate) fn lose_a_block(&mut self) -> Result<String, String> {
        const BLOCK: usize = 4096;
        /// A block holds four pages of a store.
        const FRAMES_MAX: usize = 4;
        /// What stands in a file once stands there to be read, and is no rest of what was deleted.
        const SAMPLE: usize = 64;
        self.brokers.known().mood = Mood::Away;
        self.start()?;
        until("there are frames", || self.mount.disk().used() > 2_000_000);
        let stopped = self.agent.stop().map_err(|error| error.to_string())?;
        let copy = self.folder.path().join("copy");
        self.copy_store(&copy)?;
        let bytes = fs::read(copy.join(FILE_NAME)).map_err(|error| error.to_string())?;
        let frames = frames_from_the_middle(&copy.join(FILE_NAME)).map_err(|error| error.to_string())?;
        let place = frames.iter().find_map(|frame| {
            let sample = frame.get(frame.len() / 2..)?.get(..SAMPLE)?;
            let mut places = (0..bytes.len()).filter(|place| bytes[*place..].starts_with(sample));
            let place = places.next()?;
            // Those of the log are not in the file.
            places.next().is_none().then_some(place / BLOCK * BLOCK)
        });
        let (Some(0), Some(place)) = (stopped, place) else { return Err(format!("{stopped:?} {place:?}")) };
        {
            let mut disk = self.mount.disk();
            let number = disk.find(ROOT, FILE_NAME.as_ref()).ok_or("there is no store")?;
            disk.unreadable = Some((number, place..place + BLOCK));
            disk.has_failed = true;
        }
        self.brokers.known().mood = Mood::Good;
        self.start()?;
        until("what can be read goes to another file", || self.log().contains("is whole is taken over"));
        let memory = || self.agent.status().unwrap_or_default()["store"]["memory"].clone();
        until("the store is on the disk again", || memory().is_null());
        self.brokers.known().publishes = false;
        until("all that was published is acknowledged", || self.brokers.known().all_acknowledged());
        let (mut missing, mut named) = (0, Vec::new());
        until("all is there, or lies in a gap", || {
            let known = self.brokers.known();
            let home = home(&known.centre);
            missing = known.acknowledged.iter().filter(|number| !home.contains_key(number)).count() as u64;
            named = damaged(&known.centre).filter(|gap| &*gap.stream == "raw").map(Gap::records).collect::<Vec<u64>>();
            missing <= named.iter().sum()
        });
        let ledger = self.agent.status().unwrap_or_default()["ledger"].clone();
        let stopped = self.agent.stop().map_err(|error| error.to_string())?;
        if stopped != Some(0) || ledger["closes"] != true || !(1..=FRAMES_MAX).contains(&named.len()) {
            return Err(format!(
                "{stopped:?}: {missing} are missing, {named:?} readings are named: {ledger}\n{}",
                self.log()
            ));
        }
        Ok(format!("{missing} of {named:?} readings that lay there are missed; {}", self.told()))
    }

    /// What the agent says of the wear of its flash is what the disk counted.
    pub(crate) fn wear(&mut self) -> Result<String, String> {
        /// What the start asks of the disk is not the store's thread, and what comes between two looks is not the same.
        const OFF_MAX: f64 = 0.03;
        let begun = Instant::now();
        self.start()?;
        let flash = || self.agent.status().unwrap_or_default()["store"]["flash"].clone();
        // Nothing is estimated from less than a minute.
        until_within(2 * PATIENCE, "a day can be estimated", || flash()["bytes_per_day"].is_u64());
        let told = flash();
        let (bytes, syncs) = {
            let disk = self.mount.disk();
            (disk.store_bytes as f64, disk.syncs as f64)
        };
        let days = begun.elapsed().as_secs_f64() / 86_400.0;
        self.agent.kill();
        let counted = [
            ("bytes", bytes),
            ("syncs", syncs),
            ("bytes_per_day", bytes / days),
            ("syncs_per_day", syncs / days),
            ("years", FLASH.years(bytes / days)),
        ];
        for (name, counted) in counted {
            let off = told[name].as_f64().map(|told| (told / counted - 1.0).abs());
            if off.is_none_or(|off| off > OFF_MAX) {
                return Err(format!("{name}: the disk counted {counted:.1}: {told}"));
            }
        }
        if told["amplification"].as_f64().is_none_or(|amplification| amplification < 1.0) {
            return Err(format!("{told}"));
        }
        Ok(format!("{told}"))
    }

    /// What the agent said since its last start.
    pub(crate) fn log(&self) -> String {
        self.agent.log().unwrap_or_default()
    }

    fn told(&self) -> String {
        let (known, disk) = (self.brokers.known(), self.mount.disk());
        format!(
            "{} starts, {} readings acknowledged, {} messages, {} again, {} writes, {} syncs",
            self.starts, known.next, known.centre.messages, known.centre.repeated, disk.writes, disk.syncs
        )
    }

    /// The machine comes to another boot, whose id is random.
    fn reboot(&mut self) {
        let (a, b) = (self.random.next(), self.random.next());
        let (first, second, third) = (a >> 32, a >> 16 & 0xffff, a & 0xfff);
        self.boot_id = format!("{first:08x}-{second:04x}-4{third:03x}-8{:03x}-{:012x}", b >> 52, b & 0xffff_ffff_ffff);
    }

    fn start(&mut self) -> Result<(), String> {
        self.starts += 1;
        fs::write(self.folder.path().join("agent.log"), "").map_err(|error| error.to_string())?;
        self.agent.reboot(&self.boot_id).and_then(|()| self.agent.start()).map_err(|error| error.to_string())
    }

    /// An agent starts, and the power goes some time later: in the middle of its start, or while it works.
    fn live_a_while(&mut self) -> Result<(), String> {
        self.brokers.known().mood = *self.random.pick(&[Mood::Good, Mood::Good, Mood::Deaf, Mood::Away]);
        let before = self.brokers.known().acknowledged.len();
        self.start()?;
        let span = if self.random.percent(25) {
            AFTER_START_MS
        } else {
            let begun = Instant::now();
            while self.brokers.known().acknowledged.len() == before {
                if begun.elapsed() > PATIENCE {
                    return Err(format!("the agent does not work: {}", self.agent.log().unwrap_or_default()));
                }
                thread::sleep(Duration::from_millis(2));
            }
            AFTER_LIFE_MS
        };
        let span = self.random.between(0, span * 1_000).unsigned_abs();
        thread::sleep(Duration::from_micros(span));
        Ok(())
    }

    /// What must be true after each cut.
    fn look(&mut self) -> Result<(), String> {
        if let Some(wrong) = self.brokers.known().wrong.first() {
            return Err(wrong.clone());
        }
        let log = self.log();
        if log.contains("panicked") {
            return Err(log);
        }
        if self.lies || self.mount.disk().has_failed {
            return Ok(());
        }
        if let Some(line) = log.lines().find(|line| WORDS_OF_DAMAGE.iter().any(|word| line.contains(word))) {
            return Err(format!("the agent says: {line}"));
        }
        let copy = self.folder.path().join("copy");
        let stored = self.copy_store(&copy).and_then(|()| stored(&copy.join(FILE_NAME)));
        let stored = stored.map_err(|what| format!("{what}\n{log}"))?;
        let known = self.brokers.known();
        let home = home(&known.centre);
        let lost: Vec<_> = known
            .acknowledged
            .iter()
            .filter(|number| !stored.contains(number) && !home.contains_key(number))
            .take(5)
            .collect();
        if !lost.is_empty() {
            return Err(format!("{lost:?} were acknowledged, and are neither stored nor at the centre"));
        }
        Ok(())
    }

    /// The store as the disk has it, where it can be looked at and leaves no trace.
    fn copy_store(&self, to: &Path) -> Result<(), String> {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).map_err(|error| error.to_string())?;
        let disk = self.mount.disk();
        for (name, number) in disk.list(ROOT).filter(|(name, _)| !name.to_string_lossy().ends_with("-shm")) {
            if let Some(Node::File(File { bytes, .. })) = disk.node(number) {
                fs::write(to.join(name), bytes).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// The ledger, once the agent answers.
    fn ledger(&self) -> serde_json::Value {
        let ledger = || self.agent.status().unwrap_or_default()["ledger"].clone();
        until("the agent answers", || ledger().is_object());
        ledger()
    }

    /// Nothing goes wrong any more, and everything arrives, each number once.
    fn come_home(&mut self) -> Result<(), String> {
        self.mount.disk().lies = None;
        let published = {
            let mut known = self.brokers.known();
            known.mood = Mood::Good;
            known.publishes = false;
            known.next
        };
        self.start()?;
        // Where nothing is missing it would be told to stop before it listens to that.
        self.ledger();
        until("all that was published is acknowledged", || self.brokers.known().all_acknowledged());
        if !self.lies {
            let arrived = || home(&self.brokers.known().centre).len() as u64;
            until("all that was published is at the centre", || arrived() == published);
        }
        let stop = self.agent.stop().map_err(|error| error.to_string())?;
        if stop != Some(0) {
            return Err(format!("the agent ended with {stop:?}: {}", self.log()));
        }
        self.look()?;
        self.start()?;
        let ledger = self.ledger();
        if ledger["closes"] != true {
            return Err(format!("the ledger does not close: {ledger}"));
        }
        self.agent.kill();
        let home = home(&self.brokers.known().centre);
        match home.iter().find(|(_, times)| **times != 1) {
            Some((number, times)) if !self.lies => Err(format!("{number} is at the centre {times} times")),
            _ => Ok(()),
        }
    }
}

/// The frames of a store, those in the middle first.
fn frames_from_the_middle(path: &Path) -> rusqlite::Result<Vec<Vec<u8>>> {
    let connection = rusqlite::Connection::open(path)?;
    let sql = "SELECT bytes FROM frames ORDER BY abs(id - (SELECT avg(id) FROM frames WHERE stream = 'raw'))";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// The gaps that speak of damage.
fn damaged(centre: &crate::centre::Centre) -> impl Iterator<Item = &Gap> {
    centre.records("gaps").filter_map(|(_, _, _, record)| match record {
        Record::Gap(gap) if &*gap.reason == "damaged" => Some(&**gap),
        _ => None,
    })
}

/// The numbers that a record holds.
fn number_of(series: Option<&str>, record: &Record) -> Option<u64> {
    match record {
        Record::Reading(Reading { value: Value::Int(number), .. }) if series == Some("line/n") => {
            u64::try_from(*number).ok()
        }
        _ => None,
    }
}

/// The numbers that are at the centre, and how often.
fn home(centre: &crate::centre::Centre) -> BTreeMap<u64, usize> {
    let mut home = BTreeMap::new();
    for (_, _, series, record) in centre.records("raw") {
        if let Some(number) = number_of(series.as_deref(), record) {
            *home.entry(number).or_default() += 1;
        }
    }
    home
}

/// The numbers that are in a store, which is sound.
fn stored(path: &Path) -> Result<BTreeSet<u64>, String> {
    let mut stored = BTreeSet::new();
    if !path.exists() || fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Ok(stored);
    }
    let connection = rusqlite::Connection::open(path).map_err(|error| error.to_string())?;
    let said = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    if said.as_deref() != Ok("ok") {
        return Err(format!("SQLite's check of the file: {said:?}"));
    }
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    if tables.map_err(|error| error.to_string())? == 0 {
        return Ok(stored);
    }
    drop(connection);
    let look = Look::open(path).map_err(|error| error.to_string())?;
    let reckoning = look.book().map_err(|error| error.to_string())?.reckon();
    if !reckoning.faults.is_empty() {
        return Err(reckoning.faults.join("; "));
    }
    for waiting in reckoning.waiting.iter().filter(|waiting| &*waiting.stream.name == "raw") {
        let series = |record: &Record| match record {
            Record::Reading(reading) => reckoning.series.get(reading.series.index()).map(|info| info.name.clone()),
            _ => None,
        };
        stored.extend(waiting.records.iter().filter_map(|record| number_of(series(record).as_deref(), record)));
    }
    let mut damaged = Vec::new();
    let looked = look.each_frame::<rtlive::message::StoreError>(|looked| {
        match looked {
            Looked::Whole(found) if &*found.stream == "raw" => match frame::open(&found.bytes) {
                Ok((_, contents)) => {
                    let series = |record: &Record| match record {
                        Record::Reading(reading) => {
                            contents.series.get(reading.series.index()).map(|info| info.name.clone())
                        }
                        _ => None,
                    };
                    stored.extend(
                        contents.records.iter().filter_map(|record| number_of(series(record).as_deref(), record)),
                    );
                }
                Err(error) => damaged.push(format!("a frame cannot be opened: {error}")),
            },
            Looked::Whole(_) => {}
            Looked::Damaged { key, numbers, .. } => {
                damaged.push(format!("a frame of {} is damaged: {numbers:?}", key.stream))
            }
        }
        Ok(())
    });
    looked.map_err(|error| error.to_string())?;
    if damaged.is_empty() { Ok(stored) } else { Err(damaged.join("; ")) }
}

/// The epochs are a chain, each ends where the next says, and no number of it is missing; their count.
fn epochs(centre: &crate::centre::Centre) -> Result<usize, String> {
    let mut starts: BTreeMap<Option<Epoch>, (Epoch, &EpochStart)> = BTreeMap::new();
    for ((epoch, ..), number, _, record) in centre.records("gaps") {
        if let Record::Gap(gap) = record {
            return Err(format!("nothing had to go, and yet there is {gap:?}"));
        }
        if let Record::EpochStart(start) = record
            && (number != 1 || starts.insert(start.predecessor, (*epoch, start)).is_some())
        {
            return Err(format!(
                "epoch {epoch} begins with record {number}, and another one follows {:?}",
                start.predecessor
            ));
        }
    }
    let mut lanes = BTreeMap::new();
    for (lane, blocks) in &centre.lanes {
        let mut next = 1;
        for (first, block) in blocks {
            if *first != next {
                return Err(format!("{lane:?}: {next}..{first} is missing"));
            }
            next = block.last + 1;
        }
        lanes.insert(lane.clone(), next - 1);
    }
    let (mut count, mut before) = (0, None);
    while let Some((epoch, start)) = starts.remove(&before) {
        for (stream, class, last) in &start.last {
            let lane = (before.unwrap_or(epoch), stream.to_string(), class.to_string());
            let found = lanes.get(&lane).copied().unwrap_or_default();
            if found != *last {
                return Err(format!("{lane:?} ends with {last}, and {found} came"));
            }
        }
        count += 1;
        before = Some(epoch);
    }
    if starts.is_empty() { Ok(count) } else { Err(format!("the epochs are no chain: {starts:?} are left")) }
}
