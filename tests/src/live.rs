//! `rtlive try` at a live port: a pseudo-terminal at whose other end a test speaks as the device.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::{Cable, Peer, until};
use crate::program::rtlive;

/// A device's end of a cable, at whose other end `rtlive try` reads.
pub struct LiveTry {
    device: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
    process: Peer,
    _cable: Cable,
}

impl LiveTry {
    /// Lays a cable and tries the input of this configuration, in which `{port}` is the port, until it has given so many readings.
    /// Returns when the port is open; for that it has received some lines that hold only a `#`. `None` where socat is not installed.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(folder: &Path, configuration: &str, input: &str, count: usize) -> io::Result<Option<Self>> {
        let (device, port) = (folder.join("device"), folder.join("port"));
        let Some(cable) = Cable::lay(&device, &port)? else { return Ok(None) };
        let path = folder.join("live.toml");
        fs::write(&path, configuration.replace("{port}", &port.to_string_lossy()))?;
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let mut command = Command::new(rtlive());
        command.arg("-c").arg(path).args(["try", input, "--trace", "--count", &count.to_string()]);
        command.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let process = Peer::start(&mut command)?;
        let live = Self { device, stdout, stderr, process, _cable: cable };
        // What is sent before the port is open may be lost: what arrives first is seen in the trace.
        until("the port is open", || {
            let is_sent = fs::write(&live.device, "#\n").is_ok();
            is_sent && fs::read_to_string(&live.stderr).is_ok_and(|trace| trace.contains("< 23"))
        });
        Ok(Some(live))
    }

    /// What is written here arrives at the port.
    ///
    /// # Errors
    /// What the system said.
    pub fn device(&self) -> io::Result<File> {
        File::options().write(true).open(&self.device)
    }

    /// Waits until all readings are there, and gives what was printed: readings and diagnostics.
    ///
    /// # Errors
    /// What the system said.
    pub fn finish(mut self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        until("all readings are printed", || !self.process.is_running());
        Ok((fs::read(&self.stdout)?, fs::read(&self.stderr)?))
    }
}
