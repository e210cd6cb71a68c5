//! The frames that the task holds: taken of the store, and delivered, or given back.

use std::sync::Arc;

use rtlive_core::uplink::receipt::{Awaiting, Receipt};
use rtlive_core::uplink::{Event, FrameId, Lane, Retained, Wanted};

use super::{Given, Link, Task};
use crate::message::{Offer, StoreError, StoreRequest, StoredFrame};

impl Task {
    /// The store gave out a frame.
    pub(super) fn note_taken(&mut self, frame: &StoredFrame) {
        let (bytes, lane, committed_at) = (frame.bytes.len(), frame.lane, frame.committed_at);
        self.frames.insert(frame.id, Given { bytes, lane, committed_at });
        let Some(awaited) = self.awaited.as_mut().filter(|_| !frame.json) else { return };
        let (stream, class) = (frame.stream.clone(), frame.class.clone());
        let to = frame.first.saturating_add(u64::from(frame.records).saturating_sub(1));
        awaited.send(frame.id, Awaiting { epoch: frame.epoch, stream, class, from: frame.first, to });
    }

    /// What is sent for a frame, and the schema that goes before it: the frame as it is, or where schemas are retained one that names its schema.
    pub(super) fn referring(&mut self, frame: &StoredFrame) -> (Arc<[u8]>, Option<Retained>) {
        let whole = || (frame.bytes.clone(), None);
        let (Some(schemas), Link::Open(connection), false) = (&mut self.schemas, &self.link, frame.json) else {
            return whole();
        };
        let topic = self.topics.of_schemas();
        // As much as a packet may have, without its topic and what is around.
        let bytes_max = (connection.limits.packet_bytes_max as usize).saturating_sub(topic.len() + 64);
        match schemas.refer(&frame.bytes, &topic, bytes_max) {
            Some((bytes, schema)) => (bytes.into(), schema),
            None => whole(),
        }
    }

    /// The store may delete a frame.
    pub(super) fn deliver(&mut self, id: FrameId) {
        let frame = self.frames.remove(&id);
        let bytes = frame.as_ref().map_or(0, |frame| frame.bytes as u64);
        if let Some(frame) = frame.filter(|frame| frame.lane == Lane::Live) {
            self.record_trips.note(self.clock.now().since(frame.committed_at));
        }
        self.delivered.push(id);
        self.health_mut(|health, _| {
            health.acknowledged_frames += 1;
            health.acknowledged_bytes += bytes;
        });
    }

    pub(super) fn take_receipt(&mut self, message: &[u8]) {
        let Some(awaited) = &mut self.awaited else { return };
        match Receipt::parse(message) {
            Ok(receipt) => {
                let was_full = awaited.is_full();
                awaited.cover(&receipt).into_iter().for_each(|id| self.deliver(id));
                if was_full {
                    self.handle(Event::FramesAvailable);
                }
            }
            Err(error) => tracing::warn!("a receipt from {} is passed over: {error}", self.peer.broker),
        }
    }

    /// Gives the frames back whose receipts have not come in their time.
    pub(super) async fn send_overdue_again(&mut self) -> Result<(), StoreError> {
        let now = self.now().steady;
        let overdue = self.awaited.as_mut().map(|awaited| awaited.overdue(now)).unwrap_or_default();
        if overdue.is_empty() {
            return Ok(());
        }
        tracing::warn!("{} frames that {} took have no receipt; they are sent again", overdue.len(), self.peer.broker);
        self.give_back(overdue).await?;
        self.handle(Event::FramesAvailable);
        Ok(())
    }

    pub(super) async fn give_back(&mut self, ids: Vec<FrameId>) -> Result<(), StoreError> {
        for id in &ids {
            self.frames.remove(id);
            if let Some(awaited) = &mut self.awaited {
                awaited.give_back(*id);
            }
        }
        self.tell_delivered().await?;
        self.store.tell(StoreRequest::Return(ids)).await
    }

    /// Gives back what the broker has not acknowledged; what it has goes on waiting for receipts.
    pub(super) async fn requeue(&mut self) -> Result<(), StoreError> {
        self.take_promised(None).await?;
        if let Some(awaited) = &mut self.awaited
            && awaited.lose_connection()
        {
            let lost = self.frames.keys().copied().filter(|id| !awaited.holds(*id)).collect();
            return self.give_back(lost).await;
        }
        self.frames.clear();
        self.tell_delivered().await?;
        self.store.tell(StoreRequest::Requeue).await
    }

    /// The next frame that is wanted. One that the store promised came with its commit.
    pub(super) async fn take(&mut self, wanted: Wanted) -> Result<Option<StoredFrame>, StoreError> {
        if let Some(frame) = self.take_promised(Some(&wanted)).await? {
            return Ok(Some(frame));
        }
        match self.store.take(wanted.clone()).await? {
            Offer::Frame(frame) => Ok(Some(frame)),
            Offer::Later(later) => {
                self.promised = Some((wanted, later));
                Ok(None)
            }
        }
    }

    /// The frame that came as it was promised, if it is the one that is wanted now; else it goes back.
    async fn take_promised(&mut self, wanted: Option<&Wanted>) -> Result<Option<StoredFrame>, StoreError> {
        let Some((before, mut later)) = self.promised.take() else { return Ok(None) };
        later.close();
        match later.try_recv() {
            Ok(frame) if wanted == Some(&before) => Ok(Some(frame)),
            Ok(frame) => self.store.tell(StoreRequest::Return(vec![frame.id])).await.map(|()| None),
            Err(_) => Ok(None),
        }
    }

    pub(super) async fn tell_delivered(&mut self) -> Result<(), StoreError> {
        if self.delivered.is_empty() {
            return Ok(());
        }
        self.store.tell(StoreRequest::Acknowledge(std::mem::take(&mut self.delivered))).await
    }
}
