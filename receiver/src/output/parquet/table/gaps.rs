//! Gaps, outages and beginnings of epochs: what the stream `gaps` says.

use std::borrow::Cow;

use rtlive_core::json::write_last;
use rtlive_core::record::{EpochStart, Gap, OutageRecord, Record};

use super::{Head, Rows};
use crate::new_records::NewRecords;
use crate::output::parquet::column::{Column, Ints, Texts, Times};

/// `kind` says which of the columns a row has: `gap`, `outage` or `epoch_start`.
#[derive(Default)]
pub(super) struct Gaps {
    head: Head,
    kind: Texts,
    start: Times,
    end: Times,
    count: Ints,
    reason: Texts,
    gap_stream: Texts,
    gap_epoch: Texts,
    gap_class: Texts,
    gap_from: Ints,
    gap_to: Ints,
    covered_by: Texts,
    input: Texts,
    predecessor: Texts,
    /// The last numbers of the predecessor: a JSON object of numbers by stream, or by stream and class.
    last: Texts,
}

impl Gaps {
    fn push_gap(&mut self, frame: &NewRecords, gap: &Gap) {
        let origin = &frame.header.origin;
        self.kind.push_new(Some("gap"));
        self.start.push(gap.start);
        self.end.push(gap.end);
        self.count.push(i64::try_from(gap.records()).ok());
        self.reason.push(Some(&gap.reason));
        self.gap_stream.push(Some(&gap.stream));
        self.gap_epoch.push_new(Some(&gap.epoch.unwrap_or(origin.epoch).to_string()));
        self.gap_class.push(Some(gap.class.as_ref().unwrap_or(&origin.class)));
        self.gap_from.push(Some(gap.from.cast_signed()));
        self.gap_to.push(Some(gap.to.cast_signed()));
        self.covered_by.push(gap.covered_by.as_ref());
        self.input.push(None);
        self.predecessor.push(None);
        self.last.push(None);
    }

    fn push_outage(&mut self, outage: &OutageRecord) {
        self.kind.push_new(Some("outage"));
        self.start.push(outage.start);
        self.end.push(Some(outage.end));
        self.count.push(outage.count.and_then(|count| i64::try_from(count).ok()));
        self.reason.push(Some(&outage.reason));
        self.push_no_gap();
        self.input.push(Some(&outage.input));
        self.predecessor.push(None);
        self.last.push(None);
    }

    fn push_epoch(&mut self, epoch: &EpochStart) {
        self.kind.push_new(Some("epoch_start"));
        self.start.push(Some(epoch.time));
        self.end.push(None);
        self.count.push(None);
        self.reason.push(Some(&epoch.reason));
        self.push_no_gap();
        self.input.push(None);
        self.predecessor.push_new(epoch.predecessor.map(|epoch| epoch.to_string()).as_deref());
        let mut last = Vec::new();
        write_last(&mut last, &epoch.last);
        self.last.push_new(Some(&String::from_utf8_lossy(&last)));
    }

    fn push_no_gap(&mut self) {
        for column in [&mut self.gap_stream, &mut self.gap_epoch, &mut self.gap_class, &mut self.covered_by] {
            column.push(None);
        }
        self.gap_from.push(None);
        self.gap_to.push(None);
    }
}

impl Rows for Gaps {
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        let own: [(&'static str, &mut dyn Column); 14] = [
            ("kind", &mut self.kind),
            ("start", &mut self.start),
            ("end", &mut self.end),
            ("count", &mut self.count),
            ("reason", &mut self.reason),
            ("gap_stream", &mut self.gap_stream),
            ("gap_epoch", &mut self.gap_epoch),
            ("gap_class", &mut self.gap_class),
            ("gap_from", &mut self.gap_from),
            ("gap_to", &mut self.gap_to),
            ("covered_by", &mut self.covered_by),
            ("input", &mut self.input),
            ("predecessor", &mut self.predecessor),
            ("last", &mut self.last),
        ];
        self.head.columns().into_iter().chain(own.into_iter().map(|(name, column)| (name.into(), column))).collect()
    }

    fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]) {
        self.head.push(frame, records);
        for (_, record) in records {
            match record {
                Record::Gap(gap) => self.push_gap(frame, gap),
                Record::Outage(outage) => self.push_outage(outage),
                Record::EpochStart(epoch) => self.push_epoch(epoch),
                Record::Reading(_) | Record::Aggregate(_) | Record::Alert(_) => {}
            }
        }
    }
}
