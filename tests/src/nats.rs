//! A real NATS server on free ports of the loopback, with JetStream and MQTT.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peer::{Peer, free_port, installed, until};

/// A NATS server that can be killed and started again on the same ports with the same state.
pub struct Nats {
    /// The port for clients of NATS.
    pub port: u16,
    /// The port for clients of MQTT.
    pub mqtt_port: u16,
    program: PathBuf,
    configuration: PathBuf,
    process: Option<Peer>,
}

impl Nats {
    /// Starts one with its files in `folder`; `None` where it is not installed.
    ///
    /// # Errors
    /// What the system said.
    pub fn start(folder: &Path) -> io::Result<Option<Self>> {
        let Some(program) = installed("nats-server") else { return Ok(None) };
        fs::create_dir_all(folder)?;
        let (port, mqtt_port) = (free_port()?, free_port()?);
        let configuration = folder.join("nats.conf");
        let store = folder.join("store");
        let text = format!(
            "server_name: centre\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?} }}\n\
             mqtt {{ listen: \"127.0.0.1:{mqtt_port}\" }}\n"
        );
        fs::write(&configuration, text)?;
        let mut server = Self { port, mqtt_port, program, configuration, process: None };
        server.restart()?;
        Ok(Some(server))
    }

    /// The URL for clients of NATS.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The URL for clients of MQTT.
    pub fn mqtt_url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.mqtt_port)
    }

    /// Ends it without a word. What it has handed to the system survives, as it would not survive a power cut.
    pub fn kill(&mut self) {
        self.process = None;
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
        // MQTT is what it opens last.
        until("the NATS server listens", || TcpStream::connect(("127.0.0.1", self.mqtt_port)).is_ok());
        Ok(())
    }
}
