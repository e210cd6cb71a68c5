//! What a driver is to the rest of the program.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use rtlive_config::reference::Reference;
use rtlive_config::table::Table;

use crate::outlet::Session;

/// A kind of source, as the registry lists it.
pub struct Driver {
    /// The word for `driver = "…"`.
    pub name: &'static str,
    /// What it reads, in one line.
    pub summary: &'static str,
    /// An `[inputs.NAME]` table that works as it stands once its port is right; printed by `rtlive drivers NAME --example`.
    pub example: &'static str,
    /// Its options, from their doc comments.
    pub options: fn() -> Reference,
    /// Checks an input's table. Every mistake is noted in the table; `None` if there was one.
    pub check: fn(&Table<'_>) -> Option<CheckedInput>,
}

/// An input that was checked, and what the rest of the program must know of it.
pub type CheckedInput = rtlive_config::catalogue::CheckedInput<Box<dyn Input>>;

/// A future of a driver.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<(), InputError>> + Send + 'a>>;

/// An input that can be run, again and again.
pub trait Input: Send + Sync {
    /// Reads the source and hands over what it says, until it fails or [`Session::stopping`] resolves.
    ///
    /// Called by the supervisor, which calls again with backoff after an error. `Ok` means that the source is at its end (a
    /// capture that was read through) or that the program stops. It may be dropped at any await.
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a>;

    /// Decodes the bytes of a capture instead of a live source, for `rtlive try --from`; `None` where a driver cannot.
    fn decoder(&self) -> Option<Box<dyn Decoder>> {
        None
    }
}

/// A pure decoder of a byte stream.
pub trait Decoder: Send {
    /// Takes the next bytes of the source, which arrived at `session`'s now, and adds what they complete to `session`.
    fn take(&mut self, bytes: &[u8], session: &mut Session);
}

/// Why an input stopped.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {cause}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct InputError {
    /// The operation and the object: `open /dev/ttyUSB0`.
    pub doing: String,
    /// What the system or the peer said.
    pub cause: String,
    /// What the user can do.
    pub hint: Option<String>,
}

/// An error in its own words and in those of its causes; libraries repeat their cause in some errors and not in others, so what was said is
/// not said again.
pub fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
