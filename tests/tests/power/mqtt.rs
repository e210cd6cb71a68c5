//! Two brokers that know what the agent acknowledged and what it sent: that of the sensors, and that of the centre.
//!
//! MQTT 3.1.1, as far as the agent speaks it; each connection is a thread, and ends with the agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rtlive_core::reading::SeriesId;
use rtlive_core::record::Record;

use crate::centre::{Centre, Lane};

/// How many messages may be unacknowledged, as with mosquitto.
const IN_FLIGHT_MAX: usize = 20;

/// The first halves of packets' first bytes.
const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;

/// How the link to the centre is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Messages arrive, and are acknowledged.
    Good,
    /// They arrive, and no acknowledgement comes back.
    Deaf,
    /// There is no connection.
    Away,
}

/// What both brokers know.
pub(crate) struct Known {
    /// The next number that is published; every one is published once.
    pub(crate) next: u64,
    /// Whether more are published.
    pub(crate) publishes: bool,
    /// Packets with their numbers that are not acknowledged.
    in_flight: VecDeque<(u16, u64)>,
    has_session: bool,
    /// The numbers that the agent acknowledged.
    pub(crate) acknowledged: BTreeSet<u64>,
    pub(crate) mood: Mood,
    pub(crate) centre: Centre,
    /// Where frames may be made anew of the same records: each record as text, by lane and number.
    pub(crate) records: Option<BTreeMap<(Lane, u64), String>>,
    /// What the centre found wrong.
    pub(crate) wrong: Vec<String>,
}

/// Both brokers.
pub(crate) struct Brokers {
    known: Arc<Mutex<Known>>,
    pub(crate) sensors: u16,
    pub(crate) centre: u16,
}

impl Brokers {
    /// With a card that lies, what was sent may be sent again in other frames.
    pub(crate) fn open(lies: bool) -> io::Result<Self> {
        let known = Known {
            next: 0,
            publishes: true,
            in_flight: VecDeque::new(),
            has_session: false,
            acknowledged: BTreeSet::new(),
            mood: Mood::Good,
            centre: Centre::default(),
            records: lies.then(BTreeMap::new),
            wrong: Vec::new(),
        };
        let known = Arc::new(Mutex::new(known));
        let [sensors, centre] = [sensors, centre].map(|serve| listen(&known, serve));
        Ok(Self { known, sensors: sensors?, centre: centre? })
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

type Serve = fn(&mut TcpStream, &Mutex<Known>) -> io::Result<()>;

/// Listens until the process ends.
fn listen(known: &Arc<Mutex<Known>>, serve: Serve) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let known = known.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let known = known.clone();
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                // It ends when the agent does.
                let _ = serve(&mut stream, &known);
            });
        }
    });
    Ok(port)
}

/// The broker of the sensors: publishes numbers, each again until it is acknowledged.
fn sensors(stream: &mut TcpStream, known: &Mutex<Known>) -> io::Result<()> {
    loop {
        let (first, body) = read(stream)?;
        let mut known = lock(known);
        let answer = match first >> 4 {
            CONNECT => {
                let had_session = std::mem::replace(&mut known.has_session, true);
                let mut answer = vec![0x20, 2, u8::from(had_session), 0];
                for &(id, number) in &known.in_flight {
                    answer.extend(publish(id, number, true));
                }
                answer
            }
            SUBSCRIBE => {
                let mut answer = vec![0x90, 3, body[0], body[1], 1];
                known.publish_more(&mut answer);
                answer
            }
            PUBACK => {
                let id = u16::from_be_bytes([body[0], body[1]]);
                if let Some(place) = known.in_flight.iter().position(|(in_flight, _)| *in_flight == id) {
                    let acknowledged = known.in_flight.remove(place).map(|(_, number)| number);
                    known.acknowledged.extend(acknowledged);
                }
                let mut answer = Vec::new();
                known.publish_more(&mut answer);
                answer
            }
            PINGREQ => vec![0xd0, 0],
            _ => continue,
        };
        drop(known);
        stream.write_all(&answer)?;
    }
}

impl Known {
    fn publish_more(&mut self, packets: &mut Vec<u8>) {
        while self.publishes && self.in_flight.len() < IN_FLIGHT_MAX {
            let used = |id: u16| self.in_flight.iter().any(|(in_flight, _)| *in_flight == id);
            // As mosquitto: ids go round.
            let mut id = (self.next % u64::from(u16::MAX)) as u16 + 1;
            while used(id) {
                id = id % u16::MAX + 1;
            }
            packets.extend(publish(id, self.next, false));
            self.in_flight.push_back((id, self.next));
            self.next += 1;
        }
    }

    /// Takes what is new; what comes again must be what came before.
    fn arrive(&mut self, payload: &[u8]) -> Result<(), String> {
        let Some(records) = &mut self.records else { return self.centre.take(payload) };
        let mut alone = Centre::default();
        alone.take(payload)?;
        self.centre.messages += 1;
        for (lane, blocks) in &alone.lanes {
            for (number, (series, record)) in blocks.iter().flat_map(|(&first, block)| (first..).zip(&block.records)) {
                let text = format!("{series:?} {}", told(record));
                let known = records.entry((lane.clone(), number)).or_insert_with(|| text.clone());
                if *known != text {
                    return Err(format!("{lane:?}: number {number} is {known}, and then {text}"));
                }
            }
        }
        Ok(())
    }

    /// Whether the agent acknowledged all that was published.
    pub(crate) fn all_acknowledged(&self) -> bool {
        self.acknowledged.len() as u64 == self.next
    }
}

/// A record without its place in the list of series, which is the frame's own.
fn told(record: &Record) -> String {
    let mut record = record.clone();
    match &mut record {
        Record::Reading(reading) => reading.series = SeriesId(0),
        Record::Aggregate(aggregate) => aggregate.series = SeriesId(0),
        _ => {}
    }
    format!("{record:?}")
}

fn publish(id: u16, number: u64, again: bool) -> Vec<u8> {
    let payload = format!("{{\"n\":{number}}}");
    let length = 2 + 1 + 2 + payload.len();
    let mut packet = vec![0x32 | u8::from(again) << 3, u8::try_from(length).unwrap(), 0, 1, b'n'];
    packet.extend(id.to_be_bytes());
    packet.extend(payload.as_bytes());
    packet
}

/// The broker of the centre, and whoever listens there.
fn centre(stream: &mut TcpStream, known: &Mutex<Known>) -> io::Result<()> {
    loop {
        let (first, body) = read(stream)?;
        let mut known = lock(known);
        if known.mood == Mood::Away {
            return Ok(());
        }
        let answer = match first >> 4 {
            CONNECT => vec![0x20, 2, 0, 0],
            PUBLISH => {
                let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (is_acknowledged, is_retained) = (first & 0b110 != 0, first & 1 != 0);
                let payload = &body[topic_end + if is_acknowledged { 2 } else { 0 }..];
                // What is retained is the agent's state.
                if !is_retained && let Err(wrong) = known.arrive(payload) {
                    known.wrong.push(wrong);
                }
                if known.mood == Mood::Deaf || !is_acknowledged {
                    continue;
                }
                vec![0x40, 2, body[topic_end], body[topic_end + 1]]
            }
            PINGREQ => vec![0xd0, 0],
            _ => continue,
        };
        drop(known);
        stream.write_all(&answer)?;
    }
}

/// The next packet: its first byte, and what follows its length.
fn read(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let (first, mut length, mut shift) = (byte[0], 0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((first, body))
}
