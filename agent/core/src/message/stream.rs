//! Messages in a row, as `mosquitto_sub -N` writes them: messages of frames and JSON texts without anything between them.
//!
//! **Architecture invariant:** the reader never waits for more than one item's bound, and after bytes that are neither it goes on at
//! the next place where a message or a JSON text can begin, with one error that says from where to where it skipped.

use super::{MAGIC, MESSAGE_BYTES_MAX, Message, MessageError, intact};

/// The longest JSON text in bytes; the longest frame as JSON is split by its sender.
pub const JSON_BYTES_MAX: usize = 4 << 20;

/// What lies between the boundaries that the reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A message of a frame or a part of one, for [`super::Reassembler::take`].
    Message(Vec<u8>),
    /// A JSON object or array; only its brackets and strings were looked at.
    Json(Vec<u8>),
}

/// Bytes that are neither a message nor JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("skip bytes {from} to {to}")]
pub struct StreamError {
    /// The offset of the first of them in the stream.
    pub from: u64,
    /// The offset after the last of them.
    pub to: u64,
    /// What was wrong with the first.
    #[source]
    pub why: StreamFault,
}

/// What was wrong with bytes that were skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// No item begins like this.
    #[error("expected a message or JSON, found byte {0:#04x}")]
    Unknown(u8),
    /// It began like a message.
    #[error(transparent)]
    Message(MessageError),
    /// It began like JSON.
    #[error("expected JSON text of at most {JSON_BYTES_MAX} bytes with its brackets closed")]
    Json,
    /// The stream ended within an item.
    #[error("expected the rest of a message or JSON text, found the end")]
    End,
}

/// Finds items in a stream of bytes that comes in pieces of any size.
///
/// Feed it with [`MessageReader::feed`], and ask [`MessageReader::next_item`] until there is none; at the end of the stream ask
/// [`MessageReader::finish`] until there is none. Memory is bounded by the longest item and what is fed at once.
#[derive(Clone, Debug, Default)]
pub struct MessageReader {
    bytes: Vec<u8>,
    /// How many of `bytes` are done with.
    done: usize,
    /// The offset in the stream of the first of `bytes`.
    offset: u64,
    /// Where skipping began, and why.
    skipping: Option<(u64, StreamFault)>,
    json: JsonScan,
}

/// How far a JSON text was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct JsonScan {
    length: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

enum Scan {
    Whole(usize),
    Partial,
    Bad,
}

impl JsonScan {
    /// Goes on over `bytes`, which begin with the text.
    fn scan(&mut self, bytes: &[u8]) -> Scan {
        while let Some(&byte) = bytes.get(self.length) {
            self.length += 1;
            match byte {
                // No UTF-8 text has this pair, and every message begins with it.
                0xd9 if self.length > 1 && bytes.get(self.length - 2) == Some(&0xd9) => {
                    self.length -= 2;
                    return Scan::Bad;
                }
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                0..=0x1f if self.in_string || !byte.is_ascii_whitespace() => return Scan::Bad,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Scan::Whole(self.length);
                    }
                }
                0x7f.. => return Scan::Bad,
                _ => {}
            }
            if self.length >= JSON_BYTES_MAX {
                return Scan::Bad;
            }
        }
        Scan::Partial
    }
}

impl MessageReader {
    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        // What is done with is dropped here, once a piece, rather than once an item.
        self.bytes.drain(..self.done);
        self.offset += self.done as u64;
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next item or error; `None` until more bytes are fed.
    pub fn next_item(&mut self) -> Option<Result<Item, StreamError>> {
        self.step(false)
    }

    /// As [`MessageReader::next_item`], knowing that no more bytes will come.
    pub fn finish(&mut self) -> Option<Result<Item, StreamError>> {
        self.step(true)
    }

    /// The offset in the stream behind the last item or error.
    pub const fn position(&self) -> u64 {
        self.offset + self.done as u64
    }

    fn step(&mut self, at_end: bool) -> Option<Result<Item, StreamError>> {
        loop {
            let rest = self.bytes.get(self.done..).unwrap_or_default();
            let Some(&byte) = rest.first() else { return if at_end { self.skipped() } else { None } };
            let found = if self.skipping.is_some() && !may_begin(rest, at_end) {
                Found::Nothing(StreamFault::Unknown(byte))
            } else {
                look(rest, &mut self.json)
            };
            match found {
                Found::Item(item) => {
                    // The bytes skipped so far are told first; the item is found again by the next call.
                    if let Some(error) = self.skipped() {
                        self.json = JsonScan::default();
                        return Some(error);
                    }
                    self.json = JsonScan::default();
                    self.done += item.len();
                    return Some(Ok(item));
                }
                Found::Space => self.done += 1,
                Found::Partial if !at_end => return None,
                Found::Partial => self.skip(StreamFault::End),
                Found::Nothing(fault) => {
                    // No message begins within what was looked at as JSON, and looking at it again and again would take long.
                    let looked_at = if fault == StreamFault::Json { self.json.length } else { 0 };
                    self.skip(fault);
                    self.done += looked_at.saturating_sub(1);
                }
            }
        }
    }

    /// Passes over one byte that begins nothing.
    fn skip(&mut self, fault: StreamFault) {
        let here = self.position();
        self.skipping.get_or_insert((here, fault));
        self.json = JsonScan::default();
        self.done += 1;
    }

    fn skipped(&mut self) -> Option<Result<Item, StreamError>> {
        let (from, why) = self.skipping.take()?;
        Some(Err(StreamError { from, to: self.position(), why }))
    }
}

enum Found {
    Item(Item),
    /// White space between items.
    Space,
    /// The beginning of an item.
    Partial,
    Nothing(StreamFault),
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Message(bytes) | Self::Json(bytes) => bytes.len(),
        }
    }
}

/// Whether, after bytes that were neither, an item may begin here. A lone bracket is too common in noise.
fn may_begin(rest: &[u8], at_end: bool) -> bool {
    [&MAGIC[..], b"{\"", b"[{\"", b"{}", b"[]"].iter().any(|start| {
        let common = start.len().min(rest.len());
        rest.get(..common) == start.get(..common) && (common == start.len() || !at_end)
    })
}

fn look(rest: &[u8], json: &mut JsonScan) -> Found {
    match rest.first() {
        Some(&first) if first == MAGIC[0] => {
            let window = rest.get(..MESSAGE_BYTES_MAX).unwrap_or(rest);
            match Message::parse_first(window) {
                // Where the length was altered, the bytes after it tell: the frame in it is not intact.
                Ok((message, _)) if message.count == 1 && !intact(message.part) => {
                    Found::Nothing(StreamFault::Message(MessageError::Checksum(message.checksum)))
                }
                Ok((_, length)) => Found::Item(Item::Message(rest.get(..length).unwrap_or(rest).to_vec())),
                Err(MessageError::Truncated(_)) if rest.len() < MESSAGE_BYTES_MAX => Found::Partial,
                Err(error) => Found::Nothing(StreamFault::Message(error)),
            }
        }
        Some(b'{' | b'[') => match json.scan(rest) {
            Scan::Whole(length) => {
                let text = rest.get(..length).unwrap_or(rest);
                if std::str::from_utf8(text).is_ok() {
                    Found::Item(Item::Json(text.to_vec()))
                } else {
                    Found::Nothing(StreamFault::Json)
                }
            }
            Scan::Partial => Found::Partial,
            Scan::Bad => Found::Nothing(StreamFault::Json),
        },
        Some(b' ' | b'\t' | b'\r' | b'\n') => Found::Space,
        Some(&other) => Found::Nothing(StreamFault::Unknown(other)),
        None => Found::Partial,
    }
}
