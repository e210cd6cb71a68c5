//! Lanes: which numbers of an agent's epoch, stream and class are here.

use rtlive_core::frame::Origin;
use rtlive_core::time::Timestamp;
use rusqlite::params;

use super::{State, StateError};
use crate::intervals::{Intervals, Numbers};

/// How many lanes are remembered between commits: those of some thousand agents, in a few MB. All others are read again when they are needed.
const LANES_REMEMBERED_MAX: usize = 8_192;

/// A lane that is remembered.
pub(super) struct Lane {
    id: i64,
    received: Intervals,
    is_changed: bool,
}

impl State {
    /// Notes that records of a lane are here, and says which of their numbers were not, in ascending order.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn receive(
        &mut self,
        origin: &Origin,
        numbers: Numbers,
        latest: Option<Timestamp>,
    ) -> Result<Vec<Numbers>, StateError> {
        let lane = self.lane(origin)?;
        let new = lane.received.insert(numbers, latest);
        lane.is_changed |= !new.is_empty();
        Ok(new)
    }

    /// The interval of a lane that a number lies in.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn interval(&mut self, origin: &Origin, number: u64) -> Result<Option<(u64, u64)>, StateError> {
        let mut intervals = self.lane(origin)?.received.iter();
        let found = intervals.find(|interval| (interval.from..=interval.to).contains(&number));
        Ok(found.map(|interval| (interval.from, interval.to)))
    }

    /// A lane; one that is not known begins empty.
    fn lane(&mut self, origin: &Origin) -> Result<&mut Lane, StateError> {
        let lane = match self.lanes.remove(origin) {
            Some(lane) => lane,
            None => self.load_lane(origin)?,
        };
        Ok(self.lanes.entry(origin.clone()).insert_entry(lane).into_mut())
    }

    fn load_lane(&self, origin: &Origin) -> Result<Lane, StateError> {
        let doing = "find a lane";
        let Origin { agent, epoch, stream, class } = origin;
        let key = params![&**agent, epoch.0.cast_signed(), &**stream, &**class];
        let sql = "SELECT id, received FROM lanes WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND class = ?4";
        let found = self.row(doing, sql, key, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        if let Some((id, received)) = found {
            let received = postcard::from_bytes(&received).map_err(|_| self.damaged(format_args!("lane {id}")))?;
            return Ok(Lane { id, received, is_changed: false });
        }
        let sql = "INSERT INTO lanes (agent, epoch, stream, class, received) VALUES (?1, ?2, ?3, ?4, x'00')";
        self.execute(doing, sql, key)?;
        let id = self.connection.last_insert_rowid();
        Ok(Lane { id, received: Intervals::default(), is_changed: false })
    }

    /// Writes the lanes that changed since the last commit.
    pub(super) fn write_lanes(&mut self) -> Result<(), StateError> {
        let mut lanes = std::mem::take(&mut self.lanes);
        for lane in lanes.values_mut().filter(|lane| lane.is_changed) {
            let received = postcard::to_stdvec(&lane.received).map_err(|_| self.damaged("a set of intervals"))?;
            self.execute("write a lane", "UPDATE lanes SET received = ?2 WHERE id = ?1", params![lane.id, received])?;
            lane.is_changed = false;
        }
        self.lanes = lanes;
        Ok(())
    }

    /// Forgets lanes beyond the bound, between commits.
    pub(super) fn trim_lanes(&mut self) {
        if self.lanes.len() > LANES_REMEMBERED_MAX {
            self.lanes.clear();
        }
    }

    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> StateError {
        StateError::Damaged { path: self.path.display().to_string(), what: what.to_string() }
    }
}
