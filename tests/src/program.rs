//! The program under test.

use std::ffi::OsString;
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
    PROGRAM.get_or_init(|| found_or_built("RTLIVE_BIN", &["rtlive", "--no-default-features"]))
}

/// The `rtlive-receiver` binary: `RTLIVE_RECEIVER_BIN`, or the one of this workspace, as [`rtlive()`].
///
/// # Panics
/// When it cannot be built.
pub fn receiver() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| found_or_built("RTLIVE_RECEIVER_BIN", &["rtlive-receiver"]))
}

/// What a variable names, or a package of this workspace; behind its name stand options of its release build.
fn found_or_built(variable: &str, package: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let (name, options) = package.split_first().unwrap_or((&"", &[]));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--message-format=json-render-diagnostics", "-p", name]);
    if !cfg!(debug_assertions) {
        command.arg("--release").args(options);
    }
    let built = command.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("cargo build: {error}"));
    assert!(built.status.success(), "cargo build -p {name} failed");
    let path = built.stdout.split(|&byte| byte == b'\n').rev().find_map(executable);
    path.unwrap_or_else(|| panic!("cargo built no {name}"))
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
    /// What starts it, with its arguments; empty where it is started as it is.
    starter: Vec<OsString>,
}

impl Agent {
    /// An agent that is not started yet, with this configuration (`state_dir` is set for it) and the id `test`.
    ///
    /// # Errors
    /// What the system said.
    pub fn new(folder: &Path, configuration: &str) -> io::Result<Self> {
        Self::named("test", folder, configuration)
    }

    /// The same with another id.
    ///
    /// # Errors
    /// What the system said.
    pub fn named(id: &str, folder: &Path, configuration: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let state_dir = folder.join("state");
        let agent = format!("[agent]\nid = {id:?}\nclock = \"trusted\"\nstate_dir = {state_dir:?}\n\n{configuration}");
        fs::write(folder.join("rtlive.toml"), agent)?;
        Ok(Self { folder: folder.to_owned(), process: None, starter: Vec::new() })
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
        let file = self.folder.join("boot_id");
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        fs::write(&file, format!("{id}\n"))?;
        self.start_by(["unshare", "--mount", "sh", "-c", script].map(OsString::from).into_iter().chain([file.into()]));
        Ok(())
    }

    /// From its next start on it is started by this program, which becomes what follows its arguments.
    pub fn start_by(&mut self, command: impl IntoIterator<Item = OsString>) {
        self.starter = command.into_iter().collect();
    }

    /// Starts it; its log goes to `agent.log` in its folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("agent.log"))?;
        let mut words = self.starter.iter().map(OsString::as_os_str).chain([rtlive().as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
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

/// A receiver with its configuration, state, lines and log in one folder.
pub struct Receiver {
    folder: PathBuf,
    process: Option<Peer>,
}

impl Receiver {
    /// A receiver that is not started yet, with this configuration besides `[receiver]`, which is named as its folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn new(folder: &Path, configuration: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let name = folder.file_name().unwrap_or_default();
        let own = format!("[receiver]\nid = {name:?}\nstate_dir = {:?}\n\n", folder.join("state"));
        fs::write(folder.join("receiver.toml"), own + configuration)?;
        Ok(Self { folder: folder.to_owned(), process: None })
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("receiver.toml")
    }

    /// Starts `run`; its log goes to `receiver.log` and its lines to `lines.jsonl` in its folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(&mut self) -> io::Result<()> {
        let append = |name| fs::OpenOptions::new().create(true).append(true).open(self.folder.join(name));
        let mut command = self.command(&["run"]);
        command.stderr(append("receiver.log")?).stdout(append("lines.jsonl")?);
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

    /// Runs a command of the program on this configuration to its end.
    ///
    /// # Errors
    /// What the system said.
    pub fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        self.command(arguments).stdin(Stdio::null()).output()
    }

    /// What it logged.
    ///
    /// # Errors
    /// What the system said.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.folder.join("receiver.log"))
    }

    /// The lines that it printed, without one that is not whole.
    ///
    /// # Errors
    /// What the system said, or a line that is no JSON.
    pub fn lines(&self) -> io::Result<Vec<Value>> {
        let text = fs::read(self.folder.join("lines.jsonl"))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        json_lines(&text[..whole])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(receiver());
        command.arg("-c").arg(self.configuration()).args(arguments);
        command
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
    json_lines(&output.stdout)
}

/// Reads JSON lines.
///
/// # Errors
/// A line that is no JSON.
pub fn json_lines(text: &[u8]) -> io::Result<Vec<Value>> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| Ok(serde_json::from_slice(line)?))
        .collect()
}
