//! `serial`: instruments that say what they measure in lines of text, on a serial line or over TCP: scales, meters, loggers, modules
//! with a program of one's own.
//!
//! Wiring: RS-232 needs a converter or a real port, 3.3 V UARTs connect crosswise and share ground. Which line an instrument speaks
//! (baud, bits, parity) stands on its type plate or in its menu. `rtlive try NAME --trace` shows the bytes: with the wrong baud rate
//! they are noise, with the wrong parity most of them look shifted.
//!
//! A line ends with a line feed, before which a carriage return does not count. An instrument that speaks only when asked is sent
//! `poll` at multiples of the wall clock; a poll without any answer before the next is counted as `timeouts`.

use std::time::Duration;

use rtlive_config::quantity::{ByteCount, Period};
use rtlive_config::table::Table;
use rtlive_config::{choices, options};

use crate::fields::{Fields, LineDecoder, LineOptions};
use crate::input::{CheckedInput, Decoder, Driver, Input, Running};
use crate::listen::{Question, listen};
use crate::outlet::Session;
use crate::port::{Port, PortOptions};

/// The resolution of the time of an answer: a serial line and the system's way from it to here are not better.
const ANSWER_RESOLUTION: Duration = Duration::from_millis(1);

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "serial",
    summary: "lines of text from a serial port: csv, json, or found by a regular expression",
    example: r#"[inputs.scale]
driver = "serial"
port = "/dev/ttyS1"
framing = "lines"
format = "regex"
pattern = '^(?P<stable>ST|US),(?P<weight>[-+0-9.]+)kg'
fields = [{ series = "weight", group = "weight", type = "f64", unit = "kg" }]
"#,
    options: || PortOptions::reference_with(SerialOptions::reference().with(LineOptions::reference())),
    check,
};

choices! {
    /// What ends a message.
    pub enum Framing {
        /// A line feed.
        Lines = "lines",
    }
}

options! {
    /// Lines of text from a serial port.
    pub struct SerialOptions {
        /// What ends a message.
        pub framing: Framing = "lines",
        /// The longest line that is taken; longer ones are counted and skipped.
        pub max_line: ByteCount = "4 KiB",
        /// What is sent to make the instrument speak, with its line end: `"SI\r\n"`. Absent: it speaks by itself.
        pub poll: Option<String>,
        /// How often `poll` is sent, at multiples of the wall clock.
        pub every: Option<Period>,
    }
}

fn check(table: &Table<'_>) -> Option<CheckedInput> {
    let port = PortOptions::read_part(table);
    let options = SerialOptions::read_part(table);
    let lines = LineOptions::read_part(table);
    table.close();
    let port = port.and_then(|port| port.check(table));
    let fields = lines.as_ref().and_then(|lines| Fields::check(lines, table));
    let options = options?;
    let every = options.every.map(|every| every.0);
    let question = match (options.poll, every) {
        (None, None) => None,
        (Some(poll), Some(every)) => Some(Question { bytes: poll.into_bytes(), every }),
        (Some(_), None) => {
            table.mistake("poll", "`every` beside it", "none");
            return None;
        }
        (None, Some(_)) => {
            table.mistake("every", "`poll` beside it: without one the instrument speaks when it likes", "none");
            return None;
        }
    };
    let (port, fields) = (port?, fields?);
    let series = fields.series();
    let line_bytes_max = usize::try_from(options.max_line.0).unwrap_or(usize::MAX);
    Some(CheckedInput {
        input: Box::new(SerialInput { port, question, line_bytes_max, fields }),
        polled: every.is_some(),
        every,
        can_be_asked_again: false,
        readings_per_second: every.map(|every| series.len() as f64 / every.as_secs_f64()),
        series,
        has_others: false,
    })
}

/// An input, checked.
struct SerialInput {
    port: Port,
    question: Option<Question>,
    line_bytes_max: usize,
    fields: Fields,
}

impl Input for SerialInput {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(async {
            let mut decoder = self.line_decoder();
            listen(&self.port, self.question.as_ref(), &mut decoder, session).await
        })
    }

    fn decoder(&self) -> Option<Box<dyn Decoder>> {
        Some(Box::new(self.line_decoder()))
    }
}

impl SerialInput {
    fn line_decoder(&self) -> LineDecoder {
        let resolution = if self.question.is_some() { ANSWER_RESOLUTION } else { Duration::ZERO };
        LineDecoder::new(&self.fields, self.line_bytes_max, resolution)
    }
}

#[cfg(test)]
mod tests {
    use rtlive_core::reading::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::rig::{Rig, checked, session, shared};

    const SCALE: &str = r#"
        format = "regex"
        pattern = '^(?P<weight>[-+][0-9.]+) G (?P<state>[SUE])$'
        fields = [
          { series = "weight", group = "weight", type = "f64", unit = "g" },
          { series = "state", group = "state", type = "text" },
        ]
    "#;

    /// The lines of a real scale: stable, unstable, and overloaded, which it tells by an E behind a weight of zero.
    #[test]
    fn a_real_scale_is_read() {
        let Some(capture) = shared("serial-wire/kern_scale_various_1200_8n2.bin") else { return };
        let bytes = std::fs::read(capture).unwrap();
        let input =
            checked(&DRIVER, &format!("port = '/dev/null'\nbaud = 1200\nstop_bits = 2\n{SCALE}")).unwrap().input;
        let mut decoder = input.decoder().unwrap();
        let (mut session, ..) = session(Default::default());
        for byte in bytes.chunks(1) {
            decoder.take(byte, &mut session);
        }
        let batch = session.take(session.now(), false).unwrap().batch;
        let whole_lines = bytes.len() / 14;
        assert_eq!((batch.readings.len(), batch.rejected), (2 * whole_lines, Vec::new()));
        let weights = batch.readings.iter().filter_map(|reading| reading.value.as_number());
        assert_eq!(weights.fold(0.0, f64::max), 5616.66);
        let unstable = batch.readings.iter().filter(|reading| reading.value == Value::Text("U".into())).count();
        let written = bytes.split(|byte| *byte == b'\n').filter(|line| line.ends_with(b"U\r")).count();
        assert_eq!(unstable, written);
    }

    #[tokio::test]
    async fn an_instrument_is_asked_and_its_silence_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut rig = Rig::new(&DRIVER, &format!("tcp = '{address}'\npoll = \"SI\\r\\n\"\nevery = '20ms'\n{SCALE}"));
        rig.start();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut question = [0; 4];
        // In two parts, the second of which ends the line.
        for answer in ["+0001.50 G S\r\n+0002", ".50 G U\r\n", "?\r\n"] {
            peer.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"SI\r\n");
            peer.write_all(answer.as_bytes()).await.unwrap();
        }
        rig.commit_until(|rig| rig.readings.len() == 4 && rig.rejected.len() == 1).await;
        let values: Vec<_> = rig.readings.iter().map(|reading| reading.value.to_string()).collect();
        assert_eq!(values, ["1.5", "S", "2.5", "U"]);
        assert_eq!(rig.rejected.get("no_match"), Some(&1));
        assert!(rig.readings.iter().all(|reading| reading.time.as_nanos() % 1_000_000 == 0));
        rig.health_until(|health| health.counters.get("timeouts").is_some_and(|count| *count >= 2)).await;
        drop((peer, listener));
        let health = rig.health_until(|health| health.state == "waiting").await;
        assert!(health.error.unwrap().contains(&address.to_string()));
        rig.stop().await;
    }

    #[test]
    fn mistakes_in_the_options_are_named() {
        for (options, mistake) in [
            ("", "`port` or `tcp`"),
            ("port = 'p'\npoll = 'x'", "`every` beside it"),
            ("port = 'p'\nevery = '1s'", "`poll` beside it"),
            ("port = 'p'\nframing = 'telegrams'", "\"lines\""),
        ] {
            let mistakes = checked(&DRIVER, &format!("{options}\n{SCALE}")).err().unwrap();
            assert!(mistakes.contains(mistake), "{options}: {mistakes}");
        }
    }
}
