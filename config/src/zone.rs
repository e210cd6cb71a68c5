//! Time zones: from a name to the table of a zone, by the system's time zone data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rtlive_core::time::Timestamp;
use rtlive_core::zone::Zone;

/// Where the time zone data of a Linux system are.
const FOLDER: &str = "/usr/share/zoneinfo";

/// The largest file of a zone; the longest that there are have 4 kB.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// The longest name of a zone.
const NAME_BYTES_MAX: usize = 64;

/// Why there is no table for a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ZoneError {
    /// It is none that a zone could have.
    NoName,
    /// The system has no time zone data.
    NoData,
    /// The data have no zone of this name.
    Unknown,
    /// The file is no time zone.
    Damaged(PathBuf),
}

impl ZoneError {
    /// What was expected, in words that follow "expected".
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::NoName | Self::Unknown => {
                format!("a time zone of {FOLDER} such as \"Europe/Berlin\", or \"UTC\"")
            }
            Self::NoData => format!("time zone data in {FOLDER} (on Debian: apt install tzdata)"),
            Self::Damaged(path) => format!("a time zone file (RFC 8536) at {}", path.display()),
        }
    }
}

/// The zone of a name.
pub(crate) fn find(name: &str) -> Result<Arc<Zone>, ZoneError> {
    find_in(Path::new(FOLDER), name)
}

fn find_in(folder: &Path, name: &str) -> Result<Arc<Zone>, ZoneError> {
    if name == "UTC" {
        return Ok(Arc::new(Zone::utc()));
    }
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
    };
    if name.len() > NAME_BYTES_MAX || !name.split('/').all(is_part) {
        return Err(ZoneError::NoName);
    }
    if !folder.is_dir() {
        return Err(ZoneError::NoData);
    }
    let path = folder.join(name);
    let is_file = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX);
    let bytes = is_file.then(|| std::fs::read(&path).ok()).flatten().ok_or(ZoneError::Unknown)?;
    let damaged = || ZoneError::Damaged(path.clone());
    table(name, &bytes).map(Arc::new).ok_or_else(damaged)
}

/// The table of a zone from 1970 to the end of all times that a reading can have; before, the offset is that of 1970.
fn table(name: &str, file: &[u8]) -> Option<Zone> {
    let zone = jiff::tz::TimeZone::tzif(name, file).ok()?;
    let first = zone.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds();
    let end = Timestamp::MAX.as_nanos() / 1_000_000_000;
    let changes = zone
        .following(jiff::Timestamp::UNIX_EPOCH)
        .map(|change| (change.timestamp().as_second(), change.offset().seconds()));
    let mut transitions = Vec::new();
    let mut last = first;
    // A transition may change nothing but the name of the time.
    for (at, offset) in changes.take_while(|(at, _)| *at < end) {
        if offset != last {
            transitions.push((at, offset));
            last = offset;
        }
    }
    Zone::new(name.into(), first, transitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Odd"), "this is no zone").unwrap();
        let find = |name: &str| find_in(folder.path(), name).unwrap_err();
        assert_eq!(find("../Odd"), ZoneError::NoName);
        assert_eq!(find("/Odd"), ZoneError::NoName);
        assert_eq!(find("Europe/Nowhere"), ZoneError::Unknown);
        assert_eq!(find("Odd"), ZoneError::Damaged(folder.path().join("Odd")));
        let gone = folder.path().join("gone");
        assert_eq!(find_in(&gone, "Europe/Berlin"), Err(ZoneError::NoData));
        assert!(find_in(&gone, "UTC").is_ok());
    }
}
