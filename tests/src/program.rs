//! The program under test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;

use crate::peer::Peer;

/// The `rtlive` binary: `RTLIVE_BIN`, or the one of this workspace, built if need be. Benchmarks, which are optimised themselves,
/// get the release build with the features of a gateway.
///
/// # Panics
/// When it cannot be built.
pub fn rtlive() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("RTLIVE_BIN") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "-p", "rtlive", "--message-format=json-render-diagnostics"]);
        if !cfg!(debug_assertions) {
            command.args(["--release", "--no-default-features"]);
        }
        let built = command.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("cargo build: {error}"));
        assert!(built.status.success(), "cargo build -p rtlive failed");
        let path = built.stdout.split(|&byte| byte == b'\n').rev().find_map(executable);
        path.unwrap_or_else(|| panic!("cargo built no rtlive"))
    })
}

fn executable(line: &[u8]) -> Option<PathBuf> {
    let message: Value = serde_json::from_slice(line).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

/// Runs a command of the program to its end.
///
/// # Errors
/// What the system said.
pub fn run(arguments: &[&str]) -> io::Result<Output> {
    Command::new(rtlive()).args(arguments).stdin(Stdio::null()).output()
}

/// A running agent with its configuration, state and log in one folder.
pub struct Agent {
    folder: PathBuf,
    process: Option<Peer>,
    is_rebooted: bool,
}

impl Agent {
    /// An agent that is not started yet, with this configuration (`state_dir` is set for it).
    ///
    /// # Errors
    /// What the system said.
    pub fn new(folder: &Path, configuration: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let state_dir = folder.join("state");
        let agent =
            format!("[agent]\nid = \"test\"\nclock = \"trusted\"\nstate_dir = {:?}\n\n{configuration}", state_dir);
        fs::write(folder.join("rtlive.toml"), agent)?;
        Ok(Self { folder: folder.to_owned(), process: None, is_rebooted: false })
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("rtlive.toml")
    }

    /// From its next start on it finds itself in the boot of this id; only root can do that, in a view of the file system of the agent's own.
    ///
    /// # Errors
    /// What the system said.
    pub fn reboot(&mut self, id: &str) -> io::Result<()> {
        self.is_rebooted = true;
        fs::write(self.folder.join("boot_id"), format!("{id}\n"))
    }

    /// Starts it; its log goes to `agent.log` in its folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("agent.log"))?;
        let mut command = if self.is_rebooted {
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script]).arg(self.folder.join("boot_id")).arg(rtlive());
            command
        } else {
            Command::new(rtlive())
        };
        command.arg("-c").arg(self.configuration()).arg("run").stderr(log).stdout(Stdio::null());
        self.process = Some(Peer::start(&mut command)?);
        Ok(())
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to stop, and waits for its exit code.
    ///
    /// # Errors
    /// What the system said.
    pub fn stop(&mut self) -> io::Result<Option<i32>> {
        let Some(mut process) = self.process.take() else { return Ok(None) };
        process.signal(Signal::TERM);
        Ok(process.child.wait()?.code())
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Peer::id)
    }

    /// Its status, once it answers.
    pub fn status(&self) -> Option<Value> {
        let configuration = self.configuration();
        let output = run(&["-c", configuration.to_str()?, "status", "--json"]).ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What it logged.
    ///
    /// # Errors
    /// What the system said.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.folder.join("agent.log"))
    }
}

/// Decodes a file of messages in a row to JSON lines.
///
/// # Errors
/// What the system said, or `rtlive decode` when it fails.
pub fn decode(messages: &Path) -> io::Result<Vec<Value>> {
    let output = Command::new(rtlive()).arg("decode").arg(messages).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Ok(serde_json::from_slice(line)?))
        .collect()
}
