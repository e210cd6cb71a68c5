//! Streams that the broker refuses: each is left alone for a while and then tried with one frame, so that it neither floods the
//! link nor holds up the others.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a stream is left alone after its first refusal.
pub(super) const WAIT_MIN: Duration = Duration::from_secs(1);
/// How long a stream is left alone at most. Each trial costs the link one frame, and a subscriber that comes back, or an access list
/// that is mended, is noticed after this time at the latest.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(120);

/// Why a broker did not take a message (MQTT 5.0, section 3.4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// 0x10: it was taken and thrown away, as nobody subscribes.
    NobodySubscribed,
    /// 0x87: the broker's access list denies the topic.
    NotAuthorized,
    /// 0x90: the topic is not accepted.
    TopicInvalid,
    /// 0x97: a quota of the broker is used up.
    QuotaExceeded,
    /// 0x99: the payload is not what the broker expects.
    PayloadInvalid,
    /// 0x80, 0x83, 0x91 and what is not known: the broker gives no better reason.
    Unspecified,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NobodySubscribed => "nobody at the broker subscribes to the topic",
            Self::NotAuthorized => "the broker's access list denies the topic",
            Self::TopicInvalid => "the broker does not accept the topic",
            Self::QuotaExceeded => "a quota of the broker is used up",
            Self::PayloadInvalid => "the broker does not accept the payload",
            Self::Unspecified => "the broker refused without a reason",
        })
    }
}

/// A stream that is refused at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The stream.
    pub stream: Arc<str>,
    /// Why, the last time.
    pub refusal: Refusal,
    /// When it is tried again, by the steady clock.
    pub until: Duration,
}

/// The streams that are refused at present.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    streams: BTreeMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    refusal: Refusal,
    wait: Duration,
    until: Duration,
    /// Whether a frame of it is on its way to find out.
    tried: bool,
}

impl Refusals {
    /// Notes a refusal. Several messages of one stream may be refused in a row; they count once.
    pub(super) fn refuse(&mut self, stream: &Arc<str>, refusal: Refusal, now: Duration) {
        match self.streams.get_mut(stream) {
            Some(entry) if now < entry.until => entry.refusal = refusal,
            Some(entry) => {
                let wait = entry.wait.saturating_mul(2).min(WAIT_MAX);
                *entry = Entry { refusal, wait, until: now.saturating_add(wait), tried: false };
            }
            None => {
                let until = now.saturating_add(WAIT_MIN);
                self.streams.insert(stream.clone(), Entry { refusal, wait: WAIT_MIN, until, tried: false });
            }
        }
    }

    /// Notes that a message of the stream was taken: it is free, and so is every stream that only lacked a subscriber.
    pub(super) fn accept(&mut self, stream: &str, now: Duration) {
        if self.streams.remove(stream).is_some() {
            for entry in self.streams.values_mut().filter(|entry| entry.refusal == Refusal::NobodySubscribed) {
                entry.until = entry.until.min(now);
            }
        }
    }

    /// Notes that a frame of the stream is sent.
    pub(super) fn send(&mut self, stream: &str) {
        if let Some(entry) = self.streams.get_mut(stream) {
            entry.tried = true;
        }
    }

    /// Whether no frame of the stream may be sent now.
    pub(super) fn holds(&self, stream: &str, now: Duration) -> bool {
        self.streams.get(stream).is_some_and(|entry| entry.tried || now < entry.until)
    }

    /// The streams that may not be sent now, by name.
    pub(super) fn held(&self, now: Duration) -> Arc<[Arc<str>]> {
        let held = self.streams.iter().filter(|(_, entry)| entry.tried || now < entry.until);
        held.map(|(stream, _)| stream.clone()).collect()
    }

    /// When the next stream may be tried that may not be now.
    pub(super) fn next_trial(&self, now: Duration) -> Option<Duration> {
        self.streams.values().filter(|entry| !entry.tried && now < entry.until).map(|entry| entry.until).min()
    }

    /// All of them, by name.
    pub(super) fn list(&self) -> impl Iterator<Item = Refused> + '_ {
        let refused = |(stream, entry): (&Arc<str>, &Entry)| Refused {
            stream: stream.clone(),
            refusal: entry.refusal,
            until: entry.until,
        };
        self.streams.iter().map(refused)
    }

    /// Forgets all: a new connection may be to a broker that was mended.
    pub(super) fn clear(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_left_alone_longer_and_longer_and_tried_with_one_frame() {
        let mut refusals = Refusals::default();
        let raw: Arc<str> = "raw".into();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..10 {
            refusals.refuse(&raw, Refusal::NotAuthorized, now);
            // A second message of the same moment changes nothing.
            refusals.refuse(&raw, Refusal::NotAuthorized, now);
            let until = refusals.next_trial(now).unwrap();
            waits.push((until - now).as_secs());
            assert!(refusals.holds("raw", now) && !refusals.holds("other", now));
            now = until;
            assert!(!refusals.holds("raw", now));
            refusals.send("raw");
            assert!(refusals.holds("raw", now), "one frame is enough to find out");
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]);
        refusals.accept("raw", now);
        assert!(!refusals.holds("raw", now));
    }

    #[test]
    fn a_subscriber_for_one_stream_is_a_reason_to_try_the_others() {
        let mut refusals = Refusals::default();
        let [a, b, c]: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        refusals.refuse(&a, Refusal::NobodySubscribed, Duration::ZERO);
        refusals.refuse(&b, Refusal::NobodySubscribed, Duration::ZERO);
        refusals.refuse(&c, Refusal::NotAuthorized, Duration::ZERO);
        let now = Duration::from_millis(10);
        refusals.accept("a", now);
        assert_eq!(&*refusals.held(now), &[c]);
    }
}
