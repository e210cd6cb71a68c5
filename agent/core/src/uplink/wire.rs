//! What a message costs on the link, which carries more than payloads.
//!
//! An estimate, since neither the system's segments nor the peer's acknowledgements are seen here. It assumes one write for each packet of MQTT,
//! segments of the size of an Ethernet path, and an acknowledgement of TCP for every second segment (RFC 9293, section 3.8.6.3); that of the last one
//! comes with the PUBACK. What is sent twice because it was lost is not in it.

use std::ops::{Add, AddAssign};

/// The headers of IPv4 and TCP with time stamps (RFC 791, RFC 9293, RFC 7323): 20 + 20 + 12. IPv6 has 20 more.
pub(super) const SEGMENT_OVERHEAD_BYTES: u64 = 52;
/// The payload of a segment in a path of 1,500 bytes.
const SEGMENT_BYTES: u64 = 1_448;
/// What a record of TLS 1.3 adds: header, type of the content, tag (RFC 8446, section 5.2).
const RECORD_OVERHEAD_BYTES: u64 = 5 + 1 + 16;
/// The longest content of a record (section 5.1).
const RECORD_BYTES: u64 = 16_384;
/// The packet id, the topic's length and, in MQTT 5, the length of no properties (MQTT 5.0, section 3.3.2).
const PUBLISH_HEADER_BYTES: u64 = 2 + 2 + 1;
/// PUBACK with a packet id and, unlike success, a reason (section 3.4); PINGREQ and PINGRESP have 2 bytes.
const PUBACK_BYTES: u64 = 4;
const PING_BYTES: u64 = 2;
/// What is around the texts of CONNECT and of the status that is published first, in a segment each (sections 3.1 and 3.3); CONNACK with two
/// properties, and the status's PUBACK.
const CONNECT_BYTES: Cost =
    Cost { up: 26 + 8 + 2 * SEGMENT_OVERHEAD_BYTES, down: 11 + PUBACK_BYTES + 2 * SEGMENT_OVERHEAD_BYTES };
/// DISCONNECT, with a reason in MQTT 5 (section 3.14); and FIN with its acknowledgement in both directions, that of the broker's with our own.
const DISCONNECT_BYTES: u64 = 4;
const END_BYTES: Cost = Cost { up: 2 * SEGMENT_OVERHEAD_BYTES, down: 2 * SEGMENT_OVERHEAD_BYTES };
/// TCP's three-way handshake, and the acknowledgements of CONNECT and of what answers it.
const TCP_BYTES: Cost = Cost { up: 3 * SEGMENT_OVERHEAD_BYTES + 8, down: 2 * SEGMENT_OVERHEAD_BYTES + 8 };
/// A connection that is tried, and nobody is reached: a SYN to each of four addresses of a name, and what refuses it. Questions to name servers take no
/// more. It is less in each direction than [`Wire::connect`].
pub const UNREACHED: Cost = Cost { up: 4 * (SEGMENT_OVERHEAD_BYTES + 8), down: 4 * SEGMENT_OVERHEAD_BYTES };
/// The handshake of TLS 1.3 (RFC 8446, section 2) with a chain of two certificates of the broker: ClientHello and Finished; from the broker its part of
/// the keys, the chain and two tickets. And a certificate of our own with its proof.
const TLS_BYTES: Cost = Cost { up: 700, down: 3_500 };
const IDENTITY_BYTES: Cost = Cost { up: 1_500, down: 200 };

/// Bytes on the link in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// From here to the broker.
    pub up: u64,
    /// From the broker to here.
    pub down: u64,
}

impl Cost {
    /// Both directions together.
    pub fn both(self) -> u64 {
        self.up + self.down
    }

    /// Without so much of it.
    pub(super) fn less(self, other: Self) -> Self {
        Self { up: self.up.saturating_sub(other.up), down: self.down.saturating_sub(other.down) }
    }
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Whether TLS lies between MQTT and TCP.
    pub tls: bool,
    /// Whether a certificate of our own is shown.
    pub identity: bool,
    /// The texts with which a connection begins beside the status: client id and login.
    pub greeting_bytes: u16,
    /// The status with its topic, which goes as the last will, as a message when a connection begins, and as one when it ends in good order.
    pub status_bytes: u16,
}

impl Wire {
    /// A message at QoS 1 with its acknowledgement.
    pub fn publish(self, topic_bytes: usize, payload_bytes: usize) -> Cost {
        let rest = PUBLISH_HEADER_BYTES + topic_bytes as u64 + payload_bytes as u64;
        let (up, segments) = self.packet(1 + length_bytes(rest) + rest);
        let (down, _) = self.packet(PUBACK_BYTES);
        Cost { up: up + SEGMENT_OVERHEAD_BYTES, down: down + segments / 2 * SEGMENT_OVERHEAD_BYTES }
    }

    /// A PINGREQ with its answer, as often as the keep-alive says.
    pub fn ping(self) -> Cost {
        let (bytes, _) = self.packet(PING_BYTES);
        // Its answer acknowledges it; the answer is acknowledged by itself.
        Cost { up: bytes + SEGMENT_OVERHEAD_BYTES, down: bytes }
    }

    /// A connection that is made, and used for nothing.
    pub fn connect(self) -> Cost {
        let mut cost = TCP_BYTES + CONNECT_BYTES;
        cost.up += u64::from(self.greeting_bytes) + 2 * u64::from(self.status_bytes);
        if self.tls {
            cost += TLS_BYTES;
        }
        if self.identity {
            cost += IDENTITY_BYTES;
        }
        cost
    }

    /// The end of a connection in good order: the status, DISCONNECT, and the end of TCP. One that breaks is not ended.
    pub fn close(self) -> Cost {
        let (disconnect, _) = self.packet(DISCONNECT_BYTES);
        self.publish(0, self.status_bytes.into()) + END_BYTES + Cost { up: disconnect, down: 0 }
    }

    /// A packet of MQTT with what is around it, and its segments.
    fn packet(self, mqtt_bytes: u64) -> (u64, u64) {
        let records = if self.tls { mqtt_bytes.div_ceil(RECORD_BYTES) } else { 0 };
        let bytes = mqtt_bytes + records * RECORD_OVERHEAD_BYTES;
        let segments = bytes.div_ceil(SEGMENT_BYTES);
        (bytes + segments * SEGMENT_OVERHEAD_BYTES, segments)
    }
}

/// How many bytes the remaining length of a packet takes (MQTT 5.0, section 1.5.5).
fn length_bytes(rest: u64) -> u64 {
    match rest {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { up: self.up + other.up, down: self.down + other.down }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_what_lies_around_it() {
        let plain = Wire::default().publish(20, 100);
        // 1 + 1 + 5 + 20 + 100 in one segment, and the acknowledgement of the PUBACK; 4 in one segment.
        assert_eq!(plain, Cost { up: 127 + 52 + 52, down: 4 + 52 });
        let tls = Wire { tls: true, ..Wire::default() }.publish(20, 100);
        assert_eq!(tls, Cost { up: plain.up + 22, down: plain.down + 22 });
        let long = Wire { tls: true, ..Wire::default() }.publish(20, 40_000);
        let (packet, records, segments) = (1 + 3 + 5 + 20 + 40_000, 3, 28);
        assert_eq!(long.up, packet + records * 22 + segments * 52 + 52);
        assert_eq!(long.down, 4 + 22 + 52 + segments / 2 * 52);
        assert_eq!(Wire::default().ping(), Cost { up: 2 + 52 + 52, down: 2 + 52 });
    }
}
