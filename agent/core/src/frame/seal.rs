//! From records to a frame.

use super::cbor::Writer;
use super::{
    CONTENTS_BYTES_MAX, Codec, DEFAULT_CLASS, FRAME_BYTES_MAX, FUNCTIONS_MAX, LISTED_MAX, NAME_BYTES_MAX, Origin,
    RECORDS_MAX, SchemaId, TEXT_BYTES_MAX, VALUES_MAX, VERSION, key, notice, part, section,
};
use crate::columns::{Effort, Readings, encode_aggregates};
use crate::pack::pack;
use crate::plan::Function;
use crate::reading::{Reading, SERIES_NAME_BYTES_MAX, SeriesId, SeriesInfo, Value};
use crate::record::{Aggregate, Record};
use crate::time::Timestamp;

/// How much work goes into making a frame small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Density {
    /// Little: the link is good, and the frame is wanted now.
    Fast,
    /// As much as pays on most links.
    #[default]
    Normal,
    /// Much: the link is poor, and there is time.
    Dense,
}

impl Density {
    /// How columns are written; the shortest wins.
    const fn efforts(self) -> &'static [Effort] {
        match self {
            Self::Fast => &[Effort::Quick],
            Self::Normal => &[Effort::Thorough],
            Self::Dense => &[Effort::Thorough, Effort::Bytes],
        }
    }

    /// The level of Zstandard. Columns leave it little to find: 9 is hardly smaller than 3, and its code is 90 kB of the binary.
    const fn level(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Normal | Self::Dense => 3,
        }
    }
}

/// Why records cannot be sealed as one frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is nothing to seal.
    #[error("seal a frame: expected at least one record")]
    Empty,
    /// The numbers would not fit in 64 bits.
    #[error("seal a frame: expected numbers within 64 bits, found {0} as the first")]
    Numbers(u64),
    /// A bound of the format; fewer records may fit, which is for the caller to try.
    #[error("seal a frame: expected at most {max} {what}, found {found}")]
    TooLarge {
        /// What is bounded.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// A record names a series that is not in the table.
    #[error("seal a frame: expected a series of the table, found number {0}")]
    Series(u32),
    /// An aggregate has not one value for each function.
    #[error("seal a frame: expected aggregates of {expected} values, found one of {found}")]
    Values {
        /// The number of functions.
        expected: usize,
        /// The number of values.
        found: usize,
    },
    /// The compressor failed, which no input of a frame's size should make it do.
    #[error("seal a frame: compress its contents: {0}")]
    Compress(String),
}

fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), SealError> {
    if found > max { Err(SealError::TooLarge { what, found, max }) } else { Ok(()) }
}

/// Seals records with the numbers `first`, `first + 1`, … as a frame.
///
/// `series` is the table that the records' ids index, and may hold many more than they name; `compute` says what the values of
/// aggregates are, and is not looked at without any. The same arguments give the same bytes.
///
/// # Errors
/// The records exceed a bound of the format or contradict the tables; nothing is sealed. With [`SealError::TooLarge`] try fewer
/// records: one alone fits whenever its texts and names are within their bounds.
pub fn seal(
    origin: &Origin,
    first: u64,
    records: &[Record],
    series: &[SeriesInfo],
    compute: &[Function],
    density: Density,
) -> Result<Vec<u8>, SealError> {
    if records.is_empty() {
        return Err(SealError::Empty);
    }
    bounded("records", records.len(), RECORDS_MAX)?;
    first.checked_add(records.len() as u64 - 1).ok_or(SealError::Numbers(first))?;
    for name in [&origin.agent, &origin.stream, &origin.class] {
        bounded("bytes of a name", name.len(), NAME_BYTES_MAX)?;
    }
    let (mut listed, mut start, mut end) = (0, Timestamp::MAX, Timestamp::MIN);
    for record in records {
        // By far the most, and in no need of a check.
        if let Record::Reading(Reading { time, value: Value::Float(_) | Value::Int(_) | Value::Bool(_), .. }) = record {
            (start, end) = (start.min(*time), end.max(*time));
            continue;
        }
        check(record)?;
        listed += match record {
            Record::Alert(alert) => alert.values.len(),
            Record::EpochStart(start) => start.last.len(),
            _ => 0,
        };
        // In the order of time, whatever a gap says.
        for time in record.span().into_iter().flat_map(|(first, last)| [first, last]) {
            (start, end) = (start.min(time), end.max(time));
        }
    }
    let span = (start <= end).then_some((start, end));
    bounded("values of alerts and numbers of epochs", listed, LISTED_MAX)?;

    let mut best: Option<(Codec, usize, Vec<u8>)> = None;
    for effort in density.efforts() {
        let contents = contents(records, series, compute, *effort)?;
        bounded("bytes of contents", contents.len(), CONTENTS_BYTES_MAX)?;
        let length = contents.len();
        let packed = match looks_packed(&contents) {
            true => None,
            false => {
                pack(&contents, density.level()).map_err(|error| SealError::Compress(error.to_string())).map(Some)?
            }
        };
        let (codec, packed) = match packed.filter(|packed| packed.len() < length) {
            Some(packed) => (Codec::Zstd, packed),
            None => (Codec::Stored, contents),
        };
        if best.as_ref().is_none_or(|best| packed.len() < best.2.len()) {
            best = Some((codec, length, packed));
        }
    }
    let Some((codec, length, packed)) = best else { return Err(SealError::Empty) };

    let envelope = Envelope { origin, first, count: records.len(), span, schema: None };
    let frame = envelope.around(codec, length, &packed);
    bounded("bytes of a frame", frame.len(), FRAME_BYTES_MAX)?;
    Ok(frame)
}

/// Whether Zstandard would find next to nothing in these bytes: none is much more frequent than the others.
fn looks_packed(contents: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    contents.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let length = contents.len() as u64;
    // The sum of squares is what equal counts have, and their scatter.
    counts.iter().map(|count| count * count).sum::<u64>() * 256 <= (length * length + 256 * length) * 5 / 4
}

/// What stands around contents.
pub(super) struct Envelope<'a> {
    pub(super) origin: &'a Origin,
    pub(super) first: u64,
    pub(super) count: usize,
    /// The earliest and the latest event time.
    pub(super) span: Option<(Timestamp, Timestamp)>,
    /// Where the schema is not in the contents.
    pub(super) schema: Option<SchemaId>,
}

impl Envelope<'_> {
    /// The whole frame around packed contents.
    pub(super) fn around(&self, codec: Codec, contents_bytes: usize, packed: &[u8]) -> Vec<u8> {
        let Self { origin, first, count, span, schema } = *self;
        let classed = *origin.class != *DEFAULT_CLASS;
        let zipped = codec == Codec::Zstd;
        let (spans, zips) = (2 * usize::from(span.is_some()), 2 * usize::from(zipped));
        let keys = 6 + usize::from(classed) + spans + zips + usize::from(schema.is_some());

        let mut out = Writer::default();
        out.array(4);
        out.map(keys);
        out.int(key::VERSION);
        out.unsigned(VERSION);
        out.int(key::AGENT);
        out.text(&origin.agent);
        out.int(key::EPOCH);
        out.unsigned(origin.epoch.0);
        out.int(key::STREAM);
        out.text(&origin.stream);
        if classed {
            out.int(key::CLASS);
            out.text(&origin.class);
        }
        out.int(key::FIRST);
        out.unsigned(first);
        out.int(key::COUNT);
        out.unsigned(count as u64);
        if let Some((start, end)) = span {
            out.int(key::START);
            out.int(start.as_nanos());
            out.int(key::END);
            out.int(end.as_nanos());
        }
        if zipped {
            out.int(key::CODEC);
            out.unsigned(1);
            out.int(key::BYTES);
            out.unsigned(contents_bytes as u64);
        }
        if let Some(schema) = schema {
            out.int(key::SCHEMA);
            out.unsigned(schema.0);
        }
        out.bytes(packed);
        // What later versions say of the bytes above, such as a signature.
        out.map(0);
        let mut checksummed = out.bytes;
        // The checksum covers its own head, so that a frame is what lies before its last four bytes.
        checksummed.push(0x44);
        let checksum = crc32fast::hash(&checksummed);
        checksummed.extend(checksum.to_be_bytes());
        checksummed
    }
}

/// Checks the texts of a record against their bounds.
fn check(record: &Record) -> Result<(), SealError> {
    let name = |text: &str| bounded("bytes of a name", text.len(), NAME_BYTES_MAX);
    let value = |value: &Value| match value {
        Value::Text(text) => bounded("bytes of a text", text.len(), TEXT_BYTES_MAX),
        _ => Ok(()),
    };
    match record {
        Record::Reading(reading) => value(&reading.value),
        Record::Aggregate(aggregate) => aggregate.values.iter().flatten().try_for_each(value),
        Record::Alert(alert) => {
            name(&alert.rule)?;
            name(&alert.instance)?;
            bounded("bytes of a text", alert.message.len(), TEXT_BYTES_MAX)?;
            alert.values.iter().try_for_each(|(binding, bound)| {
                name(binding)?;
                bound.as_ref().map_or(Ok(()), value)
            })
        }
        Record::Gap(gap) => {
            let (class, covered_by) = (gap.class.as_deref(), gap.covered_by.as_deref());
            [Some(&*gap.stream), Some(&*gap.reason), class, covered_by].into_iter().flatten().try_for_each(name)
        }
        Record::Outage(outage) => [&outage.input, &outage.reason].into_iter().try_for_each(|text| name(text)),
        Record::EpochStart(start) => {
            name(&start.reason)?;
            start.last.iter().try_for_each(|(stream, class, _)| name(stream).and_then(|()| name(class)))
        }
    }
}

/// The series of a frame: numbered anew, in the order in which they appear.
#[derive(Debug)]
struct Table<'a> {
    from: &'a [SeriesInfo],
    /// The frame's number of each series of `from`.
    numbers: Vec<u32>,
    series: Vec<&'a SeriesInfo>,
}

impl Table<'_> {
    #[inline(always)]
    fn number(&mut self, id: SeriesId) -> Result<SeriesId, SealError> {
        match self.numbers.get(id.index()) {
            Some(&number) if number != u32::MAX => Ok(SeriesId(number)),
            _ => self.add(id),
        }
    }

    fn add(&mut self, id: SeriesId) -> Result<SeriesId, SealError> {
        let (Some(number), Some(info)) = (self.numbers.get_mut(id.index()), self.from.get(id.index())) else {
            return Err(SealError::Series(id.0));
        };
        bounded("bytes of a name", info.name.len(), SERIES_NAME_BYTES_MAX)?;
        bounded("bytes of a unit", info.unit.as_ref().map_or(0, |unit| unit.len()), NAME_BYTES_MAX)?;
        *number = self.series.len() as u32;
        self.series.push(info);
        Ok(SeriesId(*number))
    }
}

fn contents(
    records: &[Record],
    series: &[SeriesInfo],
    compute: &[Function],
    effort: Effort,
) -> Result<Vec<u8>, SealError> {
    let mut table = Table { from: series, numbers: vec![u32::MAX; series.len()], series: Vec::new() };
    let mut sections = Writer::default();
    let (mut count, mut values) = (0, 0_usize);
    let mut rest = records;
    while let Some(first) = rest.first() {
        count += 1;
        let kind = kind(first);
        // Most frames have readings alone.
        let mut readings = Readings::of(if count == 1 && kind == section::READINGS { rest.len() } else { 0 });
        for record in rest {
            let Record::Reading(reading) = record else { break };
            readings.push(table.number(reading.series)?, reading);
        }
        let others = || rest.iter().take_while(|record| self::kind(record) == kind).count();
        let length = if kind == section::READINGS { readings.len() } else { others() };
        let (run, after) = rest.split_at(length);
        rest = after;
        sections.array(3);
        sections.unsigned(kind);
        sections.unsigned(run.len() as u64);
        match kind {
            section::READINGS => {
                // Two bytes a reading are more than most take.
                let mut block = Vec::with_capacity(2 * run.len() + 64);
                let value = |row: usize| match run.get(row) {
                    Some(Record::Reading(reading)) => Some(&reading.value),
                    _ => None,
                };
                readings.encode(value, effort, &mut block);
                sections.bytes(&block);
            }
            section::AGGREGATES => {
                let mut aggregates: Vec<Aggregate> = Vec::with_capacity(run.len());
                for record in run {
                    if let Record::Aggregate(aggregate) = record {
                        let found = aggregate.values.len();
                        if found != compute.len() {
                            return Err(SealError::Values { expected: compute.len(), found });
                        }
                        values += found;
                        aggregates.push(Aggregate { series: table.number(aggregate.series)?, ..aggregate.clone() });
                    }
                }
                let mut block = Vec::new();
                encode_aggregates(&aggregates.iter().collect::<Vec<_>>(), compute.len(), effort, &mut block);
                sections.bytes(&block);
            }
            _ => {
                sections.array(run.len());
                run.iter().for_each(|record| notice::write(record, &mut sections));
            }
        }
    }
    let aggregates = records.iter().any(|record| matches!(record, Record::Aggregate(_)));
    bounded("values of aggregates", values, VALUES_MAX)?;

    let mut out = Writer::default();
    out.map(1 + usize::from(!table.series.is_empty()) + usize::from(aggregates));
    if !table.series.is_empty() {
        out.int(part::SERIES);
        out.array(table.series.len());
        for info in table.series {
            out.array(1 + usize::from(info.unit.is_some()));
            out.text(&info.name);
            if let Some(unit) = &info.unit {
                out.text(unit);
            }
        }
    }
    if aggregates {
        bounded("functions", compute.len(), FUNCTIONS_MAX)?;
        out.int(part::COMPUTE);
        out.array(compute.len());
        compute.iter().for_each(|function| out.text(&function.name()));
    }
    out.int(part::SECTIONS);
    out.array(count);
    out.bytes.extend_from_slice(&sections.bytes);
    Ok(out.bytes)
}

const fn kind(record: &Record) -> u64 {
    match record {
        Record::Reading(_) => section::READINGS,
        Record::Aggregate(_) => section::AGGREGATES,
        _ => section::NOTICES,
    }
}
