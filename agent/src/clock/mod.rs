//! The machine's clocks, read in one place, and the clock that the agent goes by.
//!
//! The agent's time is the time since the machine was started (`CLOCK_BOOTTIME`), which nobody sets, plus a difference that changes only
//! when the engine hears of it: nothing in the program sees the wall clock jump. [`judge`] decides what the difference is and whether it is
//! trusted, [`watch`] asks the kernel.

mod judge;
mod kernel;
pub mod watch;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::Clock;

pub use judge::{Judge, Look, STEADY, STEP_MIN, Verdict};

/// Where Linux tells which boot this is (`random(4)`).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// When this program was built, in seconds since 1970: no clock that shows an earlier time is right.
pub fn built_at() -> Timestamp {
    let seconds: i64 = env!("RTLIVE_BUILT_AT").parse().unwrap_or_default();
    Timestamp::from_millis(seconds.saturating_mul(1000)).unwrap_or_default()
}

/// The wall clock of this machine, whatever it shows: for what is over soon and kept nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is the epoch; one after 2262 the end of time. Both are wrong, and neither may stop the program.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.saturating_add(since)
    }
}

/// The clock that the agent goes by.
#[derive(Debug)]
pub struct AgentClock {
    /// Nanoseconds that are added to the time since the start of the machine.
    ahead: AtomicI64,
    /// The earliest time that it can be; [`i64::MIN`] while the clock is trusted.
    at_least: AtomicI64,
    /// How long the machine was suspended when that was last asked.
    slept: AtomicI64,
    /// Whether the configuration says that the machine's clock is right.
    is_configured: AtomicBool,
    told: Mutex<Told>,
}

/// What receivers told since the last look, and what status shows.
#[derive(Debug, Default)]
struct Told {
    /// By how many nanoseconds a receiver's time was ahead of that since the start of the machine.
    ahead: Vec<i64>,
    source: &'static str,
}

/// How many times that receivers told are kept between two looks; a receiver tells ten a second at most.
const TOLD_MAX: usize = 64;

impl AgentClock {
    /// A clock that shows the first verdict; `is_configured` says that the configuration trusts the machine's clock.
    pub fn new(is_configured: bool, first: &Verdict) -> Self {
        let clock = Self {
            ahead: AtomicI64::new(0),
            at_least: AtomicI64::new(i64::MIN),
            slept: AtomicI64::new(kernel::slept()),
            is_configured: AtomicBool::new(is_configured),
            told: Mutex::default(),
        };
        clock.follow(first);
        clock
    }

    /// Goes by another verdict from now on. The engine hears of it at the same instant.
    pub fn follow(&self, verdict: &Verdict) {
        self.ahead.store(verdict.ahead, Ordering::Relaxed);
        let at_least = if verdict.is_trusted { i64::MIN } else { verdict.at_least.as_nanos() };
        self.at_least.store(at_least, Ordering::Relaxed);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).source = verdict.source;
    }

    /// Whether the machine was suspended since this was last asked.
    pub fn has_slept(&self) -> bool {
        let slept = kernel::slept();
        let before = self.slept.swap(slept, Ordering::Relaxed);
        slept.saturating_sub(before) > STEP_MIN.as_nanos() as i64
    }

    /// What makes the clock trusted, or does not, in words.
    pub fn source(&self) -> &'static str {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).source
    }

    /// A reload may change whether the configuration trusts the machine's clock.
    pub fn configure(&self, is_configured: bool) {
        self.is_configured.store(is_configured, Ordering::Relaxed);
    }

    fn is_configured(&self) -> bool {
        self.is_configured.load(Ordering::Relaxed)
    }

    /// What receivers told since the last call.
    fn take_told(&self) -> Vec<i64> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner).ahead)
    }
}

impl Clock for AgentClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(kernel::uptime().saturating_add(self.ahead()))
    }

    fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    fn at_least(&self) -> Option<Timestamp> {
        let nanos = self.at_least.load(Ordering::Relaxed);
        (nanos != i64::MIN).then(|| Timestamp::from_nanos(nanos))
    }

    fn hear(&self, time: Timestamp) {
        let ahead = time.as_nanos().saturating_sub(kernel::uptime());
        let told = &mut self.told.lock().unwrap_or_else(PoisonError::into_inner).ahead;
        if told.len() < TOLD_MAX {
            told.push(ahead);
        }
    }
}

/// The id of this boot; a random one where the kernel does not tell, which then counts as a boot of its own.
pub fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID_PATH).map_or_else(|_| format!("{:016x}", random()), |id| id.trim().to_owned())
}

/// 64 random bits, for a new epoch.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // getrandom(2) of 8 bytes cannot be cut short; an error leaves what the address space's layout and the clock give.
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_i64(SystemClock.now().as_nanos());
        return hasher.finish();
    }
    u64::from_ne_bytes(bytes)
}
