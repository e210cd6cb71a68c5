//! Real peers as child processes that end with the test.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a condition may take to come true: far longer than on a loaded machine, so that only what never comes fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child process that is killed when it is dropped.
pub struct Peer {
    /// The process.
    pub child: Child,
    name: String,
}

impl Peer {
    /// Starts a program.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn()?;
        Ok(Self { child, name })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name: `TERM`, `KILL`, `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself; that is for `wait` to say.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
        }
        if let Err(error) = self.child.wait() {
            eprintln!("{} did not end: {error}", self.name);
        }
    }
}

/// A program of the system by name. `None`, said loudly, where it is not installed; a failure where all peers are required.
pub fn installed(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&folders).chain(extra).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        missing(name);
    }
    found
}

/// The Python of the tests' virtual environment: `RTLIVE_PYTHON`, or `python3`; `None`, said loudly, without these modules.
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let python = std::env::var_os("RTLIVE_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let import = format!("import {}", modules.join(", "));
    let found = Command::new(&python).args(["-c", &import]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    missing(&format!("{} with {} (RTLIVE_PYTHON names the interpreter)", python.display(), modules.join(", ")));
    None
}

fn missing(what: &str) {
    eprintln!("SKIPPED: {what} is not installed");
    assert!(std::env::var_os("RTLIVE_REQUIRE_PEERS").is_none(), "{what} is required here");
}

/// A TCP port of the loopback that nobody listens on now.
///
/// # Errors
/// What the system said.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Polls until something comes true; fails with `what` when it does not within [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(PATIENCE, what, condition);
}

/// The same with another patience.
#[track_caller]
pub fn until_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "waited {patience:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two joined pseudo-terminals at `a` and `b`, by socat.
pub struct Cable {
    _socat: Peer,
}

impl Cable {
    /// Lays a cable; `None` where socat is not installed.
    ///
    /// # Errors
    /// What the system said.
    pub fn lay(a: &Path, b: &Path) -> io::Result<Option<Self>> {
        let Some(program) = installed("socat") else { return Ok(None) };
        let end = |path: &Path| format!("pty,raw,echo=0,link={}", path.display());
        let socat = Peer::start(Command::new(program).arg(end(a)).arg(end(b)))?;
        until("both ends of the cable are there", || a.exists() && b.exists());
        Ok(Some(Self { _socat: socat }))
    }
}
