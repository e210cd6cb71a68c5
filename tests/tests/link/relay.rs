//! A relay between two namespaces that makes the way long, unsteady and unreliable: packets of IP between two TUN interfaces.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Setter, ioctl, opcode};

use crate::namespace::Namespace;
use crate::segment::resets;

/// The longest packet that an interface gives.
const PACKET_BYTES_MAX: usize = 1_500;
/// How many packets may be on their way in one direction: a second at 100 Mbit/s. More are lost.
const PACKETS_MAX: usize = 8_192;
/// How soon a thread sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the way does to packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Both ways together.
    pub(crate) round_trip: Duration,
    /// How much longer a way may take, as a part of itself. Packets stay in order.
    pub(crate) jitter: f64,
    /// Which part of the packets is lost.
    pub(crate) loss: f64,
    /// Whether packets to the centre arrive at all, and those from it: neither is a black hole, one of them a connection that is half open.
    pub(crate) is_open: [bool; 2],
}

impl Path {
    pub(crate) fn of(round_trip_ms: u64) -> Self {
        Self { round_trip: Duration::from_millis(round_trip_ms), jitter: 0.0, loss: 0.0, is_open: [true; 2] }
    }
}

struct Shared {
    path: Mutex<Path>,
    /// How many connections are to be broken, and how many were.
    resets_wanted: AtomicU64,
    resets_done: AtomicU64,
    is_over: AtomicBool,
}

/// The relay, until it is dropped.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Joins two namespaces by interfaces of these names.
    pub(crate) fn join(ends: [(&Namespace, &str); 2], path: Path) -> io::Result<Self> {
        let [(field, field_name), (centre, centre_name)] = ends;
        let [field, centre] = [tun(field, field_name)?, tun(centre, centre_name)?].map(Arc::new);
        let shared = Arc::new(Shared {
            path: Mutex::new(path),
            resets_wanted: AtomicU64::new(0),
            resets_done: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let ways = [(0, field.clone(), centre.clone()), (1, centre, field)];
        let threads = ways.into_iter().map(|(way, from, to)| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut direction = Direction { way, from, to, on_the_way: VecDeque::new(), dice: way as u64 };
                if let Err(error) = direction.carry(&shared) {
                    eprintln!("the relay ends: {error}");
                }
            })
        });
        Ok(Self { threads: threads.collect(), shared })
    }

    /// Changes the way, for packets that come from now on.
    pub(crate) fn set(&self, path: Path) {
        *self.shared.path.lock().unwrap() = path;
    }

    /// Breaks the connection whose segment comes next.
    pub(crate) fn reset(&self) {
        self.shared.resets_wanted.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // It said by itself what went wrong.
            let _ = thread.join();
        }
    }
}

/// One direction of the way.
struct Direction {
    way: usize,
    from: Arc<File>,
    to: Arc<File>,
    /// When packets arrive, in their order.
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    dice: u64,
}

impl Direction {
    fn carry(&mut self, shared: &Shared) -> io::Result<()> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        while !shared.is_over.load(Ordering::SeqCst) {
            while let Some(bytes) = would_block((&*self.from).read(&mut packet))? {
                self.take(&packet[..bytes], shared)?;
            }
            while let Some((_, packet)) = self.on_the_way.pop_front_if(|(at, _)| *at <= Instant::now()) {
                deliver(&self.to, &packet)?;
            }
            let next = self.on_the_way.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
            let wait = next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as _ };
            poll(&mut [PollFd::new(&*self.from, PollFlags::IN)], Some(&wait))?;
        }
        Ok(())
    }

    fn take(&mut self, packet: &[u8], shared: &Shared) -> io::Result<()> {
        let path = *shared.path.lock().unwrap();
        let is_wanted =
            self.way == 0 && shared.resets_done.load(Ordering::SeqCst) < shared.resets_wanted.load(Ordering::SeqCst);
        if is_wanted && let Some([back, on]) = resets(packet) {
            shared.resets_done.fetch_add(1, Ordering::SeqCst);
            deliver(&self.from, &back)?;
            return deliver(&self.to, &on);
        }
        if !path.is_open[self.way] || self.roll() < path.loss || self.on_the_way.len() >= PACKETS_MAX {
            return Ok(());
        }
        let takes = (path.round_trip / 2).mul_f64(1.0 + path.jitter * self.roll());
        let at = self.on_the_way.back().map_or(Instant::now(), |(at, _)| *at).max(Instant::now() + takes);
        self.on_the_way.push_back((at, packet.to_vec()));
        Ok(())
    }

    /// A number of [0, 1), the same in every run (Knuth's MMIX generator).
    fn roll(&mut self) -> f64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as f64 / (1_u64 << 31) as f64
    }
}

/// A network that is down, or has no room, loses what is sent.
fn deliver(to: &File, packet: &[u8]) -> io::Result<()> {
    let mut to = to;
    would_block(to.write(packet)).map(|_| ())
}

/// `None` where there is nothing now.
fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `TUNSETIFF` takes: a `struct ifreq` with a name and flags (netdevice(7)).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Packets of IP, with nothing before them (the kernel's documentation, networking/tuntap).
const TUN_WITHOUT_HEADER: u16 = 0x0001 | 0x1000;

/// A new TUN interface in a namespace, up, as long as the file is open.
fn tun(namespace: &Namespace, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // The interface is made where the thread is that opens the file.
    let file = File::from(namespace.within(|| rustix::fs::open("/dev/net/tun", flags, Mode::empty()))??);
    let mut request = Request { name: [0; 16], flags: TUN_WITHOUT_HEADER, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    #[expect(unsafe_code, reason = "no safe crate of the tree offers TUNSETIFF")]
    // SAFETY: the number is that of TUNSETIFF (linux/if_tun.h), which reads a `struct ifreq`; the request has its form and length.
    unsafe {
        ioctl(file.as_fd(), Setter::<{ opcode::write::<i32>(b'T', 202) }, Request>::new(request))?;
    }
    namespace.run(&format!("ip link set dev {name} up"))?;
    Ok(file)
}
