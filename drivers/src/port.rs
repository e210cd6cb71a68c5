//! Ports: a serial line, or the TCP port of a device server, as one thing that bytes are read from and written to.
//!
//! [`PortOptions`] is the part of a driver's options, [`Port`] its checked form, [`OpenPort`] what [`Port::open`] gives. A serial
//! port belongs to one program at a time: it is opened with `TIOCEXCL` and `flock`, and a port that another program has open already
//! is refused, because two readers steal bytes from each other. Pseudo-terminals are ports too; there the program at the other end
//! may hold it open.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fs, io};

use rtlive_config::endpoint::HostPort;
use rtlive_config::reference::Reference;
use rtlive_config::table::Table;
use rtlive_config::value::Bounded;
use rtlive_config::{choices, options};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_serial::SerialStream;

use crate::input::InputError;
use crate::outlet::Session;

mod trouble;

/// How long a connection may take to come up: device servers on slow radio links need seconds, and after this nobody is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long a silence the peer's machine is asked whether it lives: a source may rightly be silent for longer.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
/// How often it is asked again.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many times in vain until the connection counts as dead: noticed within half a minute, through short losses.
const KEEP_ALIVE_COUNT: u32 = 3;
/// How long sent bytes may stay unacknowledged until the connection counts as dead; the system's own limit is a quarter of an hour.
const UNACKNOWLEDGED_MS_MAX: u32 = 20_000;
/// How long a few bytes may take to leave: the system buffers them, so that only a peer that takes nothing at all holds them up.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The major device numbers of pseudo-terminals (Linux, `Documentation/admin-guide/devices.txt`).
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

options! {
    /// Where a line is connected.
    pub struct PortOptions {
        /// The serial port; a name below `/dev/serial/by-id` stays with its adapter when others are plugged in. This or `tcp`.
        pub port: Option<PathBuf>,
        /// Host and port of a peer that speaks the same over TCP. This or `port`.
        pub tcp: Option<HostPort>,
        /// Bits per second.
        pub baud: Bounded<u32, 50, 4_000_000> = 9600,
        /// Bits in a character.
        pub data_bits: Bounded<u8, 5, 8> = 8,
        /// How the bits of a character are checked.
        pub parity: Parity = "none",
        /// Bits between characters.
        pub stop_bits: Bounded<u8, 1, 2> = 1,
        /// How a receiver that is too slow stops the sender.
        pub flow_control: FlowControl = "none",
    }
}

/// The keys that say how a serial port is set, and nothing to a TCP peer.
const LINE_KEYS: [&str; 5] = ["baud", "data_bits", "parity", "stop_bits", "flow_control"];

choices! {
    /// How the bits of a character are checked.
    pub enum Parity {
        /// Not at all.
        None = "none",
        /// By a bit that makes the number of ones even.
        Even = "even",
        /// By a bit that makes the number of ones odd.
        Odd = "odd",
    }
}

choices! {
    /// How a receiver that is too slow stops the sender.
    pub enum FlowControl {
        /// Not at all.
        None = "none",
        /// By the characters XOFF and XON; only for text.
        Software = "software",
        /// By the lines RTS and CTS.
        Hardware = "hardware",
    }
}

/// A port, checked.
#[derive(Clone, Debug)]
pub enum Port {
    /// A serial port.
    Serial(Line),
    /// A peer over TCP.
    Tcp(HostPort),
}

/// A serial port and how it is set.
#[derive(Clone, Debug)]
pub struct Line {
    path: PathBuf,
    baud: u32,
    data_bits: u8,
    parity: Parity,
    stop_bits: u8,
    flow_control: FlowControl,
}

impl PortOptions {
    /// Checks what the options say together; mistakes are noted in the table that they were read from.
    pub fn check(self, table: &Table<'_>) -> Option<Port> {
        match (self.port, self.tcp) {
            (Some(path), None) => Some(Port::Serial(Line {
                path,
                baud: self.baud.get(),
                data_bits: self.data_bits.get(),
                parity: self.parity,
                stop_bits: self.stop_bits.get(),
                flow_control: self.flow_control,
            })),
            (None, Some(peer)) => {
                for key in LINE_KEYS.into_iter().filter(|key| table.has(key)) {
                    table.warn(key, "says nothing about a peer over TCP, which sets its own line");
                }
                Some(Port::Tcp(peer))
            }
            (None, None) => {
                table.mistake("", "`port` or `tcp`", "neither");
                None
            }
            (Some(_), Some(_)) => {
                table.mistake("tcp", "`port` or `tcp`", "both");
                None
            }
        }
    }

    /// The reference of a driver that has these options and `own` ones; the doc is that of `own`.
    pub fn reference_with(own: Reference) -> Reference {
        Reference { doc: own.doc, ..Self::reference().with(own) }
    }
}

impl Line {
    /// How long one character is on the line: start bit, data, parity and stop bits.
    pub fn character(&self) -> Duration {
        let parity = u8::from(self.parity != Parity::None);
        Duration::from_secs(u64::from(1 + self.data_bits + parity + self.stop_bits)) / self.baud
    }
}

impl Port {
    /// Opens it.
    ///
    /// # Errors
    /// What the system or the peer said, with what the user can do about it.
    pub async fn open(&self) -> Result<OpenPort, InputError> {
        let (name, stream) = match self {
            Self::Serial(line) => (line.path.display().to_string(), Stream::Serial(line.open()?)),
            Self::Tcp(peer) => (peer.to_string(), Stream::Tcp(connect(peer).await?)),
        };
        Ok(OpenPort { name, stream })
    }
}

impl Line {
    fn open(&self) -> Result<SerialStream, InputError> {
        let failed = |cause: String, hint| {
            Err(InputError { doing: format!("open the serial port {}", self.path.display()), cause, hint })
        };
        let device = match fs::metadata(&self.path) {
            Ok(device) => device,
            Err(error) => {
                let hint = (error.kind() == io::ErrorKind::NotFound).then(|| trouble::ports_there(Path::new("/")));
                return failed(error.to_string(), hint);
            }
        };
        let (major, minor) = (rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev()));
        let subsystem = fs::read_link(format!("/sys/dev/char/{major}:{minor}/subsystem"));
        let is_other = subsystem.is_ok_and(|subsystem| !subsystem.ends_with("tty"));
        if !device.file_type().is_char_device() || is_other {
            return failed("it is none".into(), Some("expected a serial port such as /dev/ttyUSB0".into()));
        }
        // Before it is opened, which would change the settings under the other's feet.
        if !PSEUDO_TERMINALS.contains(&major)
            && let Some(hint) = trouble::shared_with(&self.path, &device)
        {
            return failed("another program has it open".into(), Some(hint));
        }
        let builder = tokio_serial::new(self.path.to_string_lossy(), self.baud)
            .data_bits(match self.data_bits {
                5 => tokio_serial::DataBits::Five,
                6 => tokio_serial::DataBits::Six,
                7 => tokio_serial::DataBits::Seven,
                _ => tokio_serial::DataBits::Eight,
            })
            .parity(match self.parity {
                Parity::None => tokio_serial::Parity::None,
                Parity::Even => tokio_serial::Parity::Even,
                Parity::Odd => tokio_serial::Parity::Odd,
            })
            .stop_bits(if self.stop_bits == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One })
            .flow_control(match self.flow_control {
                FlowControl::None => tokio_serial::FlowControl::None,
                FlowControl::Software => tokio_serial::FlowControl::Software,
                FlowControl::Hardware => tokio_serial::FlowControl::Hardware,
            });
        SerialStream::open(&builder).or_else(|error| {
            let hint = match error.kind() {
                tokio_serial::ErrorKind::Io(io::ErrorKind::PermissionDenied) => trouble::permission(&device),
                tokio_serial::ErrorKind::NoDevice => trouble::busy(&self.path, &device),
                _ => "expected a serial port; is there a UART behind this name?".into(),
            };
            failed(error.to_string(), Some(hint))
        })
    }
}

async fn connect(peer: &HostPort) -> Result<TcpStream, InputError> {
    let failed = |cause: String, hint: Option<&str>| InputError {
        doing: format!("connect to {peer}"),
        cause,
        hint: hint.map(Into::into),
    };
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect((peer.host.as_str(), peer.port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let hint = match error.kind() {
                io::ErrorKind::ConnectionRefused => Some("the machine is there, but nobody listens at this port"),
                _ => None,
            };
            return Err(failed(error.to_string(), hint));
        }
        Err(_) => {
            let cause = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            return Err(failed(cause, Some("is the peer switched on, and does no firewall stand between?")));
        }
    };
    let set = || -> rustix::io::Result<()> {
        sockopt::set_tcp_nodelay(&stream, true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEP_ALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEP_ALIVE_COUNT)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS_MAX)
    };
    set().map_err(|error| failed(format!("set keep-alive: {error}"), None))?;
    Ok(stream)
}

/// A port that is open.
#[derive(Debug)]
pub struct OpenPort {
    name: String,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Serial(SerialStream),
    Tcp(TcpStream),
}

impl OpenPort {
    /// Reads what there is, at least one byte, and shows it to `try --trace`. Dropped while it waits, it has read nothing.
    ///
    /// # Errors
    /// What the system said; the end of the stream too, since a line has none.
    pub async fn receive(&mut self, buffer: &mut [u8], session: &Session) -> Result<usize, InputError> {
        let cause = match self.read(buffer).await {
            Ok(count @ 1..) => {
                session.trace(false, buffer.get(..count).unwrap_or_default());
                return Ok(count);
            }
            Ok(0) => "the other end closed it".into(),
            Err(error) => error.to_string(),
        };
        let hint = matches!(self.stream, Stream::Serial(_)).then(|| "was the adapter unplugged?".into());
        Err(InputError { doing: format!("read from {}", self.name), cause, hint })
    }

    /// Writes the bytes, and shows them to `try --trace`. They may still be on their way when it returns.
    ///
    /// # Errors
    /// What the system said.
    pub async fn send(&mut self, bytes: &[u8], session: &Session) -> Result<(), InputError> {
        session.trace(true, bytes);
        let (cause, hint) = match timeout(SEND_TIMEOUT, self.write_all(bytes)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => (error.to_string(), None),
            Err(_) => {
                let cause = format!("nothing was taken for {} s", SEND_TIMEOUT.as_secs());
                (cause, Some("does flow control hold it back?".into()))
            }
        };
        Err(InputError { doing: format!("write to {}", self.name), cause, hint })
    }

    /// Its path or address, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsyncRead for OpenPort {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Serial(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for OpenPort {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Serial(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Nothing is kept back here; a serial port's own flush would block until the last bit is on the line.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Serial(_) => Poll::Ready(Ok(())),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
