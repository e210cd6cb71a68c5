//! Segments of TCP, as the relay sees them: enough to break a connection as a middlebox would.

/// The number of TCP in the header of IP (RFC 9293, section 3.1).
const TCP: u8 = 6;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Where a packet is a segment of a standing connection: the resets that end it, one for its sender and one for its receiver.
pub(crate) fn resets(packet: &[u8]) -> Option<[Vec<u8>; 2]> {
    let ip_bytes = usize::from(packet.first()? & 0x0f) * 4;
    let segment = packet.get(ip_bytes..).filter(|_| packet[0] >> 4 == 4 && packet.get(9) == Some(&TCP))?;
    let flags = *segment.get(13)?;
    if flags & ACK == 0 || flags & (SYN | RST | FIN) != 0 {
        return None;
    }
    let (source, destination) = (packet.get(12..16)?, packet.get(16..20)?);
    let (from, to) = (segment.get(0..2)?, segment.get(2..4)?);
    let (sequence, acknowledgement) = (segment.get(4..8)?, segment.get(8..12)?);
    // Each end takes a reset that bears the number that it expects next (RFC 5961, section 3.2).
    Some([
        reset([destination, source], [to, from, acknowledgement, sequence]),
        reset([source, destination], [from, to, sequence, acknowledgement]),
    ])
}

/// A reset from one address to another, with its ports and numbers.
fn reset([source, destination]: [&[u8]; 2], numbers: [&[u8]; 4]) -> Vec<u8> {
    let length = (IP_BYTES + TCP_BYTES) as u8;
    let mut packet = vec![0x45, 0, 0, length, 0, 0, 0x40, 0, 64, TCP, 0, 0];
    packet.extend([source, destination].concat());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);

    let mut segment = numbers.concat();
    segment.extend([5 << 4, RST | ACK, 0, 0, 0, 0, 0, 0]);
    let pseudo = [source, destination, &[0, TCP, 0, TCP_BYTES as u8], &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo));
    packet.extend(segment);
    packet
}

/// The checksum of the Internet (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

#[test]
fn the_resets_of_a_segment_fit_both_ends() {
    // 10.0.0.1:4000 to 10.0.0.2:1883, number 7, acknowledging 9, with a byte.
    let mut packet = vec![0x45, 0, 0, 41, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend([0x0f, 0xa0, 0x07, 0x5b, 0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, ACK, 1, 0, 0, 0, 0, 0, b'x']);
    let [back, on] = resets(&packet).unwrap();
    assert_eq!(back[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
    assert_eq!(back[20..34], [0x07, 0x5b, 0x0f, 0xa0, 0, 0, 0, 9, 0, 0, 0, 7, 5 << 4, RST | ACK]);
    assert_eq!(on[20..34], [0x0f, 0xa0, 0x07, 0x5b, 0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, RST | ACK]);
    // What is summed with its checksum gives zero.
    for packet in [&back, &on] {
        assert_eq!(checksum(&packet[..20]), [0, 0]);
        let pseudo = [&packet[12..20], &[0, TCP, 0, 20], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo), [0, 0]);
    }
    for flags in [SYN, SYN | ACK, RST | ACK, FIN | ACK] {
        packet[33] = flags;
        assert_eq!(resets(&packet), None);
    }
    assert_eq!(resets(&packet[..30]), None);
}
