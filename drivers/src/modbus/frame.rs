//! Frames: requests as bytes, and responses found in bytes. Pure, and total: any bytes give an answer.
//!
//! RTU is Modbus over Serial Line V1.02, section 2.5.1; TCP is Modbus Messaging on TCP/IP V1.0b, section 3.1; functions and
//! exceptions are of the Modbus Application Protocol V1.1b3, sections 6 and 7.

use std::ops::Range;

use super::register::Table;

/// The longest frame on a serial line, with address and checksum.
pub(super) const RTU_BYTES_MAX: usize = 256;
/// The longest frame over TCP, with its header.
pub(super) const TCP_BYTES_MAX: usize = 260;
/// The header of a frame over TCP: transaction, protocol, length, unit.
const HEADER_BYTES: usize = 7;
/// The header up to its length, which counts what follows.
const COUNTED_FROM: usize = 6;
/// A response with nothing in it: unit, function, and one byte.
const COUNTED_MIN: usize = 3;
/// Set in the function of a response that is an exception.
const EXCEPTION: u8 = 0x80;
/// An exception on a serial line: unit, function, code, checksum.
const RTU_EXCEPTION_BYTES: usize = 5;
/// Unit, function and byte count, which stand before the data.
const BEFORE_DATA: usize = 3;
const CHECKSUM_BYTES: usize = 2;

/// A request for neighbouring registers or bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) unit: u8,
    pub(super) table: Table,
    pub(super) address: u16,
    pub(super) count: u16,
}

/// What a device says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The data lie here in the bytes.
    Data(Range<usize>),
    /// An exception code.
    Exception(u8),
}

/// Why bytes on a serial line are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There are none.
    Silent,
    /// A whole response, but its checksum is wrong.
    Checksum,
    /// Anything else: part of a response, noise, a response to something else.
    Garbage,
}

/// What the first bytes of a stream over TCP are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Not yet a whole frame.
    Part,
    /// The answer, in a frame that ends here.
    Answer(Answer, usize),
    /// A response to another request, or none that this request can have; the frame ends here.
    Other(usize),
    /// No frame: where the next begins is not known any more.
    Lost,
}

/// The checksum of a frame on a serial line (section 6.2.2); its low byte is sent first.
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0xffff_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ if carry == 1 { 0xa001 } else { 0 };
        }
    }
    crc
}

/// What an exception code means, in the words of the specification.
pub(super) fn exception_name(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "a code that the specification does not have",
    }
}

impl Request {
    /// How many bytes of data its response has.
    fn data_bytes(self) -> usize {
        match self.table.has_bits() {
            true => usize::from(self.count).div_ceil(8),
            false => usize::from(self.count) * 2,
        }
    }

    fn body(self) -> [u8; 6] {
        let [address_high, address_low] = self.address.to_be_bytes();
        let [count_high, count_low] = self.count.to_be_bytes();
        [self.unit, self.table.function(), address_high, address_low, count_high, count_low]
    }

    /// The frame on a serial line.
    pub(super) fn rtu(self) -> Vec<u8> {
        let mut frame = self.body().to_vec();
        frame.extend(crc16(&frame).to_le_bytes());
        frame
    }

    /// How many bytes it and its answer are on a serial line.
    pub(super) fn rtu_bytes(self) -> usize {
        self.body().len() + CHECKSUM_BYTES + BEFORE_DATA + self.data_bytes() + CHECKSUM_BYTES
    }

    /// The frame over TCP.
    pub(super) fn tcp(self, transaction: u16) -> Vec<u8> {
        let [high, low] = transaction.to_be_bytes();
        let mut frame = vec![high, low, 0, 0, 0, 6];
        frame.extend(self.body());
        frame
    }

    /// The answer in what was heard on a serial line since the request, if it is there.
    ///
    /// It may stand behind noise, or behind an echo of the request, which many RS-485 adapters send.
    pub(super) fn find_rtu(self, bytes: &[u8]) -> Option<Answer> {
        (0..bytes.len()).find_map(|start| {
            let length = self.rtu_length(bytes.get(start..)?)?;
            let frame = bytes.get(start..start + length)?;
            let (body, checksum) = frame.split_last_chunk::<CHECKSUM_BYTES>()?;
            (crc16(body) == u16::from_le_bytes(*checksum)).then(|| match frame.get(2) {
                Some(code) if length == RTU_EXCEPTION_BYTES && self.is_exception(frame) => Answer::Exception(*code),
                _ => Answer::Data(start + BEFORE_DATA..start + length - CHECKSUM_BYTES),
            })
        })
    }

    /// What bytes on a serial line are in which there is no answer, once no more come.
    pub(super) fn fault_rtu(self, bytes: &[u8]) -> Fault {
        if bytes.is_empty() {
            return Fault::Silent;
        }
        let is_whole = |start: usize| {
            let rest = bytes.get(start..).unwrap_or_default();
            self.rtu_length(rest).is_some_and(|length| rest.len() >= length)
        };
        if (0..bytes.len()).any(is_whole) { Fault::Checksum } else { Fault::Garbage }
    }

    /// How long the frame is that begins here, if it may be the answer.
    fn rtu_length(self, bytes: &[u8]) -> Option<usize> {
        let [unit, function, third, ..] = *bytes else { return None };
        if unit == self.unit && function == self.table.function() && usize::from(third) == self.data_bytes() {
            return Some(BEFORE_DATA + self.data_bytes() + CHECKSUM_BYTES);
        }
        self.is_exception(bytes).then_some(RTU_EXCEPTION_BYTES)
    }

    fn is_exception(self, bytes: &[u8]) -> bool {
        bytes.starts_with(&[self.unit, self.table.function() | EXCEPTION])
    }

    /// What the bytes that came over TCP begin with.
    pub(super) fn hear_tcp(self, transaction: u16, bytes: &[u8]) -> Heard {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Heard::Part };
        let [id_high, id_low, protocol_high, protocol_low, length_high, length_low, unit] = *header;
        let end = COUNTED_FROM + usize::from(u16::from_be_bytes([length_high, length_low]));
        if (protocol_high, protocol_low) != (0, 0) || !(COUNTED_FROM + COUNTED_MIN..=TCP_BYTES_MAX).contains(&end) {
            return Heard::Lost;
        }
        let Some(body) = bytes.get(HEADER_BYTES..end) else { return Heard::Part };
        let is_ours = u16::from_be_bytes([id_high, id_low]) == transaction && unit == self.unit;
        let function = self.table.function();
        match *body {
            [found, code] if is_ours && found == function | EXCEPTION => Heard::Answer(Answer::Exception(code), end),
            [found, count, ref data @ ..]
                if is_ours
                    && found == function
                    && usize::from(count) == self.data_bytes()
                    && data.len() == self.data_bytes() =>
            {
                Heard::Answer(Answer::Data(end - data.len()..end), end)
            }
            _ => Heard::Other(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: Request = Request { unit: 17, table: Table::Holding, address: 0x6b, count: 3 };

    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut frame = body.to_vec();
        frame.extend(crc16(body).to_le_bytes());
        frame
    }

    fn response() -> Vec<u8> {
        sealed(&[17, 3, 6, 0xae, 0x41, 0x56, 0x52, 0x43, 0x40])
    }

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        // The check value of CRC-16/MODBUS, over the digits 1 to 9.
        assert_eq!(crc16(b"123456789"), 0x4b37);
        assert_eq!(crc16(&[]), 0xffff);
    }

    #[test]
    fn requests_are_written_as_the_specification_says() {
        assert_eq!(REQUEST.rtu(), sealed(&[17, 3, 0, 0x6b, 0, 3]));
        assert_eq!(REQUEST.rtu_bytes(), REQUEST.rtu().len() + response().len());
        assert_eq!(REQUEST.tcp(0x1234), [0x12, 0x34, 0, 0, 0, 6, 17, 3, 0, 0x6b, 0, 3]);
        let bits = Request { unit: 1, table: Table::Coil, address: 19, count: 37 };
        assert_eq!((bits.rtu()[1], bits.data_bytes()), (1, 5));
    }

    #[test]
    fn an_answer_is_found_behind_noise_and_echo() {
        let echo = REQUEST.rtu();
        for before in [&[][..], &[0], &[0xff, 17, 3], &echo] {
            let mut bytes = before.to_vec();
            bytes.extend(response());
            let start = before.len() + 3;
            assert_eq!(REQUEST.find_rtu(&bytes), Some(Answer::Data(start..start + 6)), "{before:?}");
        }
        let exception = sealed(&[17, 0x83, 2]);
        assert_eq!(REQUEST.find_rtu(&exception), Some(Answer::Exception(2)));
        assert_eq!(exception_name(2), "illegal data address");
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let mut damaged = response();
        damaged[4] ^= 1;
        let part = &response()[..8];
        let other_unit = sealed(&[18, 3, 6, 0, 0, 0, 0, 0, 0]);
        let other_length = sealed(&[17, 3, 2, 0, 0]);
        let noise = [0x55; 40];
        for (bytes, fault) in [
            (&[][..], Fault::Silent),
            (&damaged, Fault::Checksum),
            (part, Fault::Garbage),
            (&other_unit, Fault::Garbage),
            (&other_length, Fault::Garbage),
            (&noise, Fault::Garbage),
        ] {
            assert_eq!((REQUEST.find_rtu(bytes), REQUEST.fault_rtu(bytes)), (None, fault), "{bytes:?}");
        }
    }

    #[test]
    fn frames_over_tcp_are_matched_by_transaction_unit_function_and_length() {
        let good = [0, 7, 0, 0, 0, 9, 17, 3, 6, 1, 2, 3, 4, 5, 6];
        assert_eq!(REQUEST.hear_tcp(7, &good), Heard::Answer(Answer::Data(9..15), 15));
        for end in 0..good.len() {
            assert_eq!(REQUEST.hear_tcp(7, &good[..end]), Heard::Part);
        }
        assert_eq!(REQUEST.hear_tcp(8, &good), Heard::Other(15));
        let exception = [0, 7, 0, 0, 0, 3, 17, 0x83, 11, 0xff];
        assert_eq!(REQUEST.hear_tcp(7, &exception), Heard::Answer(Answer::Exception(11), 9));
        for (place, byte) in [(6, 18), (7, 4), (8, 4)] {
            let mut other = good;
            other[place] = byte;
            assert_eq!(REQUEST.hear_tcp(7, &other), Heard::Other(15), "{place}");
        }
        for (place, byte) in [(2, 1), (3, 1), (4, 1), (5, 2)] {
            let mut lost = good;
            lost[place] = byte;
            assert_eq!(REQUEST.hear_tcp(7, &lost), Heard::Lost, "{place}");
        }
    }

    /// What mbpoll (libmodbus) and pymodbus said to each other over a pseudo-terminal.
    #[test]
    fn a_recorded_conversation_of_two_others_is_understood() {
        let Some(path) = crate::rig::shared("modbus/wire_sdm630_mbpoll_pymodbus.socat.txt") else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let mut frames: Vec<(bool, Vec<u8>)> = Vec::new();
        for line in text.lines() {
            if line.starts_with(['<', '>']) {
                frames.push((line.starts_with('<'), Vec::new()));
            } else if let Some((_, bytes)) = frames.last_mut().filter(|_| line.starts_with(' ')) {
                // The bytes as text follow after two spaces.
                let hex = line.trim_start().split("  ").next().unwrap().split(' ');
                bytes.extend(hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
            }
        }
        let mut values = Vec::new();
        for pair in frames.chunks(2) {
            let [(true, sent), (false, received)] = pair else { panic!("{pair:?}") };
            let [unit, 4, address_high, address_low, count_high, count_low, ..] = sent[..] else { panic!("{sent:?}") };
            let word = |high, low| u16::from_be_bytes([high, low]);
            let (address, count) = (word(address_high, address_low), word(count_high, count_low));
            let request = Request { unit, table: Table::Input, address, count };
            assert_eq!(request.rtu(), *sent);
            match request.find_rtu(received).unwrap() {
                Answer::Exception(code) => assert_eq!((address, code), (100, 2)),
                Answer::Data(data) => {
                    let float = |bytes: &[u8]| f32::from_be_bytes(bytes.try_into().unwrap());
                    values.extend(received[data].chunks(4).map(float));
                }
            }
        }
        let expected =
            [230.19, 231.4, 229.77, 3.125, 0.0, 11.5, 719.25, 0.0, -2640.5, 49.98, 18345.672, 221.09, 230.19];
        assert_eq!(values, expected);
    }

    fn request() -> impl Strategy<Value = Request> {
        let table = prop::sample::select(vec![Table::Coil, Table::Discrete, Table::Input, Table::Holding]);
        (any::<u8>(), table, any::<u16>(), 1_u16..=125).prop_map(|(unit, table, address, count)| Request {
            unit,
            table,
            address,
            count,
        })
    }

    /// Bytes that often begin as an answer would.
    fn bytes(request: Request) -> impl Strategy<Value = Vec<u8>> {
        let begin = vec![
            vec![],
            vec![request.unit, request.table.function(), request.data_bytes() as u8],
            vec![request.unit, request.table.function() | EXCEPTION],
            vec![0, 1, 0, 0, 0, 20, request.unit, request.table.function()],
        ];
        (prop::sample::select(begin), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(a, b)| [a, b].concat())
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer((request, bytes) in request().prop_flat_map(|r| (Just(r), bytes(r)))) {
            let within = |answer: &Answer| match answer {
                Answer::Data(data) => data.end <= bytes.len() && data.len() == request.data_bytes(),
                Answer::Exception(_) => true,
            };
            prop_assert!(request.find_rtu(&bytes).iter().all(within));
            prop_assert_eq!(request.fault_rtu(&bytes) == Fault::Silent, bytes.is_empty());
            match request.hear_tcp(1, &bytes) {
                Heard::Answer(answer, end) => prop_assert!(within(&answer) && end <= bytes.len()),
                Heard::Other(end) => prop_assert!((1..=bytes.len()).contains(&end)),
                Heard::Part => prop_assert!(bytes.len() < TCP_BYTES_MAX),
                Heard::Lost => {}
            }
        }

        #[test]
        fn what_a_device_sends_is_found_whole(request in request(), noise in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut frame = vec![request.unit, request.table.function(), request.data_bytes() as u8];
            frame.extend((0..request.data_bytes()).map(|byte| byte as u8));
            let frame = sealed(&frame);
            prop_assert!(frame.len() <= RTU_BYTES_MAX);
            let bytes = [noise, frame].concat();
            let Some(Answer::Data(data)) = request.find_rtu(&bytes) else { return Err(TestCaseError::fail("not found")) };
            prop_assert_eq!(data.end, bytes.len() - CHECKSUM_BYTES);
        }
    }
}
