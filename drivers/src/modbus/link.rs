//! The link: one request and its answer at a time, on a serial line or over TCP.

use std::time::Duration;

use rtlive_core::time::Timestamp;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Framing;
use super::frame::{Answer, Fault, Heard, RTU_BYTES_MAX, Request, TCP_BYTES_MAX};
use crate::input::InputError;
use crate::outlet::Session;
use crate::port::{OpenPort, Port};

/// The silence between frames, in tenths of characters (Modbus over Serial Line V1.02, section 2.5.1.1).
const SILENCE_CHARACTERS_TENTHS: u32 = 35;
/// The shortest such silence, which the specification fixes for lines above 19200 bit/s.
const SILENCE_MIN: Duration = Duration::from_micros(1_750);
/// How long a response may pause between bytes. The specification allows 1.5 characters, but USB adapters deliver in lumps.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long the line may take to fall silent before a request goes out all the same: as long as two of the longest frames take at 9600 bit/s.
const SETTLE_MAX: Duration = Duration::from_millis(550);
/// How much is heard of a response before it counts as garbage: an echo and the longest frame, with room for noise.
const HEARD_BYTES_MAX: usize = 2 * RTU_BYTES_MAX;
/// How much is fetched from a port at once.
const CHUNK_BYTES: usize = 512;

/// The resolution of the time of a reading.
const TIME_RESOLUTION: Duration = Duration::from_millis(1);

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The data, and when their last byte arrived, to the millisecond.
    Data(Vec<u8>, Timestamp),
    /// The device answered with an exception code.
    Exception(u8),
    /// No answer.
    Fault(Fault),
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// From the end of a request to the first byte of its answer.
    pub(super) timeout: Duration,
    /// The least silence before a request.
    pub(super) pause: Duration,
}

/// An open connection to the devices.
pub(super) struct Link {
    port: OpenPort,
    framing: Framing,
    timing: Timing,
    /// How long a character is on the line.
    character: Duration,
    /// When the last byte was sent or heard.
    active: Instant,
    /// Over TCP: the number of the last request, and what was heard and is not yet a frame.
    transaction: u16,
    heard: Vec<u8>,
    /// Whether frames cannot be told apart any more: the link must be opened anew.
    pub(super) is_lost: bool,
    /// How many requests in a row nobody answered.
    pub(super) unanswered: u32,
}

impl Link {
    /// Opens the port.
    ///
    /// # Errors
    /// As [`Port::open`].
    pub(super) async fn open(port: &Port, framing: Framing, timing: Timing) -> Result<Self, InputError> {
        let character = match port {
            Port::Serial(line) => line.character(),
            Port::Tcp(_) => Duration::ZERO,
        };
        Ok(Self {
            port: port.open().await?,
            framing,
            timing,
            character,
            active: Instant::now(),
            transaction: 0,
            heard: Vec::new(),
            is_lost: false,
            unanswered: 0,
        })
    }

    /// Sends a request and waits for what becomes of it.
    ///
    /// # Errors
    /// Those of the port; the link is of no use then.
    pub(super) async fn ask(&mut self, request: Request, session: &Session) -> Result<Outcome, InputError> {
        let outcome = match self.framing {
            Framing::Rtu => self.ask_rtu(request, session).await?,
            Framing::Tcp => self.ask_tcp(request, session).await?,
        };
        match outcome {
            Outcome::Fault(Fault::Silent) => self.unanswered += 1,
            _ => self.unanswered = 0,
        }
        Ok(outcome)
    }

    async fn ask_rtu(&mut self, request: Request, session: &Session) -> Result<Outcome, InputError> {
        self.settle(session).await?;
        let frame = request.rtu();
        self.port.send(&frame, session).await?;
        let sent = self.character * u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut deadline = Instant::now() + sent + self.timing.timeout;
        // A device that goes on and on is heard no longer than the longest response takes.
        let pause = PAUSE_MAX.max(silence(self.character));
        let latest = deadline + self.character * u32::try_from(RTU_BYTES_MAX).unwrap_or(u32::MAX) + pause;
        let mut heard = Vec::new();
        while heard.len() < HEARD_BYTES_MAX {
            let mut chunk = [0; CHUNK_BYTES];
            let received = tokio::select! {
                biased;
                received = self.port.receive(&mut chunk, session) => received?,
                () = sleep_until(deadline.min(latest)) => break,
            };
            self.active = Instant::now();
            let arrival = session.now().floor(TIME_RESOLUTION);
            heard.extend_from_slice(chunk.get(..received).unwrap_or_default());
            if let Some(answer) = request.find_rtu(&heard) {
                return Ok(outcome(answer, &heard, arrival));
            }
            deadline = deadline.max(self.active + pause);
        }
        self.active = Instant::now();
        Ok(Outcome::Fault(request.fault_rtu(&heard)))
    }

    /// Waits until the line has been silent for long enough; what is heard meanwhile answers nothing that is still asked.
    async fn settle(&mut self, session: &Session) -> Result<(), InputError> {
        let silence = silence(self.character).max(self.timing.pause);
        let latest = Instant::now() + silence.max(SETTLE_MAX);
        let mut is_stale = false;
        loop {
            let mut chunk = [0; CHUNK_BYTES];
            let silent = latest.min(self.active + silence);
            match timeout_at(silent, self.port.receive(&mut chunk, session)).await {
                Ok(received) => received?,
                Err(_) => break,
            };
            is_stale = true;
            self.active = Instant::now();
            if self.active >= latest {
                break;
            }
        }
        if is_stale {
            session.count("unexpected", 1);
        }
        Ok(())
    }

    async fn ask_tcp(&mut self, request: Request, session: &Session) -> Result<Outcome, InputError> {
        sleep_until(self.active + self.timing.pause).await;
        self.transaction = self.transaction.wrapping_add(1);
        self.port.send(&request.tcp(self.transaction), session).await?;
        let deadline = Instant::now() + self.timing.timeout;
        loop {
            match request.hear_tcp(self.transaction, &self.heard) {
                Heard::Part => {}
                Heard::Answer(answer, end) => {
                    let arrival = session.now().floor(TIME_RESOLUTION);
                    let outcome = outcome(answer, &self.heard, arrival);
                    self.heard.drain(..end);
                    return Ok(outcome);
                }
                Heard::Other(end) => {
                    // Mostly the answer to a request that was given up.
                    session.count("unexpected", 1);
                    self.heard.drain(..end);
                    if Instant::now() >= deadline {
                        return Ok(Outcome::Fault(Fault::Silent));
                    }
                    continue;
                }
                Heard::Lost => {
                    self.is_lost = true;
                    return Ok(Outcome::Fault(Fault::Garbage));
                }
            }
            let mut chunk = [0; TCP_BYTES_MAX];
            let received = tokio::select! {
                biased;
                received = self.port.receive(&mut chunk, session) => received?,
                () = sleep_until(deadline) => return Ok(Outcome::Fault(Fault::Silent)),
            };
            self.active = Instant::now();
            self.heard.extend_from_slice(chunk.get(..received).unwrap_or_default());
        }
    }
}

/// The silence that separates frames on a line on which a character takes so long.
pub(super) fn silence(character: Duration) -> Duration {
    (character * SILENCE_CHARACTERS_TENTHS / 10).max(SILENCE_MIN)
}

fn outcome(answer: Answer, heard: &[u8], arrival: Timestamp) -> Outcome {
    match answer {
        Answer::Data(data) => Outcome::Data(heard.get(data).unwrap_or_default().to_vec(), arrival),
        Answer::Exception(code) => Outcome::Exception(code),
    }
}
