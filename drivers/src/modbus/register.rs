//! Registers: what the bytes of a response mean. Pure.

use rtlive_config::choices;
use rtlive_core::reading::Value;

use super::decimal::{Decimal, Scale};

/// The word for a value that the bytes cannot be, in the ledger.
pub(super) type Reason = &'static str;

choices! {
    /// A table of a device.
    pub enum Table {
        /// Bits that can be written too; function 1.
        Coil = "coil",
        /// Bits that can only be read; function 2.
        Discrete = "discrete",
        /// Registers that can only be read; function 4.
        Input = "input",
        /// Registers that can be written too; function 3.
        Holding = "holding",
    }
}

choices! {
    /// What registers hold.
    pub enum Kind {
        /// True or false: a coil, a discrete input, a `bit` of a register, or whether a register is other than 0.
        Bool = "bool",
        /// A register, 0 to 65535.
        U16 = "u16",
        /// A register, with sign.
        I16 = "i16",
        /// Two registers.
        U32 = "u32",
        /// Two registers, with sign.
        I32 = "i32",
        /// Four registers.
        U64 = "u64",
        /// Four registers, with sign.
        I64 = "i64",
        /// Two registers, a floating-point number (IEEE 754).
        F32 = "f32",
        /// Four registers, a floating-point number (IEEE 754).
        F64 = "f64",
        /// `length` registers of UTF-8, up to the first NUL, without spaces at its ends.
        Text = "text",
    }
}

choices! {
    /// In which order the bytes of a value come, `a` being the most significant one.
    pub enum Order {
        /// As the specification says: the high register first, and in it the high byte. Of 8 bytes: abcdefgh.
        Abcd = "abcd",
        /// The low register first. Of 8 bytes: ghefcdab.
        Cdab = "cdab",
        /// The low byte of each register first. Of 8 bytes: badcfehg; also for one register, and for text.
        Badc = "badc",
        /// Both: the lowest byte first. Of 8 bytes: hgfedcba.
        Dcba = "dcba",
    }
}

impl Table {
    /// The function that reads it (Modbus Application Protocol V1.1b3, sections 6.1 to 6.4).
    pub(super) fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// Whether it has bits, and not registers of 16 bits.
    pub(super) fn has_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }
}

impl Kind {
    /// How many registers it takes; `None` for text, which says so itself.
    pub(super) fn registers(self) -> Option<u16> {
        match self {
            Self::Bool | Self::U16 | Self::I16 => Some(1),
            Self::U32 | Self::I32 | Self::F32 => Some(2),
            Self::U64 | Self::I64 | Self::F64 => Some(4),
            Self::Text => None,
        }
    }

    /// Whether it is a number, which has a scale.
    pub(super) fn is_number(self) -> bool {
        !matches!(self, Self::Bool | Self::Text)
    }
}

/// How the bytes of registers become a value.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) kind: Kind,
    pub(super) order: Order,
    /// The bit of a register that counts, 0 being the least significant.
    pub(super) bit: Option<u8>,
    /// `None` leaves integers integers.
    pub(super) scale: Option<Scale>,
}

/// The bit at a place of a response with bits: the lowest bit of the first byte is the first.
pub(super) fn bit_at(data: &[u8], place: usize) -> Option<bool> {
    data.get(place / 8).map(|byte| byte >> (place % 8) & 1 == 1)
}

impl Layout {
    /// The value of these bytes, as they came.
    ///
    /// # Errors
    /// `not_text` for what is no UTF-8; `length` for bytes that are too few, which a matched response never has.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Value, Reason> {
        let bytes = self.ordered(bytes);
        let number = match self.kind {
            Kind::Bool => {
                let register = u16::from_be_bytes(of(&bytes)?);
                return Ok(Value::Bool(self.bit.map_or(register != 0, |bit| register >> bit & 1 == 1)));
            }
            Kind::Text => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| "not_text")?;
                return Ok(Value::Text(text.trim().into()));
            }
            Kind::U16 => u16::from_be_bytes(of(&bytes)?).into(),
            Kind::I16 => i16::from_be_bytes(of(&bytes)?).into(),
            Kind::U32 => u32::from_be_bytes(of(&bytes)?).into(),
            Kind::I32 => i32::from_be_bytes(of(&bytes)?).into(),
            Kind::U64 => u64::from_be_bytes(of(&bytes)?).into(),
            Kind::I64 => i64::from_be_bytes(of(&bytes)?).into(),
            Kind::F32 => return Ok(self.scaled_float(f32::from_be_bytes(of(&bytes)?).into())),
            Kind::F64 => return Ok(self.scaled_float(f64::from_be_bytes(of(&bytes)?))),
        };
        Ok(self.scaled(number))
    }

    /// An integer with its scale; without one, an integer of 64 bits, or above that the nearest float.
    fn scaled(&self, number: i128) -> Value {
        match (&self.scale, i64::try_from(number)) {
            (Some(scale), _) => Value::Float(scale.apply(Decimal::from(number), number as f64)),
            (None, Ok(number)) => Value::Int(number),
            (None, Err(_)) => Value::Float(number as f64),
        }
    }

    fn scaled_float(&self, number: f64) -> Value {
        match (&self.scale, Decimal::of(number)) {
            (Some(scale), Some(decimal)) => Value::Float(scale.apply(decimal, number)),
            _ => Value::Float(number),
        }
    }

    /// The bytes, the most significant first.
    fn ordered(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if matches!(self.order, Order::Badc | Order::Dcba) {
            bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        }
        if matches!(self.order, Order::Cdab | Order::Dcba) {
            // Reversing all bytes and then those of each register leaves the registers reversed.
            bytes.reverse();
            bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
        }
        bytes
    }
}

fn of<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Reason> {
    bytes.try_into().map_err(|_| "length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(kind: Kind, order: Order) -> Layout {
        Layout { kind, order, bit: None, scale: None }
    }

    #[test]
    fn every_order_is_undone() {
        use Order::{Abcd, Badc, Cdab, Dcba};
        let four = |order, bytes: [u8; 4]| (layout(Kind::U32, order).decode(&bytes).unwrap(), Value::Int(0x0102_0304));
        let eight = |order, bytes: [u8; 8]| {
            (layout(Kind::I64, order).decode(&bytes).unwrap(), Value::Int(0x0102_0304_0506_0708))
        };
        for (found, expected) in [
            four(Abcd, [1, 2, 3, 4]),
            four(Cdab, [3, 4, 1, 2]),
            four(Badc, [2, 1, 4, 3]),
            four(Dcba, [4, 3, 2, 1]),
            eight(Abcd, [1, 2, 3, 4, 5, 6, 7, 8]),
            eight(Cdab, [7, 8, 5, 6, 3, 4, 1, 2]),
            eight(Badc, [2, 1, 4, 3, 6, 5, 8, 7]),
            eight(Dcba, [8, 7, 6, 5, 4, 3, 2, 1]),
        ] {
            assert_eq!(found, expected);
        }
        assert_eq!(layout(Kind::U16, Badc).decode(&[2, 1]), Ok(Value::Int(0x0102)));
        assert_eq!(layout(Kind::U16, Cdab).decode(&[1, 2]), Ok(Value::Int(0x0102)));
        assert_eq!(layout(Kind::Text, Badc).decode(b"oBlire"), Ok(Value::Text("Boiler".into())));
    }

    #[test]
    fn every_kind_is_read() {
        let minus = [0xff; 8];
        for (kind, bytes, expected) in [
            (Kind::U16, &minus[..2], Value::Int(65_535)),
            (Kind::I16, &minus[..2], Value::Int(-1)),
            (Kind::U32, &minus[..4], Value::Int(4_294_967_295)),
            (Kind::I32, &minus[..4], Value::Int(-1)),
            (Kind::I64, &minus[..8], Value::Int(-1)),
            (Kind::U64, &minus[..8], Value::Float(18_446_744_073_709_551_615.0)),
            (Kind::F32, &230.19_f32.to_be_bytes(), Value::Float(230.190_002_441_406_25)),
            (Kind::F64, &0.1_f64.to_be_bytes(), Value::Float(0.1)),
            (Kind::Bool, &[1, 0], Value::Bool(true)),
            (Kind::Text, b" SDM630\0x", Value::Text("SDM630".into())),
        ] {
            assert_eq!(layout(kind, Order::Abcd).decode(bytes), Ok(expected), "{kind:?}");
        }
        let bit = |bit| Layout { bit: Some(bit), ..layout(Kind::Bool, Order::Abcd) }.decode(&[0x80, 0x02]);
        assert_eq!([bit(0), bit(1), bit(15)], [false, true, true].map(|bit| Ok(Value::Bool(bit))));
        assert_eq!(layout(Kind::Text, Order::Abcd).decode(&[0xff, 0xfe]), Err("not_text"));
        assert_eq!([0, 7, 8, 9].map(|place| bit_at(&[0x81, 0x01], place)), [true, true, true, false].map(Some));
    }

    #[test]
    fn a_scale_is_decimal() {
        let scaled = |kind, bytes: &[u8]| {
            let scale = Some(Scale::new(0.1, 0.0));
            Layout { scale, ..layout(kind, Order::Abcd) }.decode(bytes)
        };
        assert_eq!(scaled(Kind::U16, &234_u16.to_be_bytes()), Ok(Value::Float(23.4)));
        assert_eq!(scaled(Kind::I32, &(-3_i32).to_be_bytes()), Ok(Value::Float(-0.3)));
        assert_eq!(scaled(Kind::F64, &2.3_f64.to_be_bytes()), Ok(Value::Float(0.23)));
        assert!(matches!(scaled(Kind::F32, &f32::NAN.to_be_bytes()), Ok(Value::Float(value)) if value.is_nan()));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_a_reason(
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            kind in 0_usize..10,
            order in 0_usize..4,
            bit in prop::option::of(0_u8..16),
        ) {
            use Kind::{Bool, F32, F64, I16, I32, I64, Text, U16, U32, U64};
            let kind = [Bool, U16, I16, U32, I32, U64, I64, F32, F64, Text][kind];
            let order = [Order::Abcd, Order::Cdab, Order::Badc, Order::Dcba][order];
            let layout = Layout { kind, order, bit, scale: Some(Scale::new(0.1, 1e300)) };
            let fits = kind.registers().is_none_or(|registers| bytes.len() == usize::from(registers) * 2);
            let decoded = layout.decode(&bytes);
            prop_assert!(decoded.is_ok() == fits || kind == Text);
        }
    }
}
