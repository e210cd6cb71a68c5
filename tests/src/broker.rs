//! A real mosquitto on a free port of the loopback.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::peer::{Peer, free_port, installed, until};

/// A mosquitto that can be killed and started again on the same port with the same state.
pub struct Mosquitto {
    /// Its port.
    pub port: u16,
    program: PathBuf,
    configuration: PathBuf,
    process: Option<Peer>,
}

impl Mosquitto {
    /// Starts one with its files in `folder` and these lines of configuration besides the listener; `None` where it is not installed.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(folder: &Path, lines: &str) -> io::Result<Option<Self>> {
        let Some(program) = installed("mosquitto") else { return Ok(None) };
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        let configuration = folder.join("mosquitto.conf");
        let anonymous = if lines.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let base = format!("user root\nlistener {port} 127.0.0.1\n{anonymous}set_tcp_nodelay true\n");
        fs::write(&configuration, base + lines)?;
        let mut broker = Self { port, program, configuration, process: None };
        broker.restart()?;
        Ok(Some(broker))
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends it without a word, as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it from answering while its connections stay open.
    pub fn hang(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    /// Lets it answer again.
    pub fn wake(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    /// Starts it again, and waits until it listens.
    ///
    /// # Errors
    /// What the system said.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&self.configuration).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Peer::start(&mut command)?);
        until("mosquitto listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        Ok(())
    }

    /// A mosquitto_sub on `filter` that writes to a file in `folder`: with `-N`, so that the file is messages in a row.
    ///
    /// # Errors
    /// What the system said.
    pub fn subscribe(&self, filter: &str, id: &str, output: &Path) -> io::Result<Option<Peer>> {
        let Some(program) = installed("mosquitto_sub") else { return Ok(None) };
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-i", id, "-c", "-q", "1", "-N", "-t", filter]);
        command.stdout(fs::OpenOptions::new().create(true).append(true).open(output)?);
        Ok(Some(Peer::start(&mut command)?))
    }
}
