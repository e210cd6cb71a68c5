//! The subscriber of the demo: opens what arrives, and keeps account of every number.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::frame::{Contents, Header};

use crate::opener::{Opened, Opener};

/// Numbers as intervals: first number → last. Numbers that follow each other are one, so that days of records are a few bytes.
#[derive(Clone, Debug, Default)]
struct Numbers(BTreeMap<u64, u64>);

/// What arrived for the first time.
#[derive(Debug)]
pub enum Arrived {
    /// A frame; none of its records was here before.
    Frame {
        /// What its envelope says.
        header: Box<Header>,
        /// Its records.
        contents: Contents,
    },
    /// The agent's status, as JSON.
    Status(String),
}

/// Opens messages, and counts what they hold by stream.
#[derive(Default)]
pub struct Subscriber {
    opener: Opener,
    numbers: BTreeMap<Arc<str>, Numbers>,
    again: u64,
    faults: u64,
}

impl Subscriber {
    /// Takes the payload of a message, and returns what it brought. A frame that came before is counted and not returned.
    pub fn take(&mut self, message: &[u8]) -> Vec<Arrived> {
        self.opener.feed(message);
        let mut arrived = Vec::new();
        while let Some(opened) = self.opener.next_opened() {
            match opened {
                Ok(Opened::Frame { header, contents, .. }) => {
                    let numbers = self.numbers.entry(header.origin.stream.clone()).or_default();
                    if numbers.insert(header.first, header.last()) {
                        arrived.push(Arrived::Frame { header, contents });
                    } else {
                        self.again += u64::from(header.count);
                    }
                }
                Ok(Opened::Json(text)) => arrived.push(Arrived::Status(String::from_utf8_lossy(&text).into_owned())),
                Err(error) => {
                    tracing::error!(%error, "the subscriber cannot open a message");
                    self.faults += 1;
                }
            }
        }
        arrived
    }

    /// How many records of a stream are here, each counted once.
    pub fn records(&self, stream: &str) -> u64 {
        self.numbers.get(stream).map_or(0, Numbers::count)
    }

    /// How many records came more than once: they were sent again because their acknowledgement was lost with the connection.
    pub fn records_again(&self) -> u64 {
        self.again
    }

    /// How many messages could not be opened.
    pub fn faults(&self) -> u64 {
        self.faults
    }
}

impl Numbers {
    /// Adds `first..=last`; `false`, and nothing is changed, when one of them is there. A frame never changes, so that all of it is.
    fn insert(&mut self, first: u64, last: u64) -> bool {
        let before = self.0.range(..=last).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, end)| end >= first) {
            return false;
        }
        let start = match before {
            Some((start, end)) if end.checked_add(1) == Some(first) => start,
            _ => first,
        };
        let end = last.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(last);
        self.0.insert(start, end);
        true
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_once_in_whatever_order_they_come() {
        let mut numbers = Numbers::default();
        for (first, last, is_new) in
            [(1, 3, true), (7, 9, true), (4, 6, true), (4, 6, false), (1, 3, false), (20, 20, true)]
        {
            assert_eq!(numbers.insert(first, last), is_new, "{first}..={last}");
        }
        assert_eq!(numbers.count(), 10);
        assert_eq!(numbers.0, BTreeMap::from([(1, 9), (20, 20)]));
    }
}
