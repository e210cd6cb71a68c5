//! The plan: which registers go into one request. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::frame::Request;
use super::register::{Layout, Reason, Table, bit_at};
use rtlive_core::reading::Value;

/// Bits for each register of the largest request: 2000 bits, 125 registers (Modbus Application Protocol V1.1b3, sections 6.1, 6.3).
const BITS_PER_REGISTER: u32 = 16;

/// A device, checked.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) unit: u8,
    /// By table and address.
    pub(super) registers: Vec<Register>,
}

/// A register of a device, or a bit, or several registers that hold one value.
#[derive(Clone, Debug)]
pub(super) struct Register {
    /// The series, below the input's prefix.
    pub(super) series: String,
    pub(super) unit: Option<String>,
    pub(super) table: Table,
    pub(super) address: u16,
    /// How many registers or bits it takes.
    pub(super) count: u16,
    pub(super) layout: Layout,
    pub(super) every: Duration,
}

/// What bounds a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many registers or bits may be read along between two that are wanted.
    pub(super) gap: u16,
    /// How many registers a request may read.
    pub(super) registers_max: u16,
}

/// One request, and the registers that it reads, by their place in the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) request: Request,
    pub(super) members: Vec<usize>,
}

impl Register {
    /// Where it ends.
    fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.count)
    }

    /// Its value in the data of a response to `request`.
    ///
    /// # Errors
    /// As [`Layout::decode`].
    pub(super) fn value(&self, request: Request, data: &[u8]) -> Result<Value, Reason> {
        let place = usize::from(self.address.wrapping_sub(request.address));
        if self.table.has_bits() {
            return bit_at(data, place).map(Value::Bool).ok_or("length");
        }
        let bytes = data.get(place * 2..(place + usize::from(self.count)) * 2).ok_or("length")?;
        self.layout.decode(bytes)
    }
}

impl Device {
    /// The fewest requests, in the order of addresses, that read those registers which are due at one of these intervals. Those
    /// that are `alone` share no request.
    pub(super) fn blocks(&self, due: &[Duration], alone: &BTreeSet<usize>, limits: Limits) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let due = self.registers.iter().enumerate().filter(|(_, register)| due.contains(&register.every));
        for (index, register) in due {
            let registers_max = u32::from(limits.registers_max);
            let max = if register.table.has_bits() { registers_max * BITS_PER_REGISTER } else { registers_max };
            let joined = blocks.last_mut().is_some_and(|block| {
                let start = u32::from(block.request.address);
                let end = start + u32::from(block.request.count);
                let joint = register.end().max(end) - start;
                let fits = block.request.table == register.table
                    && u32::from(register.address) <= end + u32::from(limits.gap)
                    && joint <= max
                    && !alone.contains(&index)
                    && block.members.iter().all(|member| !alone.contains(member));
                if fits {
                    block.request.count = u16::try_from(joint).unwrap_or(u16::MAX);
                    block.members.push(index);
                }
                fits
            });
            if !joined {
                let Register { table, address, count, .. } = *register;
                let request = Request { unit: self.unit, table, address, count };
                blocks.push(Block { request, members: vec![index] });
            }
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::modbus::register::{Kind, Order};

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn register(table: Table, address: u16, count: u16, every: Duration) -> Register {
        let layout = Layout { kind: Kind::U16, order: Order::Abcd, bit: None, scale: None };
        Register { series: String::new(), unit: None, table, address, count, layout, every }
    }

    fn device(mut registers: Vec<Register>) -> Device {
        registers.sort_by_key(|register| (register.table, register.address));
        Device { name: String::new(), unit: 1, registers }
    }

    /// Address and count of each request.
    fn read(device: &Device, due: &[Duration], alone: &[usize], gap: u16, registers_max: u16) -> Vec<(u16, u16)> {
        let blocks = device.blocks(due, &alone.iter().copied().collect(), Limits { gap, registers_max });
        blocks.into_iter().map(|block| (block.request.address, block.request.count)).collect()
    }

    #[test]
    fn neighbours_that_are_due_together_share_a_request() {
        let device = device(vec![
            register(Table::Input, 0, 2, SECOND),
            register(Table::Input, 2, 2, SECOND),
            register(Table::Input, 3, 1, SECOND),
            register(Table::Input, 4, 2, MINUTE),
            register(Table::Input, 10, 2, SECOND),
            register(Table::Holding, 4, 1, SECOND),
        ]);
        assert_eq!(read(&device, &[SECOND], &[], 0, 125), [(0, 4), (10, 2), (4, 1)]);
        assert_eq!(read(&device, &[SECOND, MINUTE], &[], 0, 125), [(0, 6), (10, 2), (4, 1)]);
        assert_eq!(read(&device, &[SECOND], &[], 5, 125), [(0, 4), (10, 2), (4, 1)]);
        assert_eq!(read(&device, &[SECOND], &[], 6, 125), [(0, 12), (4, 1)]);
        assert_eq!(read(&device, &[SECOND], &[], 6, 4), [(0, 4), (10, 2), (4, 1)]);
        assert_eq!(read(&device, &[SECOND], &[1], 6, 125), [(0, 2), (2, 2), (3, 9), (4, 1)]);
        assert_eq!(read(&device, &[MINUTE], &[], 0, 125), [(4, 2)]);
    }

    #[test]
    fn bits_are_counted_as_bits() {
        let bits = (0..2001).map(|address| register(Table::Coil, address, 1, SECOND)).collect();
        assert_eq!(read(&device(bits), &[SECOND], &[], 0, 125), [(0, 2000), (2000, 1)]);
    }

    proptest! {
        #[test]
        fn every_register_is_read_once_and_whole_within_the_limits(
            wanted in prop::collection::vec((0_u8..2, 0_u16..300, 1_u16..=4), 1..60),
            gap in 0_u16..20,
            registers_max in 4_u16..=125,
            alone in prop::collection::btree_set(0_usize..60, 0..10),
        ) {
            let table = |table| if table == 0 { Table::Input } else { Table::Holding };
            let registers = wanted.iter().map(|&(t, address, count)| register(table(t), address, count, SECOND));
            let device = device(registers.collect());
            let blocks = device.blocks(&[SECOND], &alone, Limits { gap, registers_max });
            let mut seen: Vec<usize> = Vec::new();
            for Block { request, members } in &blocks {
                prop_assert!((1..=registers_max).contains(&request.count));
                prop_assert!(members.len() == 1 || members.iter().all(|member| !alone.contains(member)));
                for member in members {
                    let register = &device.registers[*member];
                    prop_assert_eq!(register.table, request.table);
                    let end = u32::from(request.address) + u32::from(request.count);
                    prop_assert!(register.address >= request.address && register.end() <= end);
                    let data = vec![0; usize::from(request.count) * 2];
                    prop_assert!(register.count != 1 || register.value(*request, &data).is_ok());
                }
                seen.extend(members);
            }
            prop_assert_eq!(seen, (0..device.registers.len()).collect::<Vec<_>>());
        }
    }
}
