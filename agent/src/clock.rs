//! The machine's clocks, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::Clock;

/// Where Linux tells which boot this is (`random(4)`).
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The wall clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 is the epoch; one after 2262 the end of time. Both are wrong, and neither may stop the program.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.saturating_add(since)
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
