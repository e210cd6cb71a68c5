//! Network namespaces that live as long as a process of the test's, and touch no interface of the machine.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rtlive_tests::peer::{Peer, until};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace, which is gone with its last process.
pub(crate) struct Namespace {
    holder: Peer,
    entrance: Entrance,
}

/// The way into a namespace, which is there as long as this is.
pub(crate) struct Entrance(File);

/// What an interface has carried, without the headers of Ethernet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Counters {
    /// Both directions together.
    pub(crate) fn both(self) -> u64 {
        self.received + self.sent
    }
}

/// What the kernel counts of each packet beside IP (IEEE 802.3, section 3.2: two addresses and a type).
const ETHERNET_BYTES: u64 = 14;

impl Namespace {
    /// A new one with a loopback; `None` where this user may not make any.
    pub(crate) fn new() -> io::Result<Option<Self>> {
        let mut holder = Peer::start(Command::new("unshare").args(["--net", "sleep", "infinity"]))?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let own = fs::read_link("/proc/self/ns/net")?;
        // Until then it is in the machine's own, which nothing here may touch.
        let is_apart = || fs::read_link(&path).is_ok_and(|link| link != own);
        until("the namespace is there", || is_apart() || !holder.is_running());
        if !is_apart() {
            return Ok(None);
        }
        let namespace = Self { entrance: Entrance(File::open(&path)?), holder };
        namespace.run("ip link set dev lo up")?;
        // Nothing but what the test sends is on its links.
        namespace.run("sh -c echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")?;
        namespace.run("sh -c echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")?;
        // The one congestion control that each kernel has and lets a namespace choose; what is the default differs.
        namespace.run("sh -c echo reno > /proc/sys/net/ipv4/tcp_congestion_control")?;
        Ok(Some(namespace))
    }

    /// Several; `None` where this user may not make any.
    pub(crate) fn several<const COUNT: usize>() -> io::Result<Option<[Self; COUNT]>> {
        let mut spaces = Vec::new();
        for _ in 0..COUNT {
            let Some(space) = Self::new()? else { return Ok(None) };
            spaces.push(space);
        }
        Ok(spaces.try_into().ok())
    }

    /// The process by which others name it.
    pub(crate) fn id(&self) -> u32 {
        self.holder.id()
    }

    /// What starts a program in here, which it becomes.
    pub(crate) fn starter(&self) -> [OsString; 2] {
        ["nsenter".into(), format!("--net=/proc/{}/ns/net", self.holder.id()).into()]
    }

    /// A program in here.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let [nsenter, option] = self.starter();
        let mut command = Command::new(nsenter);
        command.arg(option).arg(program);
        command
    }

    /// Runs a command line, whose words are parted by blanks; what follows `sh -c` is one word. Returns what it printed.
    pub(crate) fn run(&self, line: &str) -> io::Result<String> {
        let words: Vec<&str> = match line.strip_prefix("sh -c ") {
            Some(script) => vec!["sh", "-c", script],
            None => line.split(' ').collect(),
        };
        let output = self.command(Path::new(words[0])).args(&words[1..]).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(io::Error::other(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    /// The way in, for a thread of its own.
    pub(crate) fn entrance(&self) -> io::Result<Entrance> {
        Ok(Entrance(self.entrance.0.try_clone()?))
    }

    /// What the kernel has counted at an interface (proc(5), `/proc/net/dev`).
    pub(crate) fn counters(&self, interface: &str) -> io::Result<Counters> {
        let text = self.run("cat /proc/net/dev")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let figures: Vec<u64> =
            line.unwrap_or_default().split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        // Eight figures of what came, and eight of what went.
        let &[received, received_packets, _, _, _, _, _, _, sent, sent_packets, ..] = &figures[..] else {
            return Err(io::Error::other(format!("no interface {interface}: {text}")));
        };
        let above = |bytes: u64, packets: u64| bytes - packets * ETHERNET_BYTES;
        Ok(Counters { received: above(received, received_packets), sent: above(sent, sent_packets) })
    }

    /// Does something in here, in a thread of its own: what it opens is here.
    pub(crate) fn within<T: Send>(&self, open: impl FnOnce() -> T + Send) -> io::Result<T> {
        let inside = || self.entrance.enter().map(|()| open());
        thread::scope(|scope| scope.spawn(inside).join().map_err(|_| io::Error::other("the thread panicked"))?)
    }
}

impl Entrance {
    /// Moves this thread into the namespace. What it opens from now on is there.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}
