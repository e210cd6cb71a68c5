//! Modbus.

/// The checksum of a frame on a serial line (Modbus over Serial Line V1.02, section 6.2.2); its low byte is sent first.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        // The check value of CRC-16/MODBUS, over the digits 1 to 9.
        assert_eq!(crc16(b"123456789"), 0x4b37);
        assert_eq!(crc16(&[]), 0xffff);
    }
}
