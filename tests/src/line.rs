//! A serial line between the agent and Modbus devices, on which requests can be lost and answers damaged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A request to read is 8 bytes: unit, function, address, count, checksum.
pub const REQUEST_BYTES: usize = 8;

/// How long a byte takes at 9600 bit/s, 8N1. A pseudo-terminal itself never delays.
const BYTE: Duration = Duration::from_micros(1_042);

/// Which byte of an answer is damaged, counted from 1: the first of the data, so that nothing but the checksum shows it.
const DAMAGED_BYTE: u8 = 4;

/// What becomes of a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Both pass.
    Passes,
    /// The request is lost, so that nobody answers.
    Lost,
    /// One bit of the answer is turned over.
    Damaged,
    /// Instead of an answer comes noise.
    Noise,
}

/// A line whose one end is a pseudo-terminal for the agent, and whose other end is another's port.
pub struct Line {
    /// The agent's end.
    pub path: PathBuf,
    lost: Arc<AtomicU64>,
}

impl Line {
    /// Lays a line to the devices at `devices`; `fate` decides about each request by its unit id. It lies until the process ends.
    ///
    /// # Errors
    /// What the system said.
    pub fn lay(devices: &Path, fate: impl Fn(u8) -> Fate + Send + 'static) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(String::from_utf8_lossy(ptsname(&master, Vec::new())?.as_bytes()).into_owned());
        // Held open, so that the line outlives an agent that is started again.
        let held = raw(&path)?;
        let (mut from_agent, mut to_agent) = (File::from(master.try_clone()?), File::from(master));
        let mut from_devices = raw(devices)?;
        let mut to_devices = from_devices.try_clone()?;
        let lost = Arc::new(AtomicU64::new(0));
        let damage = Arc::new(AtomicU8::new(0));

        let (counter, to_damage) = (Arc::clone(&lost), Arc::clone(&damage));
        let mut noise = to_agent.try_clone()?;
        thread::spawn(move || {
            let _held = held;
            let mut request = [0; REQUEST_BYTES];
            while from_agent.read_exact(&mut request).is_ok() {
                let passed = match fate(request[0]) {
                    Fate::Passes => to_devices.write_all(&request),
                    Fate::Damaged => {
                        to_damage.store(1, Ordering::SeqCst);
                        to_devices.write_all(&request)
                    }
                    Fate::Noise => noise.write_all(b"\x00\xff\x55no answer\xaa"),
                    Fate::Lost => {
                        counter.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    }
                };
                if passed.is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            let mut byte = [0];
            while from_devices.read_exact(&mut byte).is_ok() {
                match damage.load(Ordering::SeqCst) {
                    0 => {}
                    DAMAGED_BYTE => {
                        damage.store(0, Ordering::SeqCst);
                        byte[0] ^= 1;
                    }
                    seen => damage.store(seen + 1, Ordering::SeqCst),
                }
                thread::sleep(BYTE);
                if to_agent.write_all(&byte).is_err() {
                    return;
                }
            }
        });
        Ok(Self { path, lost })
    }

    /// How many requests were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::SeqCst)
    }
}

/// A terminal that passes every byte as it is.
fn raw(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut settings = tcgetattr(&file)?;
    settings.make_raw();
    tcsetattr(&file, OptionalActions::Now, &settings)?;
    Ok(file)
}
