//! Opens what comes from the broker: messages to frames to records, JSON messages to lines.

mod schemas;

use rtlive_core::frame::{self, Contents, Header};
use rtlive_core::json::{self, Origin};
use rtlive_core::message::{Item, MessageReader, Reassembler, StreamError};
use serde_json::value::RawValue;

use schemas::Schemas;

/// Opens a stream of messages in a row.
#[derive(Default)]
pub struct Opener {
    reader: MessageReader,
    reassembler: Reassembler,
    schemas: Schemas,
}

/// What was opened.
#[derive(Debug)]
pub enum Opened {
    /// A whole frame.
    Frame {
        /// What its envelope says.
        header: Box<Header>,
        /// Its records.
        contents: Contents,
        /// Whether it was sent as history.
        historical: bool,
    },
    /// A JSON message: an object, or an array of them.
    Json(Vec<u8>),
}

/// Why something could not be opened. What came before and comes after is not touched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Bytes that are no message.
    #[error(transparent)]
    Stream(StreamError),
    /// A part that does not fit.
    #[error(transparent)]
    Message(rtlive_core::message::MessageError),
    /// A frame that is damaged, or of another version.
    #[error(transparent)]
    Frame(frame::FrameError),
}

impl Opener {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.reader.feed(bytes);
    }

    /// The next that is opened, or could not be; `None` until more is fed.
    pub fn next_opened(&mut self) -> Option<Result<Opened, OpenError>> {
        loop {
            if let Some(opened) = self.next_whole() {
                return Some(opened);
            }
            let item = self.reader.next_item()?;
            if let Some(opened) = self.open(item) {
                return Some(opened);
            }
        }
    }

    /// As [`Opener::next_opened`], knowing that no more bytes will come.
    pub fn finish(&mut self) -> Option<Result<Opened, OpenError>> {
        loop {
            if let Some(opened) = self.next_whole() {
                return Some(opened);
            }
            let item = self.reader.finish()?;
            if let Some(opened) = self.open(item) {
                return Some(opened);
            }
        }
    }

    /// How many frames wait for parts that have not come.
    pub fn frames_incomplete(&self) -> usize {
        self.reassembler.waiting()
    }

    /// How many frames could not be opened because their schema has not come.
    pub fn frames_without_schema(&self) -> usize {
        self.schemas.waiting()
    }

    /// `None` for a part of a frame whose other parts have not come, for a schema, and for a frame whose schema has not come.
    fn open(&mut self, item: Result<Item, StreamError>) -> Option<Result<Opened, OpenError>> {
        let message = match item {
            Ok(Item::Message(message)) => message,
            Ok(Item::Json(text)) => return Some(Ok(Opened::Json(text))),
            Err(error) => return Some(Err(OpenError::Stream(error))),
        };
        let taken = match self.reassembler.take(&message) {
            Ok(whole) => self.schemas.take(whole?),
            Err(error) => return Some(Err(OpenError::Message(error))),
        };
        match taken {
            Ok(()) => None,
            Err(error) => Some(Err(OpenError::Frame(error))),
        }
    }

    /// The next frame that is whole.
    fn next_whole(&mut self) -> Option<Result<Opened, OpenError>> {
        let whole = self.schemas.next_whole()?;
        let opened = frame::open(&whole.frame);
        let opened = opened.map(|(header, contents)| Opened::Frame {
            header: Box::new(header),
            contents,
            historical: whole.historical,
        });
        Some(opened.map_err(OpenError::Frame))
    }
}

impl Opened {
    /// Appends the records as JSON lines.
    pub fn write_lines(&self, out: &mut Vec<u8>) {
        match self {
            Self::Json(text) => write_json(out, text),
            Self::Frame { header, contents, historical } => {
                let epoch = header.origin.epoch.to_string();
                let origin = Origin::of_frame(&header.origin, &epoch, *historical);
                for (seq, record) in (header.first..).zip(&contents.records) {
                    json::write_record(out, &origin, seq, record, &contents.series, &contents.compute);
                    out.push(b'\n');
                }
            }
        }
    }
}

/// An array becomes a line for each of its elements; line breaks within an element go.
fn write_json(out: &mut Vec<u8>, text: &[u8]) {
    let elements: Result<Vec<&RawValue>, _> = serde_json::from_slice(text);
    let mut line = |text: &str| {
        out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        out.push(b'\n');
    };
    match elements {
        Ok(elements) => elements.iter().for_each(|element| line(element.get())),
        Err(_) => line(&String::from_utf8_lossy(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_messages_become_lines() {
        let mut opener = Opener::default();
        opener.feed(b"[{\"a\":1},\n {\"b\":\n2}]{\"c\":3}");
        let mut lines = Vec::new();
        while let Some(opened) = opener.next_opened() {
            opened.unwrap().write_lines(&mut lines);
        }
        assert_eq!(String::from_utf8(lines).unwrap(), "{\"a\":1}\n{\"b\": 2}\n{\"c\":3}\n");
    }
}
