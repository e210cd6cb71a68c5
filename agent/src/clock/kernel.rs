//! What the kernel tells of its clocks.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

use super::judge::Look;

/// Made by systemd-timesyncd once it has set the clock; asked where the kernel may not be.
const TIMESYNC_PATH: &str = "/run/systemd/timesync/synchronized";

/// What the programs that keep a clock right make while they run: systemd-timesyncd, chrony, ntpd, ntpsec, OpenNTPD.
const KEEPERS_RUN: [&str; 6] =
    ["/run/systemd/timesync", "/run/chrony", "/run/ntpd.pid", "/run/ntp.pid", "/run/ntpsec", "/run/openntpd"];

/// Where systemd has the services that it starts, and which of them may start after this program.
const UNITS_FOLDER: &str = "/etc/systemd/system/multi-user.target.wants";
const KEEPERS_UNITS: [&str; 6] =
    ["chrony.service", "chronyd.service", "ntp.service", "ntpd.service", "ntpsec.service", "openntpd.service"];

/// Made by systemd where it is the first process (`sd_booted(3)`).
const BOOTED_PATH: &str = "/run/systemd/system";

/// How often the clocks are read to find a reading that nothing came between.
const TRIES: usize = 3;

fn nanos(clock: ClockId) -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    tv_sec.saturating_mul(1_000_000_000).saturating_add(tv_nsec)
}

/// The time since the start of the machine, suspension included, in nanoseconds.
pub(super) fn uptime() -> i64 {
    nanos(ClockId::Boottime)
}

/// How long the machine was suspended since its start, in nanoseconds.
pub(super) fn slept() -> i64 {
    uptime().saturating_sub(nanos(ClockId::Monotonic))
}

/// Looks at all clocks.
pub(super) fn look(is_configured: bool) -> Look {
    let read = |_| {
        let before = uptime();
        let wall = nanos(ClockId::Realtime);
        let monotonic = nanos(ClockId::Monotonic);
        let after = uptime();
        let between = before.midpoint(after);
        (after.saturating_sub(before), after, wall.saturating_sub(between), between.saturating_sub(monotonic))
    };
    let (_, uptime, ahead, slept) = (0..TRIES).map(read).min().unwrap_or_default();
    Look { uptime, ahead, slept, is_synchronised: is_configured || is_synchronised(), has_keeper: has_keeper() }
}

/// Whether the kernel's clock is kept right by somebody: `adjtimex(2)`, which NTP daemons tell (timesyncd, chrony, ntpd).
fn is_synchronised() -> bool {
    status().map_or_else(|| Path::new(TIMESYNC_PATH).exists(), |status| status & libc::STA_UNSYNC == 0)
}

/// Whether something on this machine is there to keep its clock right.
fn has_keeper() -> bool {
    let will_run = || {
        let folder = Path::new(UNITS_FOLDER);
        Path::new(BOOTED_PATH).exists() && KEEPERS_UNITS.iter().any(|unit| folder.join(unit).is_symlink())
    };
    KEEPERS_RUN.iter().any(|path| Path::new(path).exists()) || will_run()
}

/// The status of the kernel's clock; `None` where the system does not let us ask.
#[expect(unsafe_code, reason = "no safe crate of the tree offers adjtimex(2)")]
fn status() -> Option<i32> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all zero is a valid `timex`, whose modes of 0 ask for a reading only; the kernel writes within it.
    let timex = unsafe { (libc::adjtimex(timex.as_mut_ptr()) >= 0).then(|| timex.assume_init()) };
    timex.map(|timex| timex.status)
}

/// A timer that never comes, but whose reading ends with [`was_set`] when somebody sets the wall clock (`timerfd_create(2)`).
pub(super) fn set_alarm() -> rustix::io::Result<OwnedFd> {
    let alarm = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    arm(&alarm)?;
    Ok(alarm)
}

/// Waits for the next time that the clock is set.
fn arm(alarm: &OwnedFd) -> rustix::io::Result<()> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A year in which no kernel will run, that 32-bit ones can say.
    let never = Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 };
    let timer = Itimerspec { it_interval: zero, it_value: never };
    timerfd_settime(alarm, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &timer).map(|_| ())
}

/// Whether the clock was set since the last call. A clock that is set behind 2038 lets the timer come, which is told as well.
pub(super) fn was_set(alarm: &OwnedFd) -> bool {
    match rustix::io::read(alarm, &mut [0; 8]) {
        Err(Errno::AGAIN | Errno::INTR) => false,
        Ok(_) | Err(_) => {
            // An alarm that cannot be set again leaves what each second shows.
            let _ = arm(alarm);
            true
        }
    }
}
