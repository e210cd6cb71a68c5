//! The subscriber at the centre: notes of each record that it came, and of alerts when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rtlive::clock::SystemClock;
use rtlive::opener::{Opened, Opener};
use rtlive_core::record::Record;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::Clock;
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};

use crate::namespace::Namespace;

/// The longest message that it takes: what mosquitto lets through where nothing is configured would be 256 MiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The pause before it connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// What has come.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// How long each alert took, from the reading that decided.
    pub(crate) alerts: Vec<Duration>,
    /// The numbers of the records of each epoch and stream.
    pub(crate) numbers: BTreeMap<(String, Arc<str>), BTreeSet<u64>>,
    /// Messages that could not be opened.
    pub(crate) faults: Vec<String>,
}

/// The subscriber, until it is dropped.
pub(crate) struct Subscriber {
    arrivals: Arc<Mutex<Arrivals>>,
    is_over: Arc<AtomicBool>,
}

impl Subscriber {
    /// Subscribes in a namespace; returns once it is granted. It connects again when the broker was gone.
    pub(crate) fn start(namespace: &Namespace, port: u16) -> io::Result<Self> {
        let subscriber = Self { arrivals: Arc::default(), is_over: Arc::default() };
        let (arrivals, is_over) = (subscriber.arrivals.clone(), subscriber.is_over.clone());
        let (granted, is_granted) = mpsc::sync_channel(1);
        let mut options = MqttOptions::new("judge", "127.0.0.1", port);
        options.set_clean_session(false).set_max_packet_size(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        let entrance = namespace.entrance()?;
        thread::spawn(move || {
            if let Err(error) = entrance.enter() {
                return eprintln!("the subscriber: {error}");
            }
            let (client, mut connection) = Client::new(options, 8);
            let mut opener = Opener::default();
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        if client.try_subscribe("rtlive/#", QoS::AtLeastOnce).is_err() {
                            return eprintln!("the subscriber cannot subscribe");
                        }
                    }
                    // Nobody listens after the first time.
                    Ok(Event::Incoming(Incoming::SubAck(_))) => drop(granted.try_send(())),
                    Ok(Event::Incoming(Incoming::Publish(message))) if !message.topic.ends_with("/status") => {
                        opener.feed(&message.payload);
                        let mut arrivals = arrivals.lock().unwrap();
                        while let Some(opened) = opener.next_opened() {
                            arrivals.note(opened.map_err(|error| error.to_string()), SystemClock.now());
                        }
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(PAUSE),
                }
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        is_granted.recv().map_err(io::Error::other)?;
        Ok(subscriber)
    }

    /// Looks at what has come.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Arrivals) -> T) -> T {
        at(&self.arrivals.lock().unwrap())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

impl Arrivals {
    fn note(&mut self, opened: Result<Opened, String>, now: Timestamp) {
        match opened {
            Ok(Opened::Frame { header, contents, .. }) => {
                let key = (header.origin.epoch.to_string(), header.origin.stream.clone());
                self.numbers.entry(key).or_default().extend(header.first..=header.last());
                for record in &contents.records {
                    if let Record::Alert(alert) = record {
                        self.alerts.push(now.since(alert.time));
                    }
                }
            }
            Ok(Opened::Json(_)) => {}
            Err(fault) => self.faults.push(fault),
        }
    }

    /// How many records of a stream have come.
    pub(crate) fn count(&self, stream: &str) -> usize {
        self.numbers.iter().filter(|((_, of), _)| &**of == stream).map(|(_, numbers)| numbers.len()).sum()
    }

    /// The first hole in the numbers of a stream, of those that came.
    pub(crate) fn hole(&self, stream: &str) -> Option<u64> {
        let of_stream = self.numbers.iter().filter(|((_, of), _)| &**of == stream);
        of_stream
            .filter_map(|(_, numbers)| (1..).zip(numbers).find(|(expected, number)| expected != *number))
            .map(|(expected, _)| expected)
            .next()
    }
}
