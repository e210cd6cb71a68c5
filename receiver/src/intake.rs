//! The intake: from messages to records that were not here before, and to the commit that says so.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rtlive_config::name::{is_agent_id, is_name};
use rtlive_core::frame::{self, FrameError, Header, Origin, Schema, SchemaId};
use rtlive_core::message::{MAGIC, Message, MessageError};
use rtlive_core::uplink::receipt::Receipt;

use crate::complaint::Complaints;
use crate::config::ParquetConfig;
use crate::counts::Counts;
use crate::delivery::{Cursor, Delivery, SourceId};
use crate::intervals::Numbers;
use crate::metrics::Figures;
use crate::new_records::NewRecords;
use crate::output::{Files, FilesError, Lines};
use crate::receipts::Receipts;
use crate::state::{
    ASSEMBLIES_MAX, ASSEMBLY_BYTES_MAX, Assembled, State, StateError, UNOPENED_BYTES_MAX, UNOPENED_MAX, Unopened,
};
use crate::told::told;

/// Why the intake cannot go on. What it had not committed comes again after the next start.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Standard output cannot be written.
    #[error("write to standard output")]
    Lines(#[source] io::Error),
    /// Parquet files cannot be written.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// Why a message is no frame.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is neither a message of a frame nor JSON, or its parts make no frame.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The frame is damaged, or of a version that is not known.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is JSON.
    #[error("expected a frame, found JSON, which is not yet taken in this version")]
    Json,
    /// An agent or a stream has a name that the configuration of none allows; it would be the name of a folder.
    #[error("expected an agent and a stream with names that a configuration allows, found {agent:?} and {stream:?}")]
    Name {
        /// The agent's.
        agent: Arc<str>,
        /// The stream's.
        stream: Arc<str>,
    },
    /// The parts are longer together than any frame.
    #[error("expected the parts of a frame, found more bytes than any frame has")]
    TooLong,
}

/// What is set up of the intake.
pub struct Setup {
    /// The folder of the state.
    pub state_dir: PathBuf,
    /// The names of the sources, by their ids.
    pub sources: Vec<Arc<str>>,
    /// Where JSON lines go, if they go anywhere.
    pub lines: Option<Box<dyn Write + Send>>,
    /// Where Parquet files go, if they go anywhere.
    pub parquet: Option<ParquetConfig>,
    /// What the names of files begin with.
    pub id: String,
    /// Where figures are kept for whoever asks.
    pub figures: Figures,
}

/// Takes messages in.
pub struct Intake {
    state: State,
    sources: Vec<Arc<str>>,
    lines: Option<Lines<Box<dyn Write + Send>>>,
    files: Option<Files>,
    receipts: Receipts,
    counts: Counts,
    figures: Figures,
    complaints: Complaints,
}

impl Intake {
    /// Opens the state.
    ///
    /// # Errors
    /// What the state says.
    pub fn open(setup: Setup) -> Result<Self, IntakeError> {
        let Setup { state_dir, sources, lines, parquet, id, figures } = setup;
        let mut state = State::open(&state_dir)?;
        let files = parquet.map(|config| Files::open(config, &id, &mut state)).transpose()?;
        let lines = lines.map(Lines::new);
        let (receipts, counts, complaints) = (Receipts::default(), Counts::default(), Complaints::default());
        Ok(Self { state, sources, lines, files, receipts, counts, figures, complaints })
    }

    /// How far the files of a source are read.
    ///
    /// # Errors
    /// What the state says.
    pub fn cursors(&self, source: SourceId) -> Result<Vec<Cursor>, IntakeError> {
        Ok(self.state.cursors(self.name_of(source))?)
    }

    /// Notes the filters that a source subscribes to, and gives those of earlier times that it does not any more.
    ///
    /// # Errors
    /// What the state says.
    pub fn subscribe(&mut self, source: SourceId, filters: &[String]) -> Result<Vec<String>, IntakeError> {
        let name = self.name_of(source).to_owned();
        self.state.begin()?;
        let obsolete = self.state.subscribe(&name, filters)?;
        self.state.commit()?;
        Ok(obsolete)
    }

    /// What was counted since the start.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes a batch of messages, and commits. When it returns, all of them are dealt with for good.
    ///
    /// # Errors
    /// Nothing was committed, and the intake must be dropped.
    pub fn take<'a>(&mut self, batch: impl IntoIterator<Item = &'a Delivery>) -> Result<(), IntakeError> {
        self.receipts.clear();
        self.state.begin()?;
        let mut parts = false;
        for delivery in batch {
            parts |= self.take_one(delivery)?;
            if let Some(cursor) = &delivery.cursor {
                let source = self.sources.get(delivery.source.0).map_or("", |name| &**name);
                self.state.set_cursor(source, cursor)?;
            }
        }
        if parts {
            let given_up = self.state.trim_assemblies()?;
            if given_up > 0 {
                let (mib, bound) = (ASSEMBLY_BYTES_MAX >> 20, ASSEMBLIES_MAX);
                tracing::warn!("{given_up} frames lack parts, and are given up: more than {bound} or {mib} MiB wait");
            }
            self.counts.frames_given_up += given_up;
        }
        if let Some(lines) = &mut self.lines {
            lines.flush().map_err(IntakeError::Lines)?;
        }
        self.state.commit()?;
        self.counts.commits += 1;
        self.figures.note_counts(&self.counts);
        match &self.files {
            Some(files) if files.is_full() => self.close_files(),
            _ => Ok(()),
        }
    }

    /// The receipts for what a source brought in the last batch, for each agent.
    ///
    /// # Errors
    /// What the state says.
    pub fn receipts(&mut self, source: SourceId) -> Result<Vec<(Arc<str>, Receipt)>, IntakeError> {
        Ok(self.receipts.of(source, &mut self.state)?)
    }

    /// How long nothing need be done but to take messages; `None` while nothing waits.
    pub fn files_due_in(&self) -> Option<Duration> {
        self.files.as_ref()?.due_in()
    }

    /// Closes the files that hold rows, and puts them in their places.
    ///
    /// # Errors
    /// What is not done can be done by the next process; the intake must be dropped.
    pub fn close_files(&mut self) -> Result<(), IntakeError> {
        if let Some(files) = &mut self.files {
            self.counts.files += files.close(&mut self.state)?;
            self.figures.note_counts(&self.counts);
        }
        Ok(())
    }

    /// Takes one message; says whether it was a part of several.
    fn take_one(&mut self, delivery: &Delivery) -> Result<bool, IntakeError> {
        self.counts.messages += 1;
        self.counts.message_bytes += delivery.payload.len() as u64;
        let is_json = delivery.payload.first().is_some_and(|first| *first != MAGIC[0] && matches!(first, b'{' | b'['));
        if is_json {
            if !is_status(&delivery.payload) {
                self.refuse(delivery, &Refusal::Json);
            }
            return Ok(false);
        }
        let message = match Message::parse(&delivery.payload) {
            Ok(message) => message,
            Err(error) => {
                self.refuse(delivery, &error.into());
                return Ok(false);
            }
        };
        if message.count == 1 {
            self.take_item(delivery, message.part, message.historical)?;
            return Ok(false);
        }
        match self.state.put_part(&delivery.topic, &message)? {
            Assembled::Waits => {}
            Assembled::Again => self.counts.parts_again += 1,
            Assembled::Whole { frame, historical } => self.take_item(delivery, &frame, historical)?,
            Assembled::TooLong => self.refuse(delivery, &Refusal::TooLong),
        }
        Ok(true)
    }

    /// Takes what messages carried: a frame, or a schema.
    fn take_item(&mut self, delivery: &Delivery, item: &[u8], historical: bool) -> Result<(), IntakeError> {
        let taken = if frame::is_schema(item) {
            self.take_schema(delivery, item)?
        } else {
            self.take_frame(delivery, item, historical)?
        };
        if let Err(refusal) = taken {
            self.refuse(delivery, &refusal);
        }
        Ok(())
    }

    /// Keeps a schema, and takes the frames that waited for it.
    fn take_schema(&mut self, delivery: &Delivery, bytes: &[u8]) -> Result<Result<(), Refusal>, IntakeError> {
        let schema = match Schema::parse(bytes) {
            Ok(schema) => schema,
            Err(error) => return Ok(Err(error.into())),
        };
        if !is_agent_id(schema.agent) {
            return Ok(Err(Refusal::Name { agent: schema.agent.into(), stream: "schema".into() }));
        }
        self.counts.schemas += u64::from(self.state.put_schema(schema.agent, schema.id, bytes)?);
        while let Some(Unopened { historical, frame, .. }) = self.state.take_unopened(schema.agent, schema.id)? {
            self.take_item(delivery, &frame, historical)?;
        }
        Ok(Ok(()))
    }

    /// Takes a frame; one whose schema is not here is kept as it is.
    fn take_frame(
        &mut self,
        delivery: &Delivery,
        frame: &[u8],
        historical: bool,
    ) -> Result<Result<(), Refusal>, IntakeError> {
        let (header, contents) = match frame::open(frame) {
            Ok(opened) => opened,
            Err(FrameError::Schema(id)) => return self.take_referring(delivery, frame, id, historical),
            Err(error) => return Ok(Err(error.into())),
        };
        if let Err(refusal) = checked_names(&header.origin) {
            return Ok(Err(refusal));
        }
        self.counts.frames += 1;
        let numbers = self.state.receive(&header.origin, numbers_of(&header), header.span.map(|(_, latest)| latest))?;
        self.receipts.note(delivery.source, &header.origin, header.first);
        if let Some((_, latest)) = header.span {
            self.figures.note_frame(&header.origin.agent, latest);
        }
        let records = NewRecords { header, contents, historical, numbers };
        let new = records.count();
        self.counts.records += new;
        self.counts.records_again += u64::from(records.header.count) - new;
        if new == 0 {
            return Ok(Ok(()));
        }
        self.state.announce(&records)?;
        if let Some(lines) = &mut self.lines {
            lines.write(&records).map_err(IntakeError::Lines)?;
        }
        if let Some(files) = &mut self.files {
            files.append(&mut self.state, &records, frame)?;
        }
        Ok(Ok(()))
    }

    /// Makes a frame whole that names its schema, and takes it; or keeps it until the schema comes.
    fn take_referring(
        &mut self,
        delivery: &Delivery,
        frame: &[u8],
        id: SchemaId,
        historical: bool,
    ) -> Result<Result<(), Refusal>, IntakeError> {
        let header = match frame::read_header(frame) {
            Ok((header, _)) => header,
            Err(error) => return Ok(Err(error.into())),
        };
        if let Err(refusal) = checked_names(&header.origin) {
            return Ok(Err(refusal));
        }
        let agent = &header.origin.agent;
        let Some(schema) = self.state.schema(agent, id)? else {
            self.counts.frames_unopened += 1;
            let given_up = self.state.keep_unopened(agent, id, header.checksum, historical, frame)?;
            if given_up > 0 {
                let (mib, bound) = (UNOPENED_BYTES_MAX >> 20, UNOPENED_MAX);
                tracing::warn!(
                    "{given_up} frames lack their schema, and are given up: more than {bound} or {mib} MiB wait"
                );
            }
            self.counts.frames_given_up += given_up;
            return Ok(Ok(()));
        };
        match Schema::parse(&schema).and_then(|schema| frame::restore(frame, &schema)) {
            Ok(whole) => self.take_frame(delivery, &whole, historical),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Passes over a message that holds nothing; it is acknowledged, or it would come for ever.
    fn refuse(&mut self, delivery: &Delivery, refusal: &Refusal) {
        self.counts.messages_refused += 1;
        let source = self.name_of(delivery.source).to_owned();
        let place = match &delivery.cursor {
            Some(Cursor { name, offset }) => format!(", {name}, before byte {offset}"),
            None if delivery.topic.is_empty() => String::new(),
            None => format!(", topic {}", delivery.topic),
        };
        self.complaints.tell(format_args!("{source}{place}: {}", told(refusal)));
    }

    fn name_of(&self, source: SourceId) -> &str {
        self.sources.get(source.0).map_or("", |name| name)
    }
}

/// Whether JSON is the status of an agent (`rtlive/{agent}/status`), which is no record.
fn is_status(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Status {
        state: Option<serde::de::IgnoredAny>,
        stream: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Status>(text).is_ok_and(|status| status.state.is_some() && status.stream.is_none())
}

/// Refuses names that would be those of folders elsewhere.
fn checked_names(Origin { agent, stream, .. }: &Origin) -> Result<(), Refusal> {
    if is_agent_id(agent) && is_name(stream) {
        return Ok(());
    }
    Err(Refusal::Name { agent: Arc::clone(agent), stream: Arc::clone(stream) })
}

const fn numbers_of(header: &Header) -> Numbers {
    Numbers { from: header.first, to: header.last() }
}

#[cfg(test)]
mod tests;
