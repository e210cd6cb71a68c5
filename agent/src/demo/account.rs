//! The account at the end of the demo: what the store says on disk, beside what the subscriber has.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rtlive_core::engine::InputAccount;
use rtlive_core::plan::Plan;
use rtlive_core::time::Timestamp;

use super::subscriber::Subscriber;
use crate::clock::{boot_id, random};
use crate::message::{StoreError, StreamAccount};
use crate::recovery;
use crate::store::{Boot, Keeper, Options};

/// What became of everything that the agent read.
#[derive(Debug)]
pub struct Account {
    inputs: Vec<InputAccount>,
    streams: Vec<Line>,
    again: u64,
    imbalances: Vec<String>,
}

/// A stream at both ends.
#[derive(Clone, Debug)]
struct Line {
    stream: Arc<str>,
    agent: StreamAccount,
    at_subscriber: u64,
}

impl Account {
    /// Opens the store that an agent left behind in `state_dir`, as its next start would.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn of(state_dir: &Path, plan: &Arc<Plan>, now: Timestamp) -> Result<Self, StoreError> {
        let options = Options::new(state_dir.to_owned());
        let (mut store, recovered) = Keeper::open(&options, Boot { id: boot_id(), now, random: random() })?;
        let (stage, _) = recovery::restore(&mut store, recovered, plan, |_| (now, None))?;
        let status = store.status()?;
        let ledger = stage.engine().ledger();
        let mut imbalances: Vec<String> = ledger.check().iter().map(ToString::to_string).collect();
        imbalances.extend(status.check());
        let streams = status.streams.iter();
        let streams = streams.map(|(key, agent)| Line { stream: key.stream.clone(), agent: *agent, at_subscriber: 0 });
        let account = Self { inputs: ledger.inputs.clone(), streams: streams.collect(), again: 0, imbalances };
        store.close()?;
        Ok(account)
    }

    /// Whether everything that was acknowledged is at the subscriber; what is on its way may still come.
    pub fn has_arrived(&self, subscriber: &Subscriber) -> bool {
        self.streams.iter().all(|line| subscriber.records(&line.stream) >= line.agent.acknowledged)
    }

    /// Puts the subscriber's side beside the agent's, and says whether they agree.
    pub fn compare(&mut self, subscriber: &Subscriber) -> bool {
        self.again = subscriber.records_again();
        for line in &mut self.streams {
            line.at_subscriber = subscriber.records(&line.stream);
            let StreamAccount { acknowledged, stored, .. } = line.agent;
            // What was sent and not acknowledged is stored here, and may be there as well.
            if !(acknowledged..=acknowledged + stored).contains(&line.at_subscriber) {
                let (stream, found) = (&line.stream, line.at_subscriber);
                self.imbalances.push(format!(
                    "{acknowledged} records of {stream} are acknowledged, and {found} are at the subscriber"
                ));
            }
        }
        if subscriber.faults() > 0 {
            self.imbalances.push(format!("{} messages could not be opened", subscriber.faults()));
        }
        self.imbalances.is_empty()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for account in &self.inputs {
            let dropped: u64 = account.dropped.values().sum();
            let InputAccount { input, taken, accepted, .. } = account;
            writeln!(f, "input {input}: {taken} taken = {accepted} accepted + {dropped} dropped")?;
        }
        writeln!(f, "{:<14}{:>9}  = acknowledged + stored + in gaps    at the subscriber", "stream", "numbered")?;
        for Line { stream, agent, at_subscriber } in &self.streams {
            let StreamAccount { numbered, acknowledged, stored, in_gaps, .. } = agent;
            writeln!(
                f,
                "{stream:<14}{numbered:>9}  = {acknowledged:>12} + {stored:>6} + {in_gaps:>7}    {at_subscriber:>17}"
            )?;
        }
        if self.again > 0 {
            writeln!(
                f,
                "{} records came twice, as their acknowledgement was lost with the connection, and count once",
                self.again
            )?;
        }
        for imbalance in &self.imbalances {
            writeln!(f, "{imbalance}")?;
        }
        f.write_str(if self.imbalances.is_empty() { "the ledger closes" } else { "the ledger does not close" })
    }
}
