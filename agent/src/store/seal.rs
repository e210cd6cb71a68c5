//! Sealing: a tail becomes frames, or JSON messages.

use rtlive_core::frame::{self, Density, Origin, SealError};
use rtlive_core::journal::StreamKey;
use rtlive_core::json;
use rtlive_core::plan::{BatchLimit, Format, Function, Plan, StreamId, StreamKind, StreamPlan};
use rtlive_core::reading::SeriesInfo;
use rtlive_core::record::{Epoch, Gap, Record};
use rtlive_core::time::Timestamp;

use super::tails::{self, Tail};
use super::{Store, StoreError, Touched, accounts};
use crate::message::LinkHint;

/// How long a JSON message may be, in bytes; more records go into the next. Small enough for every broker's default.
const JSON_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What part of the bound tails may take of a snapshot, and what is reckoned for a record.
const SNAPSHOT_TAILS_PART: u64 = 64;
const TAIL_RECORD_BYTES: u64 = 64;

/// So many records at once come from a source of thousands a second: sealing them takes little of the processor where the link has room.
const MANY_RECORDS: usize = 16_384;

/// What sealing needs to know beside the records.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stream: &'a StreamPlan,
    pub(super) epoch: Epoch,
    pub(super) series: &'a [SeriesInfo],
    pub(super) hint: LinkHint,
}

/// A frame that is ready to be stored.
pub(super) struct NewFrame {
    pub(super) from: u64,
    pub(super) count: u32,
    pub(super) is_json: bool,
    pub(super) bytes: Vec<u8>,
}

/// Records that cannot be sealed.
pub(super) struct Lost {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) why: String,
    reason: &'static str,
    span: Option<(Timestamp, Timestamp)>,
}

/// A stored frame, as the accounts see it.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) key: StreamKey,
    pub(super) epoch: Epoch,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) bytes: u64,
    pub(super) is_damaged: bool,
}

impl Store {
    /// `after` is the plan of a snapshot that comes with the commit, behind which the journal leads to no earlier records.
    pub(super) fn seal_due(
        &mut self,
        plan: &Plan,
        at: Timestamp,
        after: Option<&Plan>,
        touched: &mut Touched,
    ) -> Result<(), StoreError> {
        let mut left = self.bounds.bytes / SNAPSHOT_TAILS_PART / TAIL_RECORD_BYTES;
        for stream in self.tails.streams() {
            let waits = after.is_none_or(|after| {
                // A slow stream's records are worth a place in the snapshot: in small frames they take several times the room.
                let is_same = !self.file.is_in_memory() && (std::ptr::eq(plan, after) || plan == after);
                let count = self.tails.count(stream);
                let waits = is_same && tails::may_outlast_a_snapshot(plan, stream) && count <= left;
                left -= if waits { count } else { 0 };
                waits
            });
            if !waits || self.tails.is_due(plan, stream, at, self.hint) {
                self.seal_stream(plan, stream, touched)?;
            }
        }
        Ok(())
    }

    /// Writes a stream's tail into frames.
    pub(super) fn seal_stream(&mut self, plan: &Plan, id: StreamId, touched: &mut Touched) -> Result<(), StoreError> {
        let (Some(stream), Some(tail)) = (plan.streams.get(id.index()), self.tails.take(id)) else { return Ok(()) };
        let account = self.accounts.of_stream(stream);
        account.sealed_to = tail.first + tail.records.len() as u64 - 1;
        touched.insert(accounts::key(stream));
        let context = Context { plan, stream, epoch: self.epoch, series: &self.series, hint: self.hint };
        for result in frames(&context, &tail) {
            match result {
                Ok(frame) => {
                    account.stored_bytes += frame.bytes.len() as u64;
                    self.wear.content_bytes += frame.bytes.len() as u64;
                    self.file.insert_frame(stream, self.epoch, tail.since, &frame)?;
                }
                Err(lost) => {
                    tracing::error!(
                        stream = &*stream.name,
                        from = lost.from,
                        to = lost.to,
                        "records cannot be sealed: {}",
                        lost.why
                    );
                    account.stored -= lost.to + 1 - lost.from;
                    account.in_gaps += lost.to + 1 - lost.from;
                    // A gap that cannot be sealed is not helped by another.
                    if id != StreamId::GAPS {
                        let gap = lost.gap(stream, self.epoch);
                        let loss = (gap.stream.clone(), gap.end.unwrap_or(Timestamp::MAX));
                        self.told.lose(&loss);
                        self.lost_levels.push(loss);
                        self.gaps.add(gap);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Sealed {
    /// The gap that takes the frame's place, with the event times that it spoke of, where they are known.
    pub(super) fn gap(&self, reason: &str, span: Option<(Timestamp, Timestamp)>) -> Gap {
        Gap {
            stream: self.key.stream.clone(),
            epoch: Some(self.epoch),
            class: Some(self.key.class.clone()),
            from: self.from,
            to: self.to,
            count: None,
            start: span.map(|span| span.0),
            end: span.map(|span| span.1),
            reason: reason.into(),
            covered_by: None,
        }
    }
}

impl Lost {
    /// The gap that takes the records' place.
    pub(super) fn gap(&self, stream: &StreamPlan, epoch: Epoch) -> Gap {
        Gap {
            stream: stream.name.clone(),
            epoch: Some(epoch),
            class: Some(stream.class.clone()),
            from: self.from,
            to: self.to,
            count: None,
            start: self.span.map(|span| span.0),
            end: self.span.map(|span| span.1),
            reason: self.reason.into(),
            covered_by: None,
        }
    }
}

/// The frames of a tail, in the order of their numbers.
pub(super) fn frames(context: &Context<'_>, tail: &Tail) -> Vec<Result<NewFrame, Lost>> {
    let mut frames = Vec::new();
    let mut from = tail.first;
    for records in spans(context, &tail.records) {
        match context.stream.format {
            Format::Frame => seal(context, from, records, &mut frames),
            Format::Json => messages(context, from, records, &mut frames),
        }
        from += records.len() as u64;
    }
    frames
}

/// Cuts records where a span of event time ends, and at the configured count.
fn spans<'a>(context: &Context<'_>, records: &'a [Record]) -> Vec<&'a [Record]> {
    let count_max = match context.stream.batch {
        BatchLimit::Count(count) => (count as usize).max(1),
        BatchLimit::Auto | BatchLimit::Time(_) => usize::MAX,
    };
    let mut cuts = vec![0];
    let (mut newest, mut begun) = (None, 0);
    for (place, record) in records.iter().enumerate() {
        // Late records of an earlier span stay with those that came with them.
        let span = record.span().map(|(start, _)| start.floor(tails::span(context.stream)));
        if place > begun && (place - begun >= count_max || (newest.is_some() && span > newest)) {
            cuts.push(place);
            begun = place;
        }
        newest = newest.max(span);
    }
    cuts.push(records.len());
    let pairs = cuts.iter().zip(cuts.iter().skip(1));
    pairs.filter_map(|(&from, &to)| records.get(from..to)).filter(|records| !records.is_empty()).collect()
}

/// How dense frames should be: as dense as can be where the link is behind or away.
fn density(hint: LinkHint, records: usize) -> Density {
    match hint {
        LinkHint { connected: true, congested: false } if records >= MANY_RECORDS => Density::Fast,
        LinkHint { connected: true, congested: false } => Density::Normal,
        _ => Density::Dense,
    }
}

fn compute(stream: &StreamPlan) -> &[Function] {
    match &stream.kind {
        StreamKind::Window(window) => &window.compute,
        StreamKind::Raw { .. } | StreamKind::Reserved => &[],
    }
}

/// Seals records into one frame, or into two halves where that fails, so that what cannot be sealed takes nothing else with it.
fn seal(context: &Context<'_>, from: u64, records: &[Record], frames: &mut Vec<Result<NewFrame, Lost>>) {
    let Context { plan, stream, epoch, series, hint } = context;
    let origin =
        Origin { agent: plan.agent.clone(), epoch: *epoch, stream: stream.name.clone(), class: stream.class.clone() };
    match frame::seal(&origin, from, records, series, compute(stream), density(*hint, records.len())) {
        Ok(bytes) => frames.push(Ok(NewFrame { from, count: records.len() as u32, is_json: false, bytes })),
        Err(_) if records.len() > 1 => {
            let (first, second) = records.split_at(records.len() / 2);
            seal(context, from, first, frames);
            seal(context, from + first.len() as u64, second, frames);
        }
        Err(error) => {
            let reason = if matches!(error, SealError::TooLarge { .. }) { "too_large" } else { "unsealable" };
            let span = records.first().and_then(Record::span);
            match frames.last_mut() {
                // One gap for all that follow each other.
                Some(Err(before)) if before.reason == reason && before.to + 1 == from => {
                    before.to = from;
                    let spans = before.span.into_iter().chain(span);
                    before.span = spans.reduce(|all, span| (all.0.min(span.0), all.1.max(span.1)));
                }
                _ => frames.push(Err(Lost { from, to: from, why: error.to_string(), reason, span })),
            }
        }
    }
}

/// Writes records as JSON arrays of at most [`JSON_MESSAGE_BYTES_MAX`]; with a batch of one, as bare objects.
fn messages(context: &Context<'_>, from: u64, records: &[Record], frames: &mut Vec<Result<NewFrame, Lost>>) {
    let Context { plan, stream, epoch, series, .. } = context;
    let epoch = epoch.to_string();
    let origin = json::Origin {
        agent: &plan.agent,
        epoch: &epoch,
        stream: &stream.name,
        class: &stream.class,
        historical: false,
    };
    let is_bare = stream.batch == BatchLimit::Count(1);
    let mut message = NewFrame { from, count: 0, is_json: true, bytes: Vec::new() };
    let mut object = Vec::new();
    for (number, record) in (from..).zip(records) {
        object.clear();
        json::write_record(&mut object, &origin, number, record, series, compute(stream));
        if message.count > 0 && (is_bare || message.bytes.len() + object.len() + 2 > JSON_MESSAGE_BYTES_MAX) {
            let next = NewFrame { from: number, count: 0, is_json: true, bytes: Vec::new() };
            frames.push(Ok(finished(std::mem::replace(&mut message, next), is_bare)));
        }
        if !is_bare {
            message.bytes.push(if message.count == 0 { b'[' } else { b',' });
        }
        message.bytes.extend_from_slice(&object);
        message.count += 1;
    }
    if message.count > 0 {
        frames.push(Ok(finished(message, is_bare)));
    }
}

fn finished(mut message: NewFrame, is_bare: bool) -> NewFrame {
    if !is_bare {
        message.bytes.push(b']');
    }
    message
}
