//! Listening at a port: what it says goes through a decoder, as it comes; devices that speak only when asked are asked.

use std::time::Duration;

use tokio::time::sleep;

use crate::input::{Decoder, InputError};
use crate::outlet::Session;
use crate::port::Port;

/// How many bytes are taken at once: what a line at 115,200 baud brings in a third of a second.
const BYTES_AT_ONCE: usize = 4096;

/// What makes a device speak.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The bytes that are sent.
    pub(crate) bytes: Vec<u8>,
    /// How often, at multiples of the wall clock.
    pub(crate) every: Duration,
}

/// Opens the port, and decodes what it says until it fails or the program stops.
///
/// # Errors
/// What the port's operations say.
pub(crate) async fn listen(
    port: &Port,
    question: Option<&Question>,
    decoder: &mut dyn Decoder,
    session: &mut Session,
) -> Result<(), InputError> {
    let mut port = port.open().await?;
    {
        let mut health = session.health();
        health.state = "running";
        health.error = None;
    }
    let mut buffer = vec![0; BYTES_AT_ONCE];
    let mut due = question.map(|question| session.now().next_multiple(question.every));
    let mut is_waiting = false;
    loop {
        let now = session.now();
        if let (Some(at), Some(question)) = (due, question)
            && at.since(now) > question.every
        {
            // The clock was set back.
            due = Some(now.next_multiple(question.every));
        }
        let wait = due.map(|due| due.since(now));
        let received = tokio::select! {
            biased;
            () = session.stopping() => return Ok(()),
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => None,
            received = port.receive(&mut buffer, session) => Some(received?),
        };
        match (received, question) {
            (Some(count), _) => {
                decoder.take(buffer.get(..count).unwrap_or_default(), session);
                is_waiting = false;
                if session.deliver(session.now(), false).await.is_err() {
                    return Ok(());
                }
            }
            (None, Some(question)) => {
                if is_waiting {
                    session.count("timeouts", 1);
                }
                port.send(&question.bytes, session).await?;
                is_waiting = true;
                due = Some(session.now().next_multiple(question.every));
            }
            (None, None) => {}
        }
    }
}
