//! The same readings as others write them: values and times, and nothing about quality.

use rtlive_core::reading::{Reading, Value};

/// The length after Zstandard at its default level.
pub(crate) fn zstd(bytes: &[u8]) -> usize {
    zstd::bulk::compress(bytes, 3).unwrap().len()
}

fn value(reading: &Reading) -> f64 {
    match reading.value {
        Value::Float(value) => value,
        _ => 0.0,
    }
}

fn millis(reading: &Reading) -> i64 {
    reading.time.as_nanos() / 1_000_000
}

/// A line `{"ts":…,"v":…}` a reading, in milliseconds.
pub(crate) fn json(readings: &[Reading]) -> Vec<u8> {
    let line = |reading: &Reading| format!("{{\"ts\":{},\"v\":{}}}\n", millis(reading), value(reading));
    readings.iter().map(line).collect::<String>().into_bytes()
}

/// An array of two a reading: milliseconds, and the value as the shortest float that is exact.
pub(crate) fn cbor(readings: &[Reading]) -> Vec<u8> {
    let row = |reading: &Reading| ciborium::Value::Array(vec![millis(reading).into(), value(reading).into()]);
    let mut out = Vec::new();
    ciborium::into_writer(&ciborium::Value::Array(readings.iter().map(row).collect()), &mut out).unwrap();
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A protobuf metric a reading: alias (2), timestamp (3), datatype (4) Double, double_value (13).
pub(crate) fn sparkplug(readings: &[Reading]) -> Vec<u8> {
    let mut out = Vec::new();
    for reading in readings {
        let mut metric = vec![0x10, 1, 0x18];
        put_varint(&mut metric, millis(reading).cast_unsigned());
        metric.extend([0x20, 10, 0x69]);
        metric.extend(value(reading).to_le_bytes());
        out.push(0x12);
        put_varint(&mut out, metric.len() as u64);
        out.extend(metric);
    }
    out
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u64, count: u32) {
        for place in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> place & 1) as u8) << (7 - self.used % 8);
            self.used += 1;
        }
    }
}

/// Gorilla (Pelkonen and others, VLDB 2015): delta of delta of seconds (here of milliseconds), and the exclusive or of values.
pub(crate) fn gorilla(readings: &[Reading]) -> Vec<u8> {
    let mut bits = Bits::default();
    let (mut time, mut step, mut last, mut window) = (0, 0, 0, (64, 64));
    for (place, reading) in readings.iter().enumerate() {
        let (now, value) = (millis(reading), value(reading).to_bits());
        if place == 0 {
            bits.put(now.cast_unsigned(), 64);
            bits.put(value, 64);
        } else {
            let change = now - time - step;
            let folded = change.cast_unsigned();
            match change {
                0 => bits.put(0, 1),
                -63..=64 => bits.put(0b10 << 7 | (folded & 127), 9),
                -255..=256 => bits.put(0b110 << 9 | (folded & 511), 12),
                -2047..=2048 => bits.put(0b1110 << 12 | (folded & 4095), 16),
                _ => {
                    bits.put(0b1111, 4);
                    bits.put(folded, 32);
                }
            }
            let xor = value ^ last;
            if xor == 0 {
                bits.put(0, 1);
            } else {
                let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
                if lead >= window.0 && trail >= window.1 {
                    bits.put(0b10, 2);
                } else {
                    window = (lead, trail);
                    bits.put(0b11, 2);
                    bits.put(lead.into(), 5);
                    bits.put(u64::from(64 - lead - trail) & 63, 6);
                }
                bits.put(xor >> window.1, 64 - window.0 - window.1);
            }
        }
        step = if place == 0 { 0 } else { now - time };
        (time, last) = (now, value);
    }
    bits.bytes
}

/// The decimal places that most values have, the integers, and which values these do not stand for.
fn scaled(readings: &[Reading]) -> (Vec<i64>, usize) {
    let integer = |value: f64, places: i32| {
        let power = 10_f64.powi(places);
        let integer = (value * power).round();
        (integer.abs() < 9e15 && (integer / power).to_bits() == value.to_bits()).then_some(integer as i64)
    };
    let misses = |places: i32| readings.iter().filter(|one| integer(value(one), places).is_none()).count();
    let cost = |places: i32| misses(places) * 10 * 8 + readings.len() * places as usize * 10 / 3;
    let places = (0..=15).min_by_key(|places| cost(*places)).unwrap();
    let mut last = 0;
    let integers = readings.iter().map(|one| {
        last = integer(value(one), places).unwrap_or(last);
        last
    });
    (integers.collect(), misses(places))
}

/// Columns of varints: delta of delta of milliseconds, delta of scaled integers, exceptions of ten bytes; then Zstandard.
pub(crate) fn varint(readings: &[Reading]) -> usize {
    let (integers, exceptions) = scaled(readings);
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut out = Vec::new();
    let (mut time, mut step) = (0, 0);
    for reading in readings {
        let now = millis(reading);
        put_varint(&mut out, zigzag(now - time - step));
        (step, time) = (now - time, now);
    }
    let mut last = 0;
    for integer in integers {
        put_varint(&mut out, zigzag(integer - last));
        last = integer;
    }
    zstd(&out).min(out.len()) + 10 * exceptions
}

/// `pco` at its default level on milliseconds and on the scaled integers, exceptions of ten bytes.
pub(crate) fn pco(readings: &[Reading]) -> usize {
    let (integers, exceptions) = scaled(readings);
    let times: Vec<i64> = readings.iter().map(millis).collect();
    let length = |values: &[i64]| pco::standalone::simple_compress(values, &pco::ChunkConfig::default()).unwrap().len();
    length(&times) + length(&integers) + 10 * exceptions
}
